"""How the epochs of a training are grouped into jobs."""

import re
from collections.abc import Iterable
from pathlib import Path

IMPORTED = "imported"
"""The folder of all checkpoints of a training that was done elsewhere."""


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
