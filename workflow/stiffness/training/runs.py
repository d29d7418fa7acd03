"""What became of each run, and an experiment's tables put together.

A run can die, and a dead run's stiffness looks like a result: a network that outputs only its last
bias has within-class cosine 1 and between-classes cosine -1 / (classes - 1). Its status stands in
every row of every table.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stiffness.files import read_table, rows

OK, DIVERGED, AT_CHANCE, COLLAPSED = "ok", "diverged", "at chance", "collapsed"

# A network that has learnt anything has a loss this share below that of constant outputs.
_CHANCE_MARGIN = 0.01
# The validation loss ends this share above its minimum if over-fitting has set in.
_ONSET_MARGIN = 0.01


def run_status(history: pd.DataFrame) -> str:
    """What became of a run.

    Args:
        history: the rows of one run, sorted by step, with the columns of ``HISTORY_COLUMNS``.

    Returns:
        "ok", "diverged" (a training loss is not finite), "at chance" (the training loss never left
        the value that constant outputs reach) or "collapsed" (it returned there).
    """
    losses = history["train_loss"].to_numpy()
    if not np.isfinite(losses).all():
        return DIVERGED
    chance = history["chance_loss"].to_numpy()
    learnt = losses < chance - _CHANCE_MARGIN * np.abs(chance)
    if learnt[-1]:
        return OK
    return COLLAPSED if learnt.any() else AT_CHANCE


def describe_run(history: pd.DataFrame) -> dict[str, Any]:
    """Status, onset of over-fitting and final scores of one run.

    The onset is the epoch of the lowest validation loss (Section 4.1, Figure 3).

    Args:
        history: as for ``run_status``.

    Returns:
        One row of the table "runs". Its ``onset_reached`` says whether the validation loss has
        risen again by 1 % at the end; if it has not, the minimum may only be the end of training.
    """
    final = history.iloc[-1]
    losses = history["validation_loss"].to_numpy(np.float64)
    row = {
        "status": run_status(history),
        "epochs": final["epoch"],
        "onset_epoch": np.nan,
        "onset_reached": False,
        "lowest_validation_loss": np.nan,
    }
    if np.isfinite(losses).any():
        lowest = int(np.nanargmin(losses))
        row["onset_epoch"] = history["epoch"].iloc[lowest]
        row["lowest_validation_loss"] = losses[lowest]
        rise = losses[-1] - losses[lowest]
        row["onset_reached"] = bool(rise > _ONSET_MARGIN * abs(losses[lowest]))
    for name in ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy"):
        row[f"final_{name}"] = final[name]
    row["best_validation_accuracy"] = history["validation_accuracy"].max()
    return row


def collect_tables(
    experiment: str,
    epochs: int,
    runs: Sequence[tuple[str, int]],
    histories: Sequence[Sequence[str | Path]],
    parts: Mapping[str, Sequence[Sequence[str | Path]]],
    arithmetic: str = "exact",
) -> dict[str, pd.DataFrame]:
    """Join the tables of an experiment's segments to one table of each kind.

    Args:
        epochs: of the experiment; later checkpoints, left from a longer training, are dropped.
        runs: learning rate and seed of each run.
        histories: for each run, the history files of its segments.
        parts: for each name of a table and each run, the files of its segments.
        arithmetic: of the loss gradient, in which the parts were measured.

    Returns:
        "runs" (one row per run), "history", and one table for each name in ``parts``. The first
        columns of each are experiment, lr, seed and status, and of the parts then arithmetic.
    """
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("runs", "history", *parts)}
    for number, (lr, seed) in enumerate(runs):
        history = concatenate_tables([read_table(path) for path in histories[number]])
        history = history[history["epoch"] <= epochs].sort_values("step")
        about = describe_run(history)
        key = {"experiment": experiment, "lr": lr, "seed": seed, "status": about["status"]}
        tables["runs"].append(pd.DataFrame([key | about]))
        tables["history"].append(_with_columns(history, key))
        for name, files in parts.items():
            part = concatenate_tables([read_table(path) for path in files[number]])
            tables[name].append(
                _with_columns(part[part["epoch"] <= epochs], key | {"arithmetic": arithmetic})
            )
    return {name: concatenate_tables(frames) for name, frames in tables.items()}


def concatenate_tables(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables row by row, and leave out empty ones.

    The table of a segment after a run has diverged is empty: its columns have no types, and would
    change those of the others.
    """
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled or frames[:1], ignore_index=True)


def read_seed_tables(files: Sequence[str | Path], seeds: Sequence[int]) -> pd.DataFrame:
    """Read tables of segments and join them, with a column ``seed``.

    Args:
        files, seeds: each file belongs to the seed at its place.
    """
    named = zip(files, seeds, strict=True)
    return concatenate_tables([read_table(file).assign(seed=seed) for file, seed in named])


def select_layer(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The rows whose distances were measured in ``layer``, without that column."""
    return rows(table, layer=layer).drop(columns="layer")


def select_line_fit(critical_length: pd.DataFrame) -> pd.DataFrame:
    """The critical lengths of the paper's estimator, a fitted line (Section 4.5)."""
    return rows(critical_length, estimator="line").drop(columns="estimator")


def _with_columns(table: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    keyed = table.copy()
    for position, (name, value) in enumerate(key.items()):
        keyed.insert(position, name, value)
    return keyed
