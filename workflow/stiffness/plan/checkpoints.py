"""Checkpoints that were made elsewhere: which files a pattern of config.yaml means."""

import glob
import itertools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from stiffness.errors import StiffnessError

_ALL = 100_000
"""Epochs that no training has."""
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_FIELDS = {
    "lr": rf"{_NUMBER}(?:[eE][-+]?\d+)?",
    "seed": r"\d+",
    "step": r"\d+",
    "epoch": _NUMBER,
}


class Found(NamedTuple):
    """A file that a pattern means, and what its name tells.

    Attributes:
        lr, seed: as text; "" where the pattern has none.
        step: optimiser steps; None where the pattern has none.
        epoch: epochs; None where the pattern has none.
        path: the file.
    """

    lr: str
    seed: str
    step: int | None
    epoch: float | None
    path: str

    @property
    def point(self) -> list[float | None]:
        return [self.step, self.epoch]


def find_checkpoints(pattern: str, key: str) -> list[Found]:
    """The files that a pattern means, in the order of training.

    Args:
        pattern: a path with any of ``{lr}``, ``{seed}``, ``{step}`` and ``{epoch}``, of the last
            two one at least; ``*`` stands for any part of a name.
        key: of the configuration, for messages.

    Raises:
        StiffnessError: the pattern has other fields or no step, there is no such file, or two files
            have one place.
    """
    parts = re.split(r"\{(\w*)\}", pattern)
    names = parts[1::2]
    unknown = [name for name in names if name not in _FIELDS]
    if unknown or not {"step", "epoch"} & set(names):
        wrong = f"unknown {{{unknown[0]}}}" if unknown else "no {step} and no {epoch}"
        raise StiffnessError(
            f"{key}: {wrong} in {pattern!r}; write it like runs/lr={{lr}}/seed={{seed}}/"
            "step={step}.pt, with {step} or {epoch}"
        )
    wanted, expression = "", ""
    seen: set[str] = set()
    for place, part in enumerate(parts):
        if place % 2 == 0:
            wanted += "*".join(glob.escape(text) for text in part.split("*"))
            expression += "[^/]*".join(re.escape(text) for text in part.split("*"))
        else:
            wanted += "*"
            expression += f"(?P={part})" if part in seen else f"(?P<{part}>{_FIELDS[part]})"
            seen.add(part)
    found = []
    for path in sorted(glob.glob(wanted)):
        match = re.fullmatch(expression, path)
        if match:
            values = match.groupdict()
            step, epoch = values.get("step"), values.get("epoch")
            point = (int(step) if step else None, float(epoch) if epoch else None)
            found.append(Found(values.get("lr", ""), values.get("seed", ""), *point, path))
    if not found:
        raise StiffnessError(
            f"{key}: no file is named like {pattern!r}; a relative path begins in the folder in "
            "which snakemake runs"
        )
    found.sort(key=lambda one: (one.lr, one.seed, one.step or 0, one.epoch or 0, one.path))
    for one, other in itertools.pairwise(found):
        if one[:4] == other[:4]:
            raise StiffnessError(f"{key}: {one.path} and {other.path} have one place; keep one")
    return found


def with_found(experiment: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An experiment with checkpoints, and the learning rates, seeds and epochs of its files.

    Args:
        experiment: as it was given; what it sets itself stays.
        key: of the experiment, for messages.

    Raises:
        StiffnessError: see ``find_checkpoints``; or a learning rate or seed cannot be told.
    """
    pattern = experiment["checkpoints"]
    found = find_checkpoints(pattern, f"{key}.checkpoints")
    epochs = [one.epoch for one in found if one.epoch is not None]
    filled: dict[str, Any] = {"epochs": max(1, -int(-max(epochs) // 1)) if epochs else _ALL}
    if found[0].lr:
        rates = {one.lr for one in found}
        filled["learning_rates"] = sorted(rates, key=lambda rate: (float(rate), rate))
    if found[0].seed:
        filled["seeds"] = sorted({int(one.seed) for one in found})
    filled |= experiment
    for field, name in (("lr", "learning_rates"), ("seed", "seeds")):
        values = filled.get(name, [0] if field == "seed" else None)
        if not getattr(found[0], field) and (not isinstance(values, list) or len(values) != 1):
            example = '["1e-3"]' if field == "lr" else "[0]"
            raise StiffnessError(
                f"{key}.{name}: checkpoints has no {{{field}}}; set the one that they were trained "
                f"with, such as {example}"
            )
        for value in values or []:
            if getattr(found[0], field) and str(value) not in {
                str(getattr(one, field)) for one in found
            }:
                raise StiffnessError(f"{key}.{name}: {pattern!r} names no file of {value!r}")
    return filled


def of_run(found: list[Found], lr: str, seed: int) -> list[Found]:
    """The files of one training."""
    return [one for one in found if one.lr in ("", lr) and one.seed in ("", str(seed))]
