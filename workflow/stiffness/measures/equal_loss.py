"""Values of different runs at the same training loss or the same epoch (claims C12, C13, C18).

A run is at training loss L where its loss first falls to L. Between the two checkpoints around that
place everything is interpolated linearly in the logarithm of the loss.

Two callers choose their levels differently. One experiment's learning rates are compared on a grid
of losses or epochs that all of its runs go through (``loss_grid``, ``epoch_grid``), with resamples.
Several experiments are compared at a few round losses (``round_losses``), from their tables.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from stiffness.errors import StiffnessError
from stiffness.files import rows
from stiffness.measures.distance import BEYOND, EXTRAPOLATED, MEASURED, MISFIT, NONE
from stiffness.measures.pairs import Floats
from stiffness.measures.replicates import RunValues
from stiffness.training.runs import OK

EPOCH, LOSS = "epoch", "train_loss"
LEVELS = 8
FIRST_EPOCH = 1.0
"""Before the end of this epoch, runs differ by where they started."""

_RUN = ["experiment", "lr", "seed"]
_ENDS = ["value", "low", "high"]
_WORSE = [MEASURED, MISFIT, EXTRAPOLATED, BEYOND, NONE]


def loss_grid(runs: Sequence[RunValues], number: int = LEVELS) -> Floats:
    """Choose training losses that all runs go through.

    Returns:
        [number], descending and log-spaced, from epoch 1 on; empty where a slow run ends above
        where a fast one is by then.
    """
    highest, lowest = np.inf, 0.0
    for run in runs:
        late = run.losses[run.epochs >= FIRST_EPOCH]
        if len(late) == 0:
            return np.zeros(0)
        highest, lowest = min(highest, late[0]), max(lowest, late.min())
    if not 0 < lowest < highest:
        return np.zeros(0)
    return np.geomspace(highest, lowest, number)


def epoch_grid(runs: Sequence[RunValues], number: int = LEVELS) -> Floats:
    """Choose at most ``number`` log-spaced epochs from 1 on that all runs have checkpoints at."""
    shared = set(runs[0].epochs) if runs else set()
    for run in runs[1:]:
        shared &= set(run.epochs)
    epochs = np.array(sorted(epoch for epoch in shared if epoch >= FIRST_EPOCH))
    if len(epochs) == 0:
        return epochs
    wanted = np.geomspace(epochs[0], epochs[-1], number)
    nearest = np.abs(epochs[:, None] - wanted[None, :]).argmin(0)
    return np.asarray(epochs[np.unique(nearest)])


def round_losses(history: pd.DataFrame, shares: Sequence[float] = (1.0, 1.5, 2.25)) -> list[float]:
    """Choose a few training losses that all living runs pass, descending.

    Args:
        history: rows of all experiments, with their status.
        shares: multiples of the lowest loss that all runs reach, which is rounded up to two digits.
            A multiple that some run never exceeds is left out.
    """
    losses = rows(history, status=OK).groupby(_RUN)["train_loss"]
    if not len(losses):
        return []
    lowest = float(losses.min().max())
    digit = 10.0 ** (np.floor(np.log10(lowest)) - 1)
    lowest = float(np.ceil(lowest / digit - 1e-9) * digit)
    found = [float(f"{share * lowest:.3g}") for share in shares]
    return sorted((loss for loss in found if loss < losses.max().min()), reverse=True)


def run_at_levels(run: RunValues, by: str, levels: Floats) -> tuple[Floats, Floats]:
    """Return a run's values [L] and replicates [L, R] at epochs or at training losses.

    Args:
        by: what the levels [L] are: ``EPOCH`` or ``LOSS``.

    Raises:
        StiffnessError: a level lies outside the run's range.
    """
    if by == EPOCH:
        places = np.searchsorted(run.epochs, levels)
        if (places >= len(run.epochs)).any() or (run.epochs[places] != levels).any():
            raise StiffnessError(f"learning rate {run.lr}: no checkpoint at every epoch asked for")
        return run.estimates[places], run.replicates[places]
    before, after, share = _first_passage(run.losses, levels)
    if np.isnan(share).any():
        raise StiffnessError(f"learning rate {run.lr}: its training loss never falls so far")

    def between(values: Floats) -> Floats:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        # Between a crossing and none there is no crossing to report: the nearer one counts.
        nearer = np.where(weight >= 0.5, values[after], values[before])
        return _interpolate(values[before], values[after], weight, nearer)

    return between(run.estimates), between(run.replicates)


def tables_at_losses(table: pd.DataFrame, losses: Sequence[float]) -> pd.DataFrame:
    """Return values where the training loss of each run first falls to each of ``losses``.

    The ends of the intervals are interpolated as the values are, which makes the intervals no
    narrower than they should be.

    Args:
        table: rows of one quantity, of any runs, with train_loss, value, low and high. Those of a
            critical length have a column crossing: the result holds the worse of the two, and no
            value where either checkpoint has none.

    Returns:
        Columns experiment, lr, seed, train_loss, value, low, high and, where given, crossing; no
        row where a run does not fall to a loss.
    """
    found = []
    for key, run in table.groupby(_RUN, sort=True):
        run = run.sort_values("step")
        passages = zip(losses, *_first_passage(run["train_loss"].to_numpy(), losses), strict=True)
        for loss, first, last, share in passages:
            if np.isnan(share) or first == last:
                continue
            row: dict[str, Any] = dict(zip(_RUN, key, strict=True)) | {"train_loss": loss}
            before, after = (run[_ENDS].iloc[at].to_numpy(float) for at in (first, last))
            # An end that is infinite or undefined at one checkpoint is so between the two.
            ends = _interpolate(before, after, share, before + after)
            row |= dict(zip(_ENDS, ends.tolist(), strict=True))
            if "crossing" in run:
                row["crossing"] = max(run["crossing"].iloc[[first, last]], key=_WORSE.index)
            found.append(row)
    columns = [*_RUN, "train_loss", *_ENDS, *(["crossing"] if "crossing" in table else [])]
    return pd.DataFrame(found, columns=columns)


def add_losses(table: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of living runs, with the training loss of their checkpoints."""
    return rows(table, status=OK).merge(history[[*_RUN, "step", "train_loss"]], on=[*_RUN, "step"])


def _first_passage(losses: Floats, levels: Floats | Sequence[float]) -> tuple[Any, Any, Floats]:
    """Find where a run's losses [K] first fall to each of the levels [L].

    Returns:
        The checkpoints [L] before and after, which are both the first one where the run begins
        below a level; and the share [L] of the way between them in the logarithm of the loss, NaN
        where the run never falls to the level.
    """
    levels = np.asarray(levels, float)
    passed = losses <= levels[:, None]
    after = passed.argmax(1)
    before = np.maximum(after - 1, 0)
    logs = np.log(losses)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (logs[before] - np.log(levels)) / (logs[before] - logs[after])
    return before, after, np.where(passed.any(1), np.where(after > before, share, 1.0), np.nan)


def _interpolate(before: Floats, after: Floats, share: Any, infinite: Floats) -> Floats:
    """Mix two arrays linearly; where either of the two is infinite, ``infinite`` stands instead."""
    with np.errstate(invalid="ignore"):
        mixed = before + share * (after - before)
    return np.where(np.isinf(before) | np.isinf(after), infinite, mixed)
