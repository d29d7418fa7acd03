"""Arithmetics of the loss gradient with respect to a network's outputs.

A confident example has 1 - p_y near 1e-8 or far below. What such a number becomes in one or the
other arithmetic decides the direction of the example's gradient, and with it sign and cosine:

* ``exact``: in float64, from the sum of the other probabilities. It never loses relative precision.
* ``float32``: as ordinary autograd of ``torch.nn.functional.cross_entropy`` computes it. p_y - 1,
  its largest entry, is rounding noise below 1 - p_y of about 1e-7.
* ``keras``: cross-entropy of the softmax's output, which is clipped to [1e-7, 1 - 1e-7] first; see
  ``stiffness.training.losses``. Where p_y is above that, the gradient is 0.
* ``bfloat16``: as autograd computes the cross-entropy of outputs that were rounded to bfloat16.
* ``float64``: exact, and the network's own passes are in float64 too: the check of ``exact``.
* ``tf32``: exact, and products of the network's passes are in TF32, on a GPU that has it.
* ``naive``: as ``float32``, but gradients are multiplied as they are: products underflow too.

In all but ``naive`` the output gradient of each example is scaled to unit norm before it is
propagated back, and the logarithm of its norm is kept apart: sign and cosine do not change under a
positive factor per example.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import nn

from stiffness.device import float32_products
from stiffness.errors import StiffnessError
from stiffness.gradients import causal_lm
from stiffness.training.losses import keras_cross_entropy

LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Loss = str | LossFunction

ARITHMETICS = ("exact", "float32", "keras", "bfloat16", "float64", "tf32", "naive")
_EXACT = ("exact", "float64", "tf32")


def output_gradients(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    loss: Loss = "cross_entropy",
    arithmetic: str = "exact",
    dtype: torch.dtype = torch.float64,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm loss gradients with respect to the outputs, and the logarithm of their norms.

    Args:
        outputs: [N, ...]; for "cross_entropy" logits [N, C], for "causal_lm" logits [N, T, V].
        targets: [N, ...]; for "cross_entropy" class indices [N], for "causal_lm" tokens [N, T].
        loss: "cross_entropy", "causal_lm" or "causal_lm_mean" (see
            ``stiffness.gradients.causal_lm``), or a function of (outputs, targets) that returns
            [N].
        arithmetic: one of ``ARITHMETICS``.
        dtype: of the output gradients that are returned.

    Returns:
        Output gradients in ``dtype``, shaped as ``outputs``, and float64 log-norms [N]. Where a
        gradient is 0 its log-norm is -inf. In "naive" the gradients are not scaled, and log-norms
        are 0.

    Raises:
        StiffnessError: an unknown arithmetic or loss, outputs or targets that do not fit the loss,
            or a gradient that is not finite.
    """
    check_arithmetic(arithmetic)
    if arithmetic in _EXACT:
        if loss == "cross_entropy":
            unit, log_norms = _cross_entropy_grads(outputs.detach().double(), targets)
        elif isinstance(loss, str) and loss in causal_lm.LOSSES:
            mean = causal_lm.LOSSES[loss]
            return causal_lm.causal_lm_grads(outputs.detach(), targets, mean, dtype)
        else:
            unit, log_norms = _unit(_autograd_grads(outputs.detach().double(), targets, loss))
        return unit.to(dtype), log_norms
    gradient = raw_gradients(outputs, targets, loss, arithmetic)
    if arithmetic == "naive":
        return gradient.to(dtype), gradient.new_zeros(len(gradient), dtype=torch.float64)
    unit, log_norms = _unit(gradient.double())
    return unit.to(dtype), log_norms


def raw_gradients(
    outputs: torch.Tensor, targets: torch.Tensor, loss: Loss, arithmetic: str
) -> torch.Tensor:
    """Loss gradients with respect to the outputs as an arithmetic leaves them, unscaled.

    Args:
        outputs, targets, loss: as for ``output_gradients``.
        arithmetic: "float32", "keras", "bfloat16" or "naive".

    Returns:
        float32 or bfloat16, shaped as ``outputs``.
    """
    outputs = outputs.detach().to(torch.bfloat16 if arithmetic == "bfloat16" else torch.float32)
    if arithmetic == "keras":
        if loss != "cross_entropy":
            raise StiffnessError("arithmetic: keras is one of cross_entropy; take exact or float32")
        loss = keras_cross_entropy
    return _autograd_grads(outputs, targets, loss)


def relative_errors(
    outputs: torch.Tensor, targets: torch.Tensor, arithmetic: str = "float32"
) -> torch.Tensor:
    """float64 [N]: |h - g| / |g| of the cross-entropy's gradients with respect to the outputs.

    Args:
        outputs: float32 logits [N, C]; g is exact.
        targets: class indices [N].
        arithmetic: of h.
    """
    unit, log_norms = output_gradients(outputs, targets)
    if arithmetic in _EXACT:
        return torch.zeros_like(log_norms)
    # Below e^-600 the rounded gradient is 0 anyway, and the factor must stay finite.
    scale = log_norms.clamp_min(-600).neg().exp()
    rounded = raw_gradients(outputs, targets, "cross_entropy", arithmetic).double()
    return (rounded * scale[:, None] - unit).norm(dim=1)


def check_arithmetic(arithmetic: str, device: torch.device | None = None) -> None:
    """Refuse an arithmetic that is not one of ``ARITHMETICS``, or that a device does not have.

    Raises:
        StiffnessError: it is unknown, or "tf32" without a GPU that computes in it.
    """
    if arithmetic not in ARITHMETICS:
        raise StiffnessError(f"arithmetic: unknown {arithmetic!r}; known: {', '.join(ARITHMETICS)}")
    if arithmetic == "tf32" and device is not None and not _has_tf32(device):
        raise StiffnessError(
            f"arithmetic: tf32 is not one of {device}; leave it out, or take a GPU that has it "
            "(NVIDIA Ampere or later)"
        )


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device)[0] >= 8


def products_in(arithmetic: str) -> AbstractContextManager[None]:
    """A context in which products of float32 tensors are in TF32 for "tf32", else in float32."""
    return float32_products("tf32" if arithmetic == "tf32" else "ieee")


def _unit(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 gradients scaled to unit norm per example, and the logarithms of their norms."""
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
        loss = _function_of(loss)
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


def _function_of(name: str) -> LossFunction:
    if name == "cross_entropy":
        return partial(nn.functional.cross_entropy, reduction="none")
    if name in causal_lm.LOSSES:
        return partial(causal_lm.causal_lm_losses, mean=causal_lm.LOSSES[name])
    known = ", ".join(["cross_entropy", *causal_lm.LOSSES])
    raise StiffnessError(f"loss: unknown {name!r}; give {known} or a function")
