"""Numbers across experiments: gaps between two stiffnesses, with their intervals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stiffness.files import read_tensors, rows
from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.pairs import METRICS


def stiffness_gaps(
    summary: pd.DataFrame,
    replicates: Sequence[str | Path],
    replicates_of: Sequence[tuple[str, int]],
    pair_mode: str,
) -> pd.DataFrame:
    """Subtract between-classes from within-class stiffness at every checkpoint.

    The interval is that of the differences of replicates: both stiffnesses rest on the same draws.

    Args:
        summary: rows of one learning rate of each experiment.
        replicates: files of resamples, one per run and segment.
        replicates_of: the (experiment, seed) of each file.
        pair_mode: "train-train" or "train-val".

    Returns:
        Columns experiment, seed, step, epoch, metric, value, low and high (95 % intervals).

    Raises:
        StiffnessError: a file is unreadable or lacks the quantities.
    """
    found: list[dict[str, Any]] = []
    for file, (experiment, seed) in zip(replicates, replicates_of, strict=True):
        names = {
            (quantity, metric): f"{quantity}/{pair_mode}/{metric}"
            for quantity in ("within", "between")
            for metric in METRICS
        }
        if not len(read_tensors(file, ["steps"])[0]["steps"]):
            continue  # after a run has diverged
        tensors, _ = read_tensors(file, ["steps", *names.values()])
        for metric in METRICS:
            within, between = (
                tensors[names[quantity, metric]].double().numpy()
                for quantity in ("within", "between")
            )
            ends = percentile_interval(within - between)
            for step, low, high in zip(tensors["steps"].tolist(), *ends, strict=True):
                key = {"experiment": experiment, "seed": seed, "step": step, "metric": metric}
                found.append(key | {"low": low, "high": high})
    keys = ["experiment", "seed", "step", "metric"]
    measured = pd.DataFrame(found, columns=[*keys, "low", "high"])
    wide = rows(summary, pair_mode=pair_mode).pivot(
        index=[*keys, "epoch"], columns="quantity", values="value"
    )
    values = (wide["within"] - wide["between"]).rename("value").reset_index()
    return values.merge(measured, on=keys)[[*keys[:3], "epoch", "metric", "value", "low", "high"]]


def describe_gap(gap: pd.DataFrame) -> dict[str, Any]:
    """Tell when the two stiffnesses parted or met, and where they were farthest apart.

    Args:
        gap: epoch, value, low and high of one run or of a mean over seeds, one row per checkpoint.

    Returns:
        apart: whether the interval of the gap lies above 0 at the last checkpoint.
        since_epoch: the first checkpoint from which this stays as it is at the last one.
        widest_gap: the largest value from the end of the first epoch on. At initialisation
            within-class stiffness is near 1 whatever the labels, and the first steps undo that.
        widest_epoch: the epoch of that value.
    """
    ordered = gap.sort_values("epoch")
    above = (ordered["low"] > 0).to_numpy()
    changes = np.flatnonzero(above[:-1] != above[1:])
    first = int(changes[-1]) + 1 if len(changes) else 0
    late = ordered[ordered["epoch"] >= 1]
    widest = (late if len(late) else ordered.iloc[-1:]).nlargest(1, "value").iloc[0]
    return {
        "apart": bool(above[-1]),
        "since_epoch": float(ordered["epoch"].iloc[first]),
        "widest_gap": float(widest["value"]),
        "widest_epoch": float(widest["epoch"]),
    }


def rows_of_columns(table: pd.DataFrame, columns: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the rows of the experiments and learning rates that ``columns`` name."""
    chosen = np.zeros(len(table), bool)
    for column in columns:
        own = (table["experiment"] == column["experiment"]) & (table["lr"] == column["lr"])
        chosen |= own.to_numpy(bool)
    return table[chosen]
