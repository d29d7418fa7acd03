"""The loss of a classifier: cross-entropy, with smoothed labels if wanted, or one of the user's.

In training, the gradient of cross-entropy may be computed as Keras does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.own_code import call_object, load_object, source_digest

CROSS_ENTROPY = "cross_entropy"
EPSILON = 1e-7
"""Keras's ``backend.epsilon()``."""
TRAINING_ARITHMETICS = ("float32", "keras")
LossFunction = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class LossSpec:
    """A loss as config.yaml describes it.

    Attributes:
        name: "cross_entropy", or the import path of a function of outputs [N, ...] and targets [N]
            that returns one loss per example, [N].
        label_smoothing: of cross-entropy: the share of each label that is spread evenly over all
            classes.
    """

    name: str = CROSS_ENTROPY
    label_smoothing: float = 0.0

    def digest(self) -> str:
        """Of the user's code; "" where there is none."""
        return source_digest(self.name)


def build_loss(spec: LossSpec) -> str | LossFunction:
    """The loss, as ``gradient_cosines`` and the training take it.

    Returns:
        "cross_entropy" where labels are not smoothed: the engine knows its exact gradient; else a
        function of outputs and targets that returns [N].

    Raises:
        StiffnessError: an unknown name, or a function that cannot be imported.
    """
    if spec.name == CROSS_ENTROPY:
        smoothing = spec.label_smoothing
        smoothed = partial(nn.functional.cross_entropy, reduction="none", label_smoothing=smoothing)
        return smoothed if smoothing else CROSS_ENTROPY
    return _Checked(load_object(spec.name, "loss"), spec.name)


class _Checked:
    """A user's loss; what it returns is checked at every call."""

    def __init__(self, function: LossFunction, path: str) -> None:
        self.function, self.path = function, path

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = call_object(self.function, self.path, "loss", outputs, targets)
        if not isinstance(losses, torch.Tensor) or losses.shape != outputs.shape[:1]:
            given = list(losses.shape) if isinstance(losses, torch.Tensor) else type(losses)
            raise StiffnessError(
                f"loss: {self.path} must return one loss per example, [{len(outputs)}], not "
                f"{given}; leave out its mean or sum"
            )
        return losses


def chance_loss(loss: str | LossFunction, targets: torch.Tensor, num_classes: int) -> float:
    """The smallest mean loss that one output for all examples reaches.

    For cross-entropy this is the entropy of the labels; for a function it is found by L-BFGS in
    float64, from the logarithms of the shares of the classes.

    Args:
        targets: class indices [N], on the CPU.
    """
    counts = torch.bincount(targets, minlength=num_classes).double()
    shares = counts / counts.sum()
    if isinstance(loss, str):
        return float(-torch.special.xlogy(shares, shares).sum())
    present = shares.nonzero().squeeze(1)
    constant = shares.clamp_min(1e-6).log().requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=200, line_search_fn="strong_wolfe")
    found: list[float] = []

    def mean_loss() -> torch.Tensor:
        optimizer.zero_grad()
        losses = loss(constant.expand(len(present), -1), present)
        value = (shares[present] * losses).sum()
        value.backward()
        found.append(value.item())
        return value

    with torch.enable_grad():
        optimizer.step(mean_loss)
    return min((value for value in found if value == value), default=float("nan"))


def keras_cross_entropy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each example as Keras computes it from a softmax's output.

    Keras's ``categorical_crossentropy(target, output)`` divides the probabilities by their sum,
    clips them to [epsilon, 1 - epsilon] with epsilon = 1e-7, and takes the logarithm. A clipped
    probability has no gradient.

    Args:
        outputs: logits [N, C], in whose dtype the loss is computed.
        targets: class indices [N].

    Returns:
        [N].

    Examples:
        The second example is more confident than 1 - 1e-7:

        >>> import torch
        >>> logits = torch.tensor([[2.0, 0.0], [30.0, 0.0]], requires_grad=True)
        >>> losses = keras_cross_entropy(logits, torch.tensor([0, 0]))
        >>> losses.sum().backward()
        >>> (logits.grad == 0).all(1).tolist()
        [False, True]
    """
    probabilities = outputs.softmax(1)
    probabilities = probabilities / probabilities.sum(1, keepdim=True)
    clipped = probabilities.clamp(EPSILON, 1 - EPSILON)
    return nn.functional.nll_loss(clipped.log(), targets.long(), reduction="none")


def training_loss(
    outputs: torch.Tensor,
    targets: torch.Tensor,
    arithmetic: str = "float32",
    loss: str | LossFunction = CROSS_ENTROPY,
) -> torch.Tensor:
    """The mean loss of a batch, whose gradient is computed in an arithmetic.

    Args:
        outputs: logits [N, C], float32.
        targets: class indices [N].
        arithmetic: "float32", PyTorch's cross-entropy of logits, or "keras"; see
            ``keras_cross_entropy``. Only cross-entropy has the latter.
        loss: what ``build_loss`` gives.

    Returns:
        A scalar.
    """
    if not isinstance(loss, str):
        return loss(outputs, targets).mean()
    if arithmetic == "keras":
        return keras_cross_entropy(outputs, targets).mean()
    return nn.functional.cross_entropy(outputs, targets)
