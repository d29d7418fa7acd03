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

from stiffness.files import read_table

OK, DIVERGED, AT_CHANCE, COLLAPSED = "ok", "diverged", "at chance", "collapsed"

# A network that has learnt anything has a loss below this share of the labels' entropy.
_CHANCE_SHARE = 0.99
# The validation loss ends this much above its minimum if over-fitting has set in.
_ONSET_MARGIN = 1.01


def run_status(history: pd.DataFrame) -> str:
    """ "ok", "diverged" (loss not finite), "at chance" (never left it) or "collapsed" (fell back).

    Args:
        history: rows of one run, sorted by step, as the training room writes them.
    """
    losses = history["train_loss"].to_numpy()
    if not np.isfinite(losses).all():
        return DIVERGED
    learnt = losses < _CHANCE_SHARE * history["chance_loss"].to_numpy()
    if learnt[-1]:
        return OK
    return COLLAPSED if learnt.any() else AT_CHANCE


def describe_run(history: pd.DataFrame) -> dict[str, Any]:
    """Status, onset of over-fitting and final scores of one run.

    The onset is the epoch of the lowest validation loss (section 4.1, figure 3); ``onset_reached``
    says whether the loss has risen again by 1 % at the end, else the minimum may only be the end.
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
        row["onset_reached"] = bool(losses[-1] > _ONSET_MARGIN * losses[lowest])
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
) -> dict[str, pd.DataFrame]:
    """One tidy table of each kind for an experiment.

    Args:
        epochs: later checkpoints, left from a longer training, are dropped.
        runs: (learning rate, seed) of each run.
        histories: the history files of each run's segments.
        parts: for each name of a table, the files of each run's segments.

    Returns:
        "runs" (one row a run), "history", and one table for each name in ``parts``; each with the
        columns experiment, lr, seed and status first.
    """
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in ("runs", "history", *parts)}
    for number, (lr, seed) in enumerate(runs):
        history = concatenate_tables([read_table(path) for path in histories[number]])
        history = history[history["epoch"] <= epochs].sort_values("step")
        about = describe_run(history)
        key = {"experiment": experiment, "lr": lr, "seed": seed, "status": about["status"]}
        tables["runs"].append(pd.DataFrame([key | about]))
        tables["history"].append(_keyed(history, key))
        for name, files in parts.items():
            part = concatenate_tables([read_table(path) for path in files[number]])
            tables[name].append(_keyed(part[part["epoch"] <= epochs], key))
    return {name: concatenate_tables(frames) for name, frames in tables.items()}


def concatenate_tables(frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, without the empty ones.

    A segment after a run has diverged is empty: its columns have no types, and would take the
    others' away.
    """
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled or frames[:1], ignore_index=True)


def read_seed_tables(files: Sequence[str | Path], seeds: Sequence[int]) -> pd.DataFrame:
    """Tables of segments, each of the seed at its place in ``seeds``, as one with a column seed."""
    named = zip(files, seeds, strict=True)
    return concatenate_tables([read_table(file).assign(seed=seed) for file, seed in named])


def select_layer(table: pd.DataFrame, layer: str) -> pd.DataFrame:
    """The rows whose distances were measured in ``layer``."""
    return table[table["layer"] == layer].drop(columns="layer")


def select_line_fit(critical_length: pd.DataFrame) -> pd.DataFrame:
    """The critical lengths of the paper's estimator, a fitted line."""
    rows = critical_length[critical_length["estimator"] == "line"]
    return rows.drop(columns="estimator")


def _keyed(table: pd.DataFrame, key: Mapping[str, Any]) -> pd.DataFrame:
    keyed = table.copy()
    for position, (name, value) in enumerate(key.items()):
        keyed.insert(position, name, value)
    return keyed
