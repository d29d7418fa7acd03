"""Cosines, norms and inner products of per-example loss gradients (eq. 1, 4, 5)."""

import torch
from torch import nn

from stiffness.device import full_float32
from stiffness.errors import StiffnessError
from stiffness.gradients.engine import gram_blocks, mirror, parse_bytes, squared_norms
from stiffness.gradients.models import (
    Inputs,
    call,
    length,
    place,
    refuse_training_mode,
    take,
)
from stiffness.gradients.seeds import Loss, exact_seeds, plain_seeds

Matrices = torch.Tensor | dict[str, torch.Tensor]
_FORWARD_CHUNK = 256


def gradient_cosines(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    per_layer: bool = False,
    memory_budget: str | int = "4GiB",
    precision: str = "exact",
) -> tuple[Matrices, Matrices]:
    """Cosines of all pairs of per-example loss gradients, and the logarithms of their norms.

    The loss gradient with respect to the outputs is computed in float64 and scaled to unit norm
    for every example before it is propagated back, so that neither confident examples nor tiny
    gradients are lost to rounding; see ``stiffness.gradients.seeds``.

    Args:
        model: in evaluation mode where it matters (batch normalisation, dropout). Gradients are
            those of all parameters that require one, flattened.
        inputs: Tensor [N, ...] or dict of Tensors [N, ...], anywhere; computed on the model's
            device.
        targets: Tensor [N, ...].
        loss: "cross_entropy", or a function of (outputs, targets) that returns [N]. The loss of an
            example is its own, not divided by a batch size.
        per_layer: one entry a parameter-owning module, by its name.
        memory_budget: bound on the per-example gradients held at once; fewer are held and more
            recomputed, the answer is the same.
        precision: "exact", or "plain" for ordinary float32 arithmetic throughout, to see what
            rounding does.

    Returns:
        Cosines float32 [N, N] and natural log-norms float64 [N], on the CPU (with ``per_layer``
        two dicts of them). An example whose gradient is 0 has log-norm -inf and NaN cosines.

    Raises:
        StiffnessError: a layer in training mode that must not be, an unknown loss or precision, no
            trainable parameter, or outputs that are not finite.
    """
    grams, seed_log_norms = _seeded_grams(
        model, inputs, targets, loss, per_layer, memory_budget, precision
    )
    cosines, log_norms = {}, {}
    for name, gram in grams.items():
        norms = gram.diagonal().sqrt()
        # Divide by one norm at a time: the product of two tiny norms may be 0.
        cosine = gram / norms[:, None] / norms[None, :]
        mirror(cosine)  # the two divisions round differently in the two triangles
        defined = norms > 0
        cosine.diagonal()[defined] = 1
        cosine[~defined] = cosine[:, ~defined] = torch.nan
        cosines[name] = cosine.clamp(-1, 1).float().cpu()
        log_norms[name] = (norms.double().log() + seed_log_norms).cpu()
    return (cosines, log_norms) if per_layer else (cosines[""], log_norms[""])


def gradient_gram(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    per_layer: bool = False,
    memory_budget: str | int = "4GiB",
    precision: str = "exact",
) -> Matrices:
    """Inner products K_ij = g_i . g_j of per-example loss gradients.

    Arguments and errors as ``gradient_cosines``. Entries below float32's range become 0, which
    cosines with log-norms avoid.

    Returns:
        float32 [N, N] on the CPU; with ``per_layer`` a dict of them, whose sum is K.
    """
    grams, seed_log_norms = _seeded_grams(
        model, inputs, targets, loss, per_layer, memory_budget, precision
    )
    scale = seed_log_norms.exp()
    scaled = {
        name: (gram * scale[:, None] * scale[None, :]).float().cpu() for name, gram in grams.items()
    }
    return scaled if per_layer else scaled[""]


