"""The loss of a causal language model: each token is predicted from those before it.

The outputs at position t predict the token at t + 1. A sequence is one example: its loss is the
sum over its predicted tokens ("causal_lm"), or their mean ("causal_lm_mean"). The two gradients of
a sequence differ by a positive factor, so that their cosines are the same.
"""

from collections.abc import Iterator

import torch
from torch import nn

from stiffness.data.batch import Inputs, take
from stiffness.errors import StiffnessError

IGNORED = -100
"""The label of a token that is not predicted, as in ``torch.nn.functional.cross_entropy``."""
LOSSES = {"causal_lm": False, "causal_lm_mean": True}
"""The losses by name: whether a sequence's loss is divided by the number of predicted tokens."""
_SLAB = 2**21  # numbers in float64 at once; more gain nothing


def causal_lm_losses(outputs: torch.Tensor, targets: torch.Tensor, mean: bool) -> torch.Tensor:
    """Cross-entropy of every sequence's next tokens [N], 0 where none is predicted.

    Args:
        outputs: logits [N, T, V].
        targets: the tokens [N, T]; those that are ``IGNORED`` are not predicted.
        mean: divide by the number of predicted tokens.
    """
    labels = _next_tokens(outputs, targets)
    losses = nn.functional.cross_entropy(
        outputs[:, :-1].transpose(1, 2), labels[:, :-1], reduction="none", ignore_index=IGNORED
    ).sum(1)
    return losses / _predicted(labels).clamp_min(1) if mean else losses


def causal_lm_grads(
    outputs: torch.Tensor, targets: torch.Tensor, mean: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit-norm gradients of ``causal_lm_losses`` with respect to the outputs, and their log-norms.

    A token's gradient is softmax(z) - onehot(y). Its entry of the token itself is minus the sum of
    the others, which keeps full relative precision where 1 - p_y has none, and everything is
    relative to the largest other logit. All is computed in float64, some positions at a time, so
    that beside the result nothing has the size of the outputs.

    Args:
        outputs: logits [n, T, V].
        targets: the tokens [n, T] or more positions, of which the others are ``IGNORED``.
        dtype: of the gradients.

    Returns:
        [n, T, V] in ``dtype`` and float64 [n]; 0 and -inf for a sequence of which no token is
        predicted.
    """
    labels = _next_tokens(outputs, targets)
    gradient = torch.empty_like(outputs, dtype=dtype)
    flat, logits, tokens = gradient.flatten(0, 1), outputs.flatten(0, 1), labels.flatten()
    token_norms = torch.full(tokens.shape, -torch.inf, dtype=torch.float64, device=outputs.device)
    for rows in _slabs(len(tokens), logits.shape[1]):
        label = tokens[rows, None]
        predicted = label != IGNORED
        own = label.clamp_min(0)
        z = logits[rows].to(torch.float64, copy=True)
        total = z.logsumexp(1, keepdim=True)
        z.scatter_(1, own, -torch.inf)
        largest = z.amax(1, keepdim=True)
        z.sub_(largest).exp_()
        z.scatter_(1, own, -z.sum(1, keepdim=True))
        norms = torch.linalg.vector_norm(z, dim=1, keepdim=True)
        flat[rows] = z.div_(norms).mul_(predicted)
        found = norms.log() + largest - total
        token_norms[rows] = torch.where(predicted, found, -torch.inf).squeeze(1)
    # Twice the log-norms are logarithms of squares, and those of a sequence's tokens add up.
    by_token = token_norms.view(labels.shape)
    log_norms = (2 * by_token).logsumexp(1) / 2
    defined = log_norms > -torch.inf
    share = (by_token - torch.where(defined, log_norms, 0.0)[:, None]).exp()
    gradient.mul_(share.to(dtype)[:, :, None])
    if mean:
        log_norms -= _predicted(labels).clamp_min(1).double().log()
    return gradient, log_norms


def single_tokens(
    inputs: Inputs, targets: torch.Tensor, positions: torch.Tensor
) -> tuple[Inputs, torch.Tensor]:
    """Sequences of which one token each is predicted, for the gradients of single tokens' losses.

    Args:
        targets: the tokens [N, T].
        positions: integers [P, 2], pairs of an example and the position of a token in ``targets``,
            which is predicted from those before it.

    Returns:
        The inputs of P sequences, and their targets [P, T].

    Raises:
        StiffnessError: no such pairs, or a token that is not predicted.
    """
    shape, count = targets.shape, len(targets)
    if positions.ndim != 2 or positions.shape[1] != 2 or positions.is_floating_point():
        raise StiffnessError(
            f"positions: pairs (example, position) of integers [P, 2] are needed, got "
            f"{list(positions.shape)} ({positions.dtype})"
        )
    example, position = positions.cpu().long().T
    length = shape[1] if len(shape) == 2 else 0
    outside = (example < 0) | (example >= count) | (position < 1) | (position >= length)
    if outside.any():
        raise StiffnessError(
            f"positions: {positions[outside.nonzero()[0, 0]].tolist()} is no example below {count} "
            f"with a position from 1 to {length - 1}; the first token is predicted from nothing"
        )
    chosen = targets[example, position]
    if (chosen == IGNORED).any():
        at = positions[(chosen == IGNORED).nonzero()[0, 0]].tolist()
        raise StiffnessError(f"positions: the token at {at} is {IGNORED}, which is not predicted")
    alone = torch.full_like(targets[example], IGNORED)
    alone[torch.arange(len(alone)), position] = chosen
    return take(inputs, example), alone


def _next_tokens(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """int64 [n, T]: the token that each position predicts; ``IGNORED`` at the last one.

    Raises:
        StiffnessError: shapes or classes that do not fit.
    """
    fits = outputs.ndim == 3 and targets.ndim == 2 and len(targets) == len(outputs)
    if not fits or targets.is_floating_point() or targets.shape[1] < outputs.shape[1]:
        raise StiffnessError(
            "loss causal_lm: needs outputs [N, T, V] and tokens [N, T], got "
            f"{list(outputs.shape)} and {list(targets.shape)} ({targets.dtype})"
        )
    positions, vocabulary = outputs.shape[1:]
    valid = (targets == IGNORED) | ((targets >= 0) & (targets < vocabulary))
    valid[:, positions:] = targets[:, positions:] == IGNORED  # of padding that was cut off
    if vocabulary < 2 or not valid.all():
        raise StiffnessError(
            f"loss causal_lm: targets must be tokens below {vocabulary}, of 2 or more, or "
            f"{IGNORED} for those that are not predicted"
        )
    labels = torch.full_like(targets[:, :positions], IGNORED, dtype=torch.int64)
    labels[:, :-1] = targets[:, 1:positions]
    return labels


def _predicted(labels: torch.Tensor) -> torch.Tensor:
    """[n]: number of predicted tokens."""
    return (labels != IGNORED).sum(1)


def _slabs(count: int, width: int) -> Iterator[slice]:
    size = max(1, _SLAB // width)
    return (slice(begin, begin + size) for begin in range(0, count, size))
