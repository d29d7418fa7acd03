"""Which steps get a checkpoint."""

import math


def checkpoint_steps(
    start: int,
    end: int,
    steps_per_epoch: int,
    early_checkpoints: int,
    checkpoint_interval: float = 1,
) -> list[int]:
    """The steps of epochs ``start`` to ``end`` after which the weights are saved.

    These are the steps at every ``checkpoint_interval`` epochs and at ``end``. With ``start == 0``
    the initialisation and the first step are among them, and log-spaced steps up to the end of the
    first epoch (Section 4.1: initialisation, very early, ...).

    Args:
        start, end: in epochs.
        steps_per_epoch: updates per epoch.
        early_checkpoints: number of the log-spaced steps; where steps are few, some coincide.
        checkpoint_interval: in epochs; it may be a fraction of one.

    Returns:
        The steps in ascending order; step 0 is the initialisation.
    """
    first, last = start * steps_per_epoch, end * steps_per_epoch
    between = checkpoint_interval * steps_per_epoch
    numbers = range(math.floor(first / between), math.ceil(last / between) + 1)
    steps = {last} | {step for step in (round(k * between) for k in numbers) if first < step < last}
    if start == 0:
        ratio = steps_per_epoch ** (1 / (early_checkpoints + 1))
        early = {round(ratio**power) for power in range(early_checkpoints + 1)}
        steps |= {0} | {step for step in early if step < steps_per_epoch}
    return sorted(steps)
