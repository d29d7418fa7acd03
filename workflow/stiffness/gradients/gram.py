"""Cosines, norms and inner products of per-example loss gradients (eq. 1, 4, 5)."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from stiffness.data.batch import Inputs, concatenate_inputs, length, place, take
from stiffness.errors import StiffnessError, StiffnessWarning, out_of_memory
from stiffness.gradients import causal_lm
from stiffness.gradients.arithmetic import Loss, check_arithmetic, products_in
from stiffness.gradients.engine import class_sums, gram_blocks, gram_rectangle, mirror
from stiffness.gradients.memory import parse_bytes, within_memory
from stiffness.gradients.models import (
    half_precision,
    in_float32,
    in_float64,
    recurrent_backward,
    refuse_training_mode,
)
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import Plans
from stiffness.gradients.texts import longest_first, trimmed

Matrices = torch.Tensor | dict[str, torch.Tensor]
_SLAB = 256  # rows of a matrix scaled at once
_STORED = 20  # output gradients are stored where they take no more than this part of the budget
_SAMPLE = 8  # examples that show the error of half precision
_SAMPLE_BUDGET = 2**30


def gradient_cosines(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    per_layer: bool = False,
    memory_budget: str | int = "4GiB",
    arithmetic: str = "exact",
    plans: Plans | None = None,
    float32_copy: bool = True,
    positions: torch.Tensor | None = None,
) -> tuple[Matrices, Matrices]:
    """Cosines (eq. 5) of all pairs of per-example loss gradients, and the logs of their norms.

    The loss gradient with respect to the outputs is computed in float64 and scaled to unit norm
    for every example before it is propagated back, so that neither confident examples nor tiny
    gradients are lost to rounding; see ``stiffness.gradients.arithmetic``.

    Args:
        model: in evaluation mode where it matters (batch normalisation, dropout). Gradients are
            those of all parameters that require one, flattened.
        inputs: Tensor [N, ...] or dict of Tensors [N, ...] on any device; they are moved to the
            model's.
        targets: Tensor [N, ...].
        loss: "cross_entropy" (outputs [N, C], class indices [N]); "causal_lm" or "causal_lm_mean"
            (outputs [N, T, V], tokens [N, T], of which each is predicted from those before it and
            -100 is not predicted; the sum or the mean over a sequence's tokens); or a function of
            (outputs, targets) that returns [N]. The loss of an example is its own, not divided by a
            batch size.
        per_layer: whether to return one entry per parameter-owning module, by its name.
        memory_budget: bound on the memory that this takes beside the model, the data and the
            result, from 256MiB up, as a number of bytes or a text such as "4GiB". With a smaller
            budget more is recomputed, and the answer is the same.
        arithmetic: of the loss gradient: "exact", or one that shows the effect of rounding:
            "float32", "keras", "bfloat16", "float64", "tf32" or "naive"; see
            ``stiffness.gradients.arithmetic``.
        plans: the same ``Plans`` for all checkpoints of one network saves time.
        float32_copy: measure a bfloat16 or float16 network in a copy with float32 weights, which
            comes on top of the budget; without it, a warning says how large the error is. The
            network itself is left as it is.
        positions: for a causal language model, integers [P, 2]: pairs of an example and the
            position of a token in it. Instead of whole sequences, the losses of these P single
            tokens are compared, each predicted from the tokens before it. N is P in the result.

    Returns:
        Cosines float32 [N, N] and natural log-norms float64 [N], on the CPU (with ``per_layer``
        two dicts of them). An example whose gradient is 0 has log-norm -inf and NaN cosines.

    Raises:
        StiffnessError: a layer in training mode that must not be, an unknown loss or arithmetic, no
            trainable parameter, or outputs that are not finite.

    Warns:
        StiffnessWarning: parameters without a fast path, a budget too small for one example, or
            half precision.

    Examples:
        The gradients of opposite examples of two classes agree, and a copy has a cosine of 1:

        >>> import torch
        >>> from stiffness import gradient_cosines
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> inputs = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> cosines, log_norms = gradient_cosines(model, inputs, torch.tensor([0, 1, 0, 1]))
        >>> cosines.round(decimals=2).abs().tolist()[0]
        [1.0, 1.0, 1.0, 0.0]
        >>> log_norms.shape
        torch.Size([4])
    """
    if positions is not None:
        if not isinstance(loss, str) or loss not in causal_lm.LOSSES:
            raise StiffnessError(f"positions: they need loss={' or '.join(causal_lm.LOSSES)}")
        inputs, targets = causal_lm.single_tokens(inputs, targets, positions)
    grams, output_log_norms = _unit_grams(
        model, inputs, targets, loss, per_layer, memory_budget, arithmetic, float32_copy, plans
    )
    cosines, log_norms = {}, {}
    for name in list(grams):
        gram = grams.pop(name)
        norms = gram.diagonal().sqrt()
        # Divide by one norm at a time: the product of two tiny norms may be 0.
        cosine = gram.div_(norms[:, None]).div_(norms)
        mirror(cosine)  # the two divisions round differently in the two triangles
        defined = norms > 0
        cosine.diagonal()[defined] = 1
        cosine[~defined] = cosine[:, ~defined] = torch.nan
        cosines[name] = cosine.clamp_(-1, 1).float().cpu()
        log_norms[name] = (norms.double().log() + output_log_norms).cpu()
    return (cosines, log_norms) if per_layer else (cosines[""], log_norms[""])


def cosine_tile(
    model: nn.Module,
    first_inputs: Inputs,
    first_targets: torch.Tensor,
    second_inputs: Inputs,
    second_targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    memory_budget: str | int = "4GiB",
    arithmetic: str = "exact",
    plans: Plans | None = None,
    float32_copy: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cosines of the loss gradients of n examples with those of m others.

    To the rounding of float32 this is an off-diagonal block of the matrix that ``gradient_cosines``
    gives for all n + m examples, without the (n + m)^2 matrix. Blocks can be computed apart, so
    that the number of examples is not bounded by one machine.

    Args:
        first_inputs: Tensor [n, ...] or dict of Tensors [n, ...]: the rows.
        first_targets: Tensor [n, ...].
        second_inputs: Tensor [m, ...] or dict of Tensors [m, ...]: the columns.
        second_targets: Tensor [m, ...].
        memory_budget: bound on the memory that this takes beside the model, the data, a copy of
            them that joins both, and the result.

    Other arguments, errors and warnings are those of ``gradient_cosines``.

    Returns:
        Cosines float32 [n, m] and natural log-norms float64 [n] and [m], on the CPU. An example
        whose gradient is 0 has log-norm -inf and NaN cosines.

    Examples:
        >>> import torch
        >>> from stiffness import cosine_tile
        >>> model, inputs = torch.nn.Linear(3, 2), torch.eye(3)
        >>> targets = torch.tensor([0, 1, 0])
        >>> cosines, first, second = cosine_tile(
        ...     model, inputs[:1], targets[:1], inputs[1:], targets[1:]
        ... )
        >>> cosines.shape, first.shape, second.shape
        (torch.Size([1, 2]), torch.Size([1]), torch.Size([2]))
    """
    budget = parse_bytes(memory_budget)
    border = _checked_length(first_inputs, first_targets)
    _checked_length(second_inputs, second_targets)
    inputs = concatenate_inputs(first_inputs, second_inputs)
    targets = torch.cat([first_targets, second_targets])
    order = longest_first(inputs, slice(0, border), slice(border, len(targets)))
    if order is not None:
        inputs, targets = take(inputs, order), targets[order]
    model, placed, output_grads = _checked(
        model, inputs, targets, loss, arithmetic, budget, float32_copy
    )
    with _passes(model, arithmetic):
        (products, squares), _ = within_memory(
            budget,
            lambda room: gram_rectangle(model, placed, output_grads, border, room, plans=plans),
        )
    norms = squares.to(products.dtype).sqrt()
    cosines = products.div_(norms[:border, None]).div_(norms[border:])
    defined = norms > 0
    cosines[~defined[:border]] = cosines[:, ~defined[border:]] = torch.nan
    log_norms = (norms.double().log() + output_grads.log_norms).cpu()
    cosines = cosines.clamp_(-1, 1).float().cpu()
    if order is not None:
        back = order.argsort()
        log_norms = log_norms[back]
        cosines = cosines[back[:border, None], back[border:] - border]
    return cosines, log_norms[:border], log_norms[border:]


def gradient_gram(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    per_layer: bool = False,
    memory_budget: str | int = "4GiB",
    arithmetic: str = "exact",
    plans: Plans | None = None,
    float32_copy: bool = True,
) -> Matrices:
    """Inner products K_ij = g_i . g_j of per-example loss gradients (eq. 1).

    Arguments, errors and warnings are those of ``gradient_cosines``. Entries below the range of
    float32 become 0, which cosines with log-norms avoid.

    Returns:
        float32 [N, N] on the CPU; with ``per_layer`` a dict of them, whose sum is K.

    Examples:
        Two classes have equal probabilities, so the loss gradient of the logits is (-1/2, 1/2):

        >>> import torch
        >>> from stiffness import gradient_gram
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = torch.nn.init.zeros_(model.weight)
        >>> inputs = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
        >>> gradient_gram(model, inputs, torch.tensor([0, 0])).round(decimals=4)
        tensor([[0.5000, 0.5000],
                [0.5000, 1.0000]])
    """
    grams, output_log_norms = _unit_grams(
        model, inputs, targets, loss, per_layer, memory_budget, arithmetic, float32_copy, plans
    )
    scale = output_log_norms.exp()
    scaled = {}
    for name in list(grams):
        gram = grams.pop(name)
        for rows, factor in zip(gram.split(_SLAB), scale.split(_SLAB), strict=True):
            rows.copy_(rows * factor[:, None] * scale)  # in float64: factors may be tiny
        mirror(gram)  # the two factors round differently in the two triangles
        scaled[name] = gram.float().cpu()
    return scaled if per_layer else scaled[""]


def class_mean_cosine(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    num_classes: int | None = None,
    memory_budget: str | int = "4GiB",
    float32_copy: bool = True,
) -> torch.Tensor:
    """The cosine class stiffness matrix (eq. 6) over ALL pairs of examples, in time linear in N.

    The mean cosine between two classes is the inner product of their mean unit gradients, which
    are summed in the pass that gives the examples' gradients and norms. No N x N matrix is formed.
    Where the sums of all classes do not fit the budget, norms come first, and groups of parameters
    take turns.

    Args:
        targets: class indices [N], which are both the target of the loss and the example's class.
        num_classes: size of the matrix; by default one more than the largest target.

    Other arguments, errors and warnings are those of ``gradient_cosines``.

    Returns:
        float64 [classes, classes] on the CPU. An example is no pair with itself; examples whose
        gradient is 0 are left out; an entry without a pair is NaN.

    Examples:
        >>> import torch
        >>> from stiffness import class_mean_cosine
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> inputs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-3.0, 4.0]])
        >>> class_mean_cosine(model, inputs, torch.tensor([0, 0, 1, 1])).round(decimals=2)
        tensor([[1.0000, 0.8000],
                [0.8000, 0.6000]], dtype=torch.float64)
    """
    return whole_set_cosines(
        model, inputs, targets, loss, num_classes, memory_budget, float32_copy=float32_copy
    )[0]


def whole_set_cosines(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    num_classes: int | None = None,
    memory_budget: str | int = "4GiB",
    plans: Plans | None = None,
    float32_copy: bool = True,
) -> tuple[torch.Tensor, int]:
    """``class_mean_cosine``, and the number of examples that it left out as their gradient is 0."""
    if targets.ndim != 1 or targets.is_floating_point():
        raise StiffnessError(f"targets: class indices [N] are needed, got {list(targets.shape)}")
    budget = parse_bytes(memory_budget)
    order = longest_first(inputs)
    if order is not None:
        inputs, targets = take(inputs, order), targets[order]
    model, placed, output_grads = _checked(
        model, inputs, targets, loss, "exact", budget, float32_copy
    )
    labels = output_grads.targets
    largest = int(labels.max())
    classes = largest + 1 if num_classes is None else num_classes
    if largest >= classes:
        raise StiffnessError(f"num_classes: {classes}, but there is a target {largest}")
    with _passes(model, "exact"):
        (products, squares), _ = within_memory(
            budget,
            lambda room: class_sums(model, placed, output_grads, classes, room, plans=plans),
        )
    defined = squares > 0
    counts = torch.bincount(labels[defined].long(), minlength=classes).to(products)
    pairs = torch.outer(counts, counts)
    products.diagonal().sub_(counts)
    pairs.diagonal().sub_(counts)
    matrix = (products / torch.where(pairs > 0, pairs, torch.nan)).cpu()
    return matrix, int((~defined).sum())


def _unit_grams(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss,
    per_layer: bool,
    memory_budget: str | int,
    arithmetic: str,
    float32_copy: bool,
    plans: Plans | None = None,
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Gram matrices for unit-norm output gradients, and the log-norms (0 in "naive")."""
    budget = parse_bytes(memory_budget)
    _checked_length(inputs, targets)
    order = longest_first(inputs)
    if order is not None:
        inputs, targets = take(inputs, order), targets[order]
    model, placed, output_grads = _checked(
        model, inputs, targets, loss, arithmetic, budget, float32_copy
    )
    with _passes(model, arithmetic):
        grams, _ = within_memory(
            budget,
            lambda room: gram_blocks(model, placed, output_grads, per_layer, room, plans=plans),
        )
    log_norms = output_grads.log_norms
    if order is not None:
        back = order.argsort().to(log_norms.device)
        log_norms = log_norms[back]
        for name, gram in grams.items():
            grams[name] = gram[back[:, None], back]
    return grams, log_norms


def _checked(
    model: nn.Module,
    inputs: Inputs,
    targets: torch.Tensor,
    loss: Loss,
    arithmetic: str,
    budget: int,
    float32_copy: bool,
) -> tuple[nn.Module, Inputs, OutputGrads]:
    """The model, or a copy in another precision, and checked inputs and targets on its device."""
    refuse_training_mode(model)
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise StiffnessError("model: it has no parameters")
    check_arithmetic(arithmetic, parameter.device)
    placed, targets = place(inputs, parameter.device), targets.to(parameter.device)
    _checked_length(placed, targets)
    half = half_precision(model)
    if arithmetic == "float64":
        model, placed = in_float64(model, placed)
    elif half and float32_copy:
        model, placed = in_float32(model, placed)
    elif half:
        _warn_of_half(model, placed, targets, loss, half)
    placed = trimmed(model, placed)
    return model, placed, OutputGrads(targets, loss, arithmetic, budget // _STORED)


def _warn_of_half(
    model: nn.Module, inputs: Inputs, targets: torch.Tensor, loss: Loss, half: torch.dtype
) -> None:
    """Say how far some examples' cosines are from those of a float32 copy."""
    few = slice(0, _SAMPLE)
    some, labels = take(inputs, few), targets[few]

    def cosines(network: nn.Module, examples: Inputs) -> torch.Tensor:
        output_grads = OutputGrads(labels, loss)
        with _passes(network, "exact"):
            gram = gram_blocks(network, examples, output_grads, False, _SAMPLE_BUDGET)[""].double()
        return gram / gram.diagonal().sqrt() / gram.diagonal().sqrt()[:, None]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", StiffnessWarning)
            errors = cosines(model, some) - cosines(*in_float32(model, some))
        size = f"off by up to {float(errors.nan_to_num().abs().max()):.2g}"
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        size = f"wrong in digits from {torch.finfo(half).eps:.2g}"
    warnings.warn(
        f"model: measured in {str(half).removeprefix('torch.')}, in which cosines of its first "
        f"{len(labels)} examples are {size}; float32_copy=True measures it in float32",
        StiffnessWarning,
        stacklevel=4,
    )


@contextmanager
def _passes(model: nn.Module, arithmetic: str) -> Iterator[None]:
    """What holds in forward and backward passes, whatever the caller has set."""
    with products_in(arithmetic), recurrent_backward(model):
        yield


def _checked_length(inputs: Inputs, targets: torch.Tensor) -> int:
    count = length(inputs)
    if count == 0 or count != len(targets):
        raise StiffnessError(f"inputs: {count} examples, but {len(targets)} targets")
    return count
