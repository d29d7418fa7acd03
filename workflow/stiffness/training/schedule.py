"""Which steps get a checkpoint, and how epochs are grouped into jobs. No torch here."""

import math
import re
from collections.abc import Iterable
from pathlib import Path


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


def segment_name(start: int, end: int) -> str:
    """The folder name of the epochs after ``start`` up to ``end``."""
    return f"epochs={start:04d}-{end:04d}"


def plan_segments(epochs: int, epochs_per_job: int, existing: Iterable[str]) -> list[str]:
    """Cut ``epochs`` into jobs, each continuing the one before it.

    Cuts fall on multiples of ``epochs_per_job``, except where a finished segment ends elsewhere:
    it is kept, so that adding epochs computes only the new ones.

    Args:
        existing: names of finished segments (``segment_name``); others are ignored.
    """
    ends: dict[int, int] = {}
    for name in existing:
        match = re.fullmatch(r"epochs=(\d+)-(\d+)", name)
        if match and int(match[1]) < int(match[2]):
            start, end = int(match[1]), int(match[2])
            ends[start] = max(end, ends.get(start, 0))
    segments, position = [], 0
    while position < epochs:
        cut = min(epochs, (position // epochs_per_job + 1) * epochs_per_job)
        end = ends.get(position, cut)
        segments.append(segment_name(position, end))
        position = end
    return segments


def finished_segments(folder: str | Path) -> list[str]:
    """Names of the segments in a run's ``checkpoints`` folder."""
    folder = Path(folder)
    return [entry.name for entry in folder.glob("epochs=*")] if folder.is_dir() else []