def class_mean_cosine(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    num_classes: int | None = None,
    memory_budget: str | int = "4GiB",
) -> torch.Tensor:
    """The cosine class stiffness matrix (eq. 6) over ALL pairs of examples, in time linear in N.

    The mean cosine between two classes is the inner product of their mean unit gradients, and a
    sum of unit gradients is one backward pass of the losses, each divided by its gradient's norm.
    No N x N matrix is formed.

    Args:
        targets: class indices [N]; they say both the loss's target and the example's class.
        num_classes: of the matrix; by default one more than the largest target.

    Other arguments and errors as ``gradient_cosines``.

    Returns:
        float64 [classes, classes] on the CPU. An example is no pair with itself; examples whose
        gradient is 0 are left out; an entry without a pair is NaN.
    """
    if targets.ndim != 1 or targets.is_floating_point():
        raise StiffnessError(f"targets: class indices [N] are needed, got {list(targets.shape)}")
    placed, targets, seeds, _ = _seeded(model, inputs, targets, loss, "exact")
    with full_float32():
        squares = squared_norms(model, placed, seeds, parse_bytes(memory_budget))
    classes = int(targets.max()) + 1 if num_classes is None else num_classes
    parameters = [p for p in model.parameters() if p.requires_grad]
    sums = torch.zeros(
        classes, sum(p.numel() for p in parameters), dtype=torch.float64, device=seeds.device
    )
    defined = squares > 0
    scale = torch.where(defined, squares, torch.ones_like(squares)).rsqrt().to(seeds.dtype)
    for label in range(classes):
        members = ((targets == label) & defined).nonzero().flatten()
        for rows in members.split(_FORWARD_CHUNK):
            weights = seeds[rows] * scale[rows].view(-1, *[1] * (seeds.ndim - 1))
            with full_float32(), torch.enable_grad():
                outputs = call(model, take(placed, rows))
                gradients = torch.autograd.grad(
                    outputs, parameters, weights, allow_unused=True, materialize_grads=True
                )
            sums[label] += torch.cat([gradient.flatten() for gradient in gradients])
    sizes = torch.bincount(targets[defined], minlength=classes)[:classes].double()
    products, pairs = sums @ sums.T, torch.outer(sizes, sizes)
    products.diagonal().sub_(sizes)
    pairs.diagonal().sub_(sizes)
    return (products / torch.where(pairs > 0, pairs, torch.nan)).cpu()


def _seeded_grams(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss,
    per_layer: bool,
    memory_budget: str | int,
    precision: str,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gram matrices for unit-norm seeds, and the seeds' log-norms (0 in plain precision)."""
    placed, _, seeds, log_norms = _seeded(model, inputs, targets, loss, precision)
    with full_float32():
        grams = gram_blocks(model, placed, seeds, per_layer, parse_bytes(memory_budget))
    return grams, log_norms


def _seeded(
    model: nn.Module, inputs: Inputs, targets: torch.Tensor, loss: Loss, precision: str
) -> tuple[Inputs, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Checked inputs and targets on the model's device, seeds in its dtype, and log-norms."""
    if precision not in ("exact", "plain"):
        raise StiffnessError(f"precision: unknown {precision!r}; known: exact, plain")
    refuse_training_mode(model)
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise StiffnessError("model: it has no parameters")
    device, dtype = parameter.device, parameter.dtype
    placed, targets = place(inputs, device), targets.to(device)
    count = length(placed)
    if count == 0 or count != len(targets):
        raise StiffnessError(f"inputs: {count} examples, but {len(targets)} targets")
    with full_float32(), torch.no_grad():
        outputs = torch.cat(
            [
                call(model, take(placed, slice(begin, begin + _FORWARD_CHUNK)))
                for begin in range(0, count, _FORWARD_CHUNK)
            ]
        )
    if not torch.isfinite(outputs).all():
        raise StiffnessError("model: its outputs are not finite; the run has diverged")
    if precision == "exact":
        seeds, log_norms = exact_seeds(outputs, targets, loss)
    else:
        seeds = plain_seeds(outputs, targets, loss)
        log_norms = torch.zeros(count, dtype=torch.float64, device=device)
    return placed, targets, seeds.to(dtype), log_norms
