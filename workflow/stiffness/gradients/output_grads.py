"""The loss gradient with respect to a network's outputs, which each backward pass starts from.

A confident example has 1 - p_y near 1e-8 or far below, so p_y - 1 in float32 is rounding noise and
the gradient's direction with it. Sign and cosine do not change under a positive factor per
example: output gradients are computed in float64, scaled to unit norm, and their norms are kept as
logarithms.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from stiffness.errors import StiffnessError

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Loss = str | LossFunction


def exact_output_grads(
    outputs: torch.Tensor, targets: torch.Tensor, loss: Loss = "cross_entropy"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm loss gradients with respect to the outputs, and the logarithm of their norms.

    Args:
        outputs: [N, ...]; for "cross_entropy" logits [N, C].
        targets: [N, ...]; for "cross_entropy" class indices [N].
        loss: "cross_entropy", or a function of (outputs, targets) that returns [N].

    Returns:
        float64 output gradients shaped as ``outputs`` and float64 log-norms [N]; where the loss
        does not depend on the outputs the gradient is 0 and its log-norm -inf.
    """
    if loss == "cross_entropy":
        return _cross_entropy_grads(outputs.detach().double(), targets)
    gradient = _autograd_grads(outputs.detach().double(), targets, loss)
    if not torch.isfinite(gradient).all():
        raise StiffnessError("loss: its gradient with respect to the outputs is not finite")
    flat = gradient.flatten(1)
    # Scale by the largest entry first: the square of 1e-200 is 0.
    largest = flat.abs().amax(1, keepdim=True)
    safe = torch.where(largest > 0, largest, torch.ones_like(largest))
    norms = (flat / safe).norm(dim=1, keepdim=True)
    unit = torch.where(largest > 0, flat / safe / norms.clamp_min(1), torch.zeros_like(flat))
    log_norms = torch.where(largest > 0, largest.log() + norms.log(), -torch.inf).squeeze(1)
    return unit.reshape(gradient.shape), log_norms


def plain_output_grads(
    outputs: torch.Tensor, targets: torch.Tensor, loss: Loss = "cross_entropy"
) -> torch.Tensor:
    """Loss gradients with respect to the outputs as ordinary autograd computes them, unscaled."""
    return _autograd_grads(outputs.detach(), targets, loss)


def _cross_entropy_grads(
    logits: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient is p_k for k != y and -(1 - p_y) = -sum of the other p_k for k = y.

    Summing the others keeps full relative precision where 1 - p_y has none, even below the 1e-16
    at which -expm1(log p_y) of a float64 log-softmax becomes 0. Everything is relative to the
    largest other logit, so nothing underflows.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1] or targets.is_floating_point():
        raise StiffnessError(
            "loss cross_entropy: needs outputs [N, C] and class indices [N], got "
            f"{list(logits.shape)} and {list(targets.shape)} ({targets.dtype})"
        )
    classes = logits.shape[1]
    if classes < 2 or not ((targets >= 0) & (targets < classes)).all():
        raise StiffnessError(
            f"loss cross_entropy: targets must be class indices below {classes}, of 2 or more"
        )
    own = nn.functional.one_hot(targets.long(), classes).bool()
    others = logits.masked_fill(own, -torch.inf)
    largest = others.amax(1, keepdim=True)
    relative = (others - largest).exp()
    gradient = torch.where(own, -relative.sum(1, keepdim=True), relative)
    norms = gradient.norm(dim=1, keepdim=True)
    log_norms = norms.log() + largest - logits.logsumexp(1, keepdim=True)
    return gradient / norms, log_norms.squeeze(1)


def _autograd_grads(outputs: torch.Tensor, targets: torch.Tensor, loss: Loss) -> torch.Tensor:
    if isinstance(loss, str):
        if loss != "cross_entropy":
            raise StiffnessError(f"loss: unknown {loss!r}; give cross_entropy or a function")
        loss = partial(nn.functional.cross_entropy, reduction="none")
    with torch.enable_grad():
        leaf = outputs.clone().requires_grad_()
        losses = loss(leaf, targets)
        if losses.shape != outputs.shape[:1]:
            raise StiffnessError(
                f"loss: must return one value per example, [{len(outputs)}], "
                f"got {list(losses.shape)}"
            )
        if not losses.requires_grad:
            return torch.zeros_like(outputs)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf, materialize_grads=True)
    return gradient


class OutputGrads:
    """The output gradients of all examples, computed when a pass first has an example's outputs.

    Attributes:
        log_norms: float64 [N]; 0 in plain precision.
    """

    def __init__(
        self, targets: torch.Tensor, loss: Loss = "cross_entropy", precision: str = "exact"
    ) -> None:
        self.targets, self.loss, self.precision = targets, loss, precision
        self.log_norms = torch.zeros(len(targets), dtype=torch.float64, device=targets.device)
        self._values: torch.Tensor | None = None
        # On the CPU: whether a slice is known then needs no wait for a GPU.
        self._known = torch.zeros(len(targets), dtype=torch.bool)

    @classmethod
    def given(cls, values: torch.Tensor) -> "OutputGrads":
        """Output gradients that are ``values`` [N, ...] and come from no loss."""
        given = cls(values)
        given._values, given._known = values, torch.ones(len(values), dtype=torch.bool)
        return given

    def __len__(self) -> int:
        return len(self.targets)

    def known(self, rows: slice | torch.Tensor) -> bool:
        return bool(self._known[_on_host(rows)].all())

    def of(self, rows: slice | torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
        """The output gradients of the examples in ``rows``, in the dtype of their outputs.

        Raises:
            StiffnessError: outputs that are not finite, or do not fit the loss or the targets.
        """
        if not self.known(rows):
            assert outputs is not None
            self._compute(rows, outputs.detach())
        assert self._values is not None
        return self._values[rows]

    def _compute(self, rows: slice | torch.Tensor, outputs: torch.Tensor) -> None:
        if not torch.isfinite(outputs).all():
            raise StiffnessError("model: its outputs are not finite; the run has diverged")
        if self.precision == "exact":
            values, self.log_norms[rows] = exact_output_grads(
                outputs, self.targets[rows], self.loss
            )
        else:
            values = plain_output_grads(outputs, self.targets[rows], self.loss)
        if self._values is None:
            self._values = outputs.new_zeros(len(self), *outputs.shape[1:])
        self._values[rows] = values.to(outputs.dtype)
        self._known[_on_host(rows)] = True


def _on_host(rows: slice | torch.Tensor) -> slice | torch.Tensor:
    """Rows as an index of a tensor on the CPU."""
    return rows.cpu() if isinstance(rows, torch.Tensor) else rows
