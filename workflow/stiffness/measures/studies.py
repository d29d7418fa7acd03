"""Numbers across experiments: gaps with their intervals, and values at equal training loss."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stiffness.files import read_tensors
from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.distance import BEYOND, EXTRAPOLATED, MEASURED, NONE
from stiffness.measures.pairs import METRICS
from stiffness.training.runs import OK

_RUN = ["experiment", "lr", "seed"]
_ENDS = ["value", "low", "high"]
_WORSE = [MEASURED, EXTRAPOLATED, BEYOND, NONE]


def stiffness_gaps(
    summary: pd.DataFrame,
    replicates: Sequence[str | Path],
    replicates_of: Sequence[tuple[str, int]],
    pair_mode: str,
) -> pd.DataFrame:
    """Within-class minus between-classes stiffness at every checkpoint, with 95 % intervals.

    An interval is that of the differences of replicates: both stiffnesses rest on the same draws.

    Args:
        summary: rows of one learning rate of each experiment.
        replicates: files of segments, each of the (experiment, seed) at its place in
            ``replicates_of``.

    Returns:
        Columns experiment, seed, step, epoch, metric, value, low and high.

    Raises:
        StiffnessError: a file is unreadable or lacks the quantities.
    """
    rows: list[dict[str, Any]] = []
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
                rows.append(key | {"low": low, "high": high})
    keys = ["experiment", "seed", "step", "metric"]
    measured = pd.DataFrame(rows, columns=[*keys, "low", "high"])
    chosen = summary[summary["pair_mode"] == pair_mode]
    wide = chosen.pivot(index=[*keys, "epoch"], columns="quantity", values="value")
    values = (wide["within"] - wide["between"]).rename("value").reset_index()
    return values.merge(measured, on=keys)[[*keys[:3], "epoch", "metric", *_ENDS]]


def apart(gap: pd.DataFrame) -> dict[str, Any]:
    """When the two stiffnesses parted or met, and where they were farthest apart.

    Args:
        gap: rows of one run or of a mean over seeds, with epoch, value, low and high.

    Returns:
        apart: whether the interval of the gap lies above 0 at the last checkpoint.
        since_epoch: the first checkpoint of the unbroken stretch, up to the last, of which that is
            as true or as false as it is there.
        widest_gap, widest_epoch: the largest value, from the end of the first epoch on: at
            initialisation within-class stiffness is near 1 whatever the labels, and that is
            undone by the first steps.
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


def common_losses(history: pd.DataFrame, shares: Sequence[float] = (1.0, 1.5, 2.25)) -> list[float]:
    """Training losses that all living runs pass, from the highest.

    They are ``shares`` times the lowest loss that all of them reach, which is rounded up to two
    digits; those that a run begins below are left out.

    Args:
        history: rows of all experiments, with their status.
    """
    losses = history[history["status"] == OK].groupby(_RUN)["train_loss"]
    if not len(losses):
        return []
    lowest = float(losses.min().max())
    digit = 10.0 ** (np.floor(np.log10(lowest)) - 1)
    lowest = float(np.ceil(lowest / digit - 1e-9) * digit)
    found = [float(f"{share * lowest:.3g}") for share in shares]
    return sorted((loss for loss in found if loss < losses.max().min()), reverse=True)


def at_losses(table: pd.DataFrame, losses: Sequence[float]) -> pd.DataFrame:
    """Values where the training loss of a run first falls to each of ``losses``.

    Between the two checkpoints around it, linear in the logarithm of the loss. So are the ends of
    the intervals, which makes them no narrower than they should be.

    Args:
        table: rows of one quantity, of any runs, with train_loss, value, low and high; and, of a
            critical length, crossing: the result's is the worse of the two, and there is no value
            where either has none.

    Returns:
        Columns experiment, lr, seed, train_loss, value, low, high and, where given, crossing; no
        row where a run does not fall to a loss.
    """
    rows = []
    for key, run in table.groupby(_RUN, sort=True):
        run = run.sort_values("step")
        measured = run["train_loss"].to_numpy()
        for loss in losses:
            passed = np.flatnonzero((measured[:-1] > loss) & (measured[1:] <= loss))
            if not len(passed):
                continue
            before, after = run.iloc[passed[0]], run.iloc[passed[0] + 1]
            share = np.log(before["train_loss"] / loss) / np.log(
                before["train_loss"] / after["train_loss"]
            )
            row: dict[str, Any] = dict(zip(_RUN, key, strict=True)) | {"train_loss": loss}
            row |= {name: _between(before[name], after[name], share) for name in _ENDS}
            if "crossing" in run:
                row["crossing"] = max(before["crossing"], after["crossing"], key=_WORSE.index)
            rows.append(row)
    columns = [*_RUN, "train_loss", *_ENDS, *(["crossing"] if "crossing" in table else [])]
    return pd.DataFrame(rows, columns=columns)


def _between(before: float, after: float, share: float) -> float:
    if not np.isfinite([before, after]).all():
        return float(before + after)  # infinite or NaN, as either is
    return float(before + share * (after - before))


def with_losses(table: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Rows of living runs, with the training loss of their checkpoints."""
    losses = history[[*_RUN, "step", "train_loss"]]
    return table[table["status"] == OK].merge(losses, on=[*_RUN, "step"])


def of_columns(table: pd.DataFrame, columns: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of the experiments and learning rates that ``columns`` name."""
    wanted = {(column["experiment"], column["lr"]) for column in columns}
    keys = zip(table["experiment"], table["lr"], strict=True)
    return table[[key in wanted for key in keys]]
