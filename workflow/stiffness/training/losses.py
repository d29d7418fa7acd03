"""Losses of training, by the arithmetic of their gradient."""

import torch
from torch import nn

EPSILON = 1e-7
"""Keras's ``backend.epsilon()``."""
TRAINING_ARITHMETICS = ("float32", "keras")


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
    outputs: torch.Tensor, targets: torch.Tensor, arithmetic: str = "float32"
) -> torch.Tensor:
    """The mean cross-entropy of a batch, whose gradient is computed in an arithmetic.

    Args:
        outputs: logits [N, C], float32.
        targets: class indices [N].
        arithmetic: "float32", PyTorch's cross-entropy of logits, or "keras"; see
            ``keras_cross_entropy``.

    Returns:
        A scalar.
    """
    if arithmetic == "keras":
        return keras_cross_entropy(outputs, targets).mean()
    return nn.functional.cross_entropy(outputs, targets)
