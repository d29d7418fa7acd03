"""Learning rates side by side: at equal epoch, and at equal training loss (claims C12, C13, C18).

A run is at training loss L where its loss first falls to L; between the two checkpoints around it
everything is interpolated linearly in the logarithm of the loss. Losses are compared on the range
that all runs go through. The example resamples of all runs are the same draws, and seeds get
Student weights (see ``seeds``), so that every difference has an interval.

How a quantity is ordered by the learning rate is measured by Kendall's tau: over all pairs of
rates and all pairs of their seeds, +1 where the larger rate has the larger value, -1 where the
smaller, 0 where equal, on average. It needs no line, and an infinite critical length ("no
crossing") is simply the largest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from stiffness.errors import StiffnessError
from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.pairs import Floats
from stiffness.measures.seeds import seed_weights

EPOCH, LOSS = "epoch", "train_loss"
LEVELS = 8
_FIRST_EPOCH = 1.0  # before it, runs differ by where they started

LEVEL_COLUMNS = [
    "by",
    "level",
    "lr",
    "quantity",
    "pair_mode",
    "metric",
    "value",
    "low",
    "high",
    "seeds",
]
ORDER_COLUMNS = ["by", "quantity", "pair_mode", "metric", "tau", "low", "high", "levels", "rates"]


@dataclass(frozen=True)
class RunValues:
    """One quantity of one run at its checkpoints.

    Attributes:
        lr, seed: of the run.
        epochs, losses: [K], ascending epochs and training losses.
        estimates: [K]; critical lengths may be infinite (no crossing).
        replicates: [K, R].
    """

    lr: str
    seed: int
    epochs: Floats
    losses: Floats
    estimates: Floats
    replicates: Floats


def loss_levels(runs: Sequence[RunValues], number: int = LEVELS) -> Floats:
    """Training losses [number] that all runs go through, descending, log-spaced.

    From epoch 1 on; where a slow run ends above where a fast one is by then, from half the loss at
    initialisation. Empty where there is no such range either.
    """
    highest, lowest, start = np.inf, 0.0, np.inf
    for run in runs:
        late = run.losses[run.epochs >= _FIRST_EPOCH]
        if len(late) == 0:
            return np.zeros(0)
        highest, lowest = min(highest, late[0]), max(lowest, late.min())
        start = min(start, run.losses[0])
    if lowest >= highest:
        highest = start / 2
    if not 0 < lowest < highest:
        return np.zeros(0)
    return np.geomspace(highest, lowest, number)


def epoch_levels(runs: Sequence[RunValues], number: int = LEVELS) -> Floats:
    """Epochs [at most ``number``] that all runs have a checkpoint at, from epoch 1, log-spaced."""
    shared = set(runs[0].epochs) if runs else set()
    for run in runs[1:]:
        shared &= set(run.epochs)
    epochs = np.array(sorted(epoch for epoch in shared if epoch >= _FIRST_EPOCH))
    if len(epochs) == 0:
        return epochs
    wanted = np.geomspace(epochs[0], epochs[-1], number)
    nearest = np.abs(epochs[:, None] - wanted[None, :]).argmin(0)
    return np.asarray(epochs[np.unique(nearest)])


def at_levels(run: RunValues, by: str, levels: Floats) -> tuple[Floats, Floats]:
    """Values [L] and replicates [L, R] at those epochs or losses.

    Raises:
        StiffnessError: a level outside the run's range.
    """
    if by == EPOCH:
        places = np.searchsorted(run.epochs, levels)
        if (places >= len(run.epochs)).any() or (run.epochs[places] != levels).any():
            raise StiffnessError(f"learning rate {run.lr}: no checkpoint at every epoch asked for")
        return run.estimates[places], run.replicates[places]
    after = np.array([np.argmax(run.losses <= level) for level in levels])
    if (run.losses[after] > levels).any():
        raise StiffnessError(f"learning rate {run.lr}: its training loss never falls so far")
    before = np.maximum(after - 1, 0)
    logs = np.log(run.losses)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = (logs[before] - np.log(levels)) / (logs[before] - logs[after])
    share = np.where(after > before, share, 1.0)

    def between(values: Floats) -> Floats:
        weight = share.reshape(-1, *[1] * (values.ndim - 1))
        with np.errstate(invalid="ignore"):
            mixed = values[before] + weight * (values[after] - values[before])
        # Between a crossing and none there is no crossing to report.
        infinite = np.isinf(values[before]) | np.isinf(values[after])
        return np.where(infinite, np.where(weight >= 0.5, values[after], values[before]), mixed)

    return between(run.estimates), between(run.replicates)


def kendall_tau(groups: Sequence[Floats], weights: Sequence[Floats]) -> Floats:
    """[R]: mean sign of the differences between later and earlier groups.

    Args:
        groups: values [S, R] of the seeds of one learning rate, in the order of rates.
        weights: [S, R] of the seeds, each column adding up to 1.

    A pair of groups that holds an undefined value does not count.
    """
    scores = []
    for first, second in combinations(range(len(groups)), 2):
        with np.errstate(invalid="ignore"):
            # inf - inf is NaN: two that never cross are equal.
            order = (groups[second][None] > groups[first][:, None]).astype(float)
            order -= groups[second][None] < groups[first][:, None]
        undefined = np.isnan(groups[second]).any(0) | np.isnan(groups[first]).any(0)
        score = np.einsum("ir,jr,ijr->r", weights[first], weights[second], order)
        scores.append(np.where(undefined, np.nan, score))
    if not scores:
        return np.full(groups[0].shape[-1] if groups else 0, np.nan)
    stacked = np.stack(scores)
    defined = ~np.isnan(stacked)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(defined, stacked, 0).sum(0) / defined.sum(0))


def compare(
    quantities: Mapping[tuple[str, str, str], Sequence[RunValues]], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every quantity at equal epoch and at equal loss, and how it is ordered by learning rate.

    Args:
        quantities: by (quantity, pair mode, metric), the runs that are alive.
        seed: of the seeds' weights.

    Returns:
        A table with one row a level and rate (value: the mean over seeds, for critical lengths the
        median, which an infinite one does not spoil), and one with Kendall's tau of each quantity
        with the learning rate, averaged over the levels; low and high bound 95 % intervals.
    """
    levels_rows: list[dict[str, Any]] = []
    order_rows: list[dict[str, Any]] = []
    for (quantity, mode, metric), runs in quantities.items():
        if not runs:
            continue
        rates = sorted({run.lr for run in runs}, key=float)
        resamples = runs[0].replicates.shape[1]
        by_rate = {rate: [run for run in runs if run.lr == rate] for rate in rates}
        weights = {
            rate: seed_weights(len(same), resamples, seed + place)
            for place, (rate, same) in enumerate(by_rate.items())
        }
        for by, levels in ((EPOCH, epoch_levels(runs)), (LOSS, loss_levels(runs))):
            if len(levels) == 0:
                continue
            key = {"by": by, "quantity": quantity, "pair_mode": mode, "metric": metric}
            found = {
                rate: [at_levels(run, by, levels) for run in same] for rate, same in by_rate.items()
            }
            for rate, of_seeds in found.items():
                values = np.stack([value for value, _ in of_seeds])  # [S, L]
                replicates = np.stack([one for _, one in of_seeds])  # [S, L, R]
                center, low, high = _over_seeds(
                    values, replicates, weights[rate], quantity.startswith("xi")
                )
                levels_rows += [
                    key
                    | {"level": level, "lr": rate, "value": c, "low": a, "high": b}
                    | {"seeds": len(of_seeds)}
                    for level, c, a, b in zip(levels, center, low, high, strict=True)
                ]
            if len(rates) < 2:
                continue
            ones = [np.full((len(found[rate]), 1), 1 / len(found[rate])) for rate in rates]
            taus, resampled = [], []
            for place in range(len(levels)):
                exact = [np.stack([v[place] for v, _ in found[rate]])[:, None] for rate in rates]
                drawn = [np.stack([r[place] for _, r in found[rate]]) for rate in rates]
                taus.append(kendall_tau(exact, ones)[0])
                resampled.append(kendall_tau(drawn, [weights[rate] for rate in rates]))
            # Student's t weighs a seed by less than 0 now and then; no order exceeds 1.
            means = np.clip(np.stack(resampled).mean(0), -1, 1)
            low, high = percentile_interval(means)
            order_rows.append(
                key
                | {"tau": float(np.mean(taus)), "low": float(low), "high": float(high)}
                | {"levels": len(levels), "rates": len(rates)}
            )
    return (
        pd.DataFrame(levels_rows, columns=LEVEL_COLUMNS),
        pd.DataFrame(order_rows, columns=ORDER_COLUMNS),
    )


def _over_seeds(
    values: Floats, replicates: Floats, weights: Floats, lengths: bool
) -> tuple[Floats, Floats, Floats]:
    """Mean (median of critical lengths) over seeds [S, L], and the ends of its interval, [L]."""
    if not lengths:
        low, high = percentile_interval(np.einsum("slr,sr->lr", replicates, weights))
        return values.mean(0), low, high
    # Infinite lengths have no mean; each seed's interval is kept, from the lowest to the highest.
    ends = percentile_interval(replicates)
    return np.median(values, axis=0), ends[0].min(0), ends[1].max(0)
