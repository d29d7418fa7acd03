"""Stages of training that figures show, chosen by epoch, by validation accuracy, or as the last."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stiffness.files import read_table, rows
from stiffness.training.runs import OK, concatenate_tables

LAST = "last"


@dataclass(frozen=True)
class Stage:
    """A checkpoint that stands for a stage.

    Attributes:
        step, epoch: of the checkpoint.
        accuracy: on the validation set, between 0 and 1.
        wanted_accuracy: the accuracy that was asked for; None for a stage chosen by epoch.
    """

    step: int
    epoch: float
    accuracy: float
    wanted_accuracy: float | None = None

    @property
    def reached(self) -> bool:
        """Whether the accuracy asked for was reached; always so for a stage chosen by epoch."""
        return self.wanted_accuracy is None or self.accuracy >= self.wanted_accuracy


def choose_stages(history: pd.DataFrame, stages: Sequence[Any]) -> list[Stage]:
    """Choose one checkpoint for each stage (Section 4.1).

    Args:
        history: the rows of one run, sorted by step.
        stages: each an epoch (the nearest checkpoint), "last", or {"accuracy": a}: the first
            checkpoint whose validation accuracy is a or more, else the first of the most accurate.
    """
    accuracies = history["validation_accuracy"].to_numpy()
    chosen = []
    for stage in stages:
        wanted = None
        if isinstance(stage, Mapping):
            wanted = float(stage["accuracy"])
            reached = accuracies >= wanted
            row = int(reached.argmax() if reached.any() else accuracies.argmax())
        elif stage == LAST:
            row = len(history) - 1
        else:
            row = int((history["epoch"] - float(stage)).abs().to_numpy().argmin())
        at = history.iloc[row]
        chosen.append(Stage(int(at["step"]), float(at["epoch"]), float(accuracies[row]), wanted))
    return chosen


def stage_steps(histories: Sequence[str | Path], epochs: int, stages: Sequence[Any]) -> set[int]:
    """The steps of the checkpoints that stand for a run's stages.

    Args:
        histories: the history files of the run's segments.
        epochs: of the experiment; later checkpoints, left from a longer training, do not count.
        stages: as for ``choose_stages``.
    """
    history = concatenate_tables([read_table(file) for file in histories])
    history = history[history["epoch"] <= epochs].sort_values("step")
    return {stage.step for stage in choose_stages(history, stages)}


def reference_run(runs: pd.DataFrame, learning_rate: str) -> tuple[int, str]:
    """Seed and status of the first run of a learning rate that is "ok", else of its first run."""
    candidates = rows(runs, lr=learning_rate).sort_values("seed")
    alive = rows(candidates, status=OK)
    row = (alive if len(alive) else candidates).iloc[0]
    return int(row["seed"]), str(row["status"])


def reference_stages(
    runs: pd.DataFrame, history: pd.DataFrame, learning_rate: str, stages: Sequence[Any]
) -> list[Stage]:
    """The stages of the reference run; see ``reference_run`` and ``choose_stages``."""
    seed, _ = reference_run(runs, learning_rate)
    return choose_stages(rows(history, lr=learning_rate, seed=seed), stages)


def read_matrices(
    files: Sequence[str | Path],
    seeds: Sequence[int],
    stages: Sequence[Stage],
    metrics: Collection[str],
    pair_modes: Collection[str],
) -> pd.DataFrame:
    """Read class stiffness at the steps of ``stages``, with a column ``seed``.

    Only one file is in memory at a time: with 100 classes a checkpoint has 60,000 rows.

    Args:
        files, seeds: class tables of segments; each belongs to the seed at its place.
        metrics, pair_modes: the ones that are wanted.
    """
    steps = [stage.step for stage in stages]
    parts = []
    for file, seed in zip(files, seeds, strict=True):
        wanted = {"step": steps, "metric": list(metrics), "pair_mode": list(pair_modes)}
        parts.append(rows(read_table(file), **wanted).assign(seed=seed))
    return concatenate_tables(parts)
