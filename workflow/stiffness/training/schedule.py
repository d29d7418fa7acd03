"""Which steps get a checkpoint."""

import math


def checkpoint_steps(
    start: int,
    end: int,
    steps_per_epoch: int,
    early_checkpoints: int,
    checkpoint_interval: float = 1,
) -> list[int]:
    """Steps to keep in epochs ``start`` to ``end``.

    Every ``checkpoint_interval`` epochs, which may be a fraction, and at ``end``; for
    ``start == 0`` also the initialisation, the first step and up to ``early_checkpoints``
    log-spaced steps between it and the end of the first epoch (section 4.1: initialisation, very
    early, ...). Where steps are few, some of them fall together.
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
