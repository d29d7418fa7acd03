"""Learning rates side by side: at equal epoch, and at equal training loss (claims C12, C13, C18).

Levels and interpolation are those of ``equal_loss``. The example resamples of all runs are the same
draws, and seeds get Student weights (see ``seeds``), so that every difference has an interval.

How a quantity is ordered by the learning rate is one number per run, its mean over the levels, and
Page's trend test over these numbers with the seeds as blocks; see ``trends``. It needs no line, and
an infinite critical length ("no crossing") is simply the largest.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.equal_loss import EPOCH, LOSS, epoch_grid, loss_grid, run_at_levels
from stiffness.measures.pairs import Floats
from stiffness.measures.replicates import RunValues
from stiffness.measures.seeds import seed_weights
from stiffness.measures.trends import page_trend

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
ORDER_COLUMNS = [
    "by",
    "quantity",
    "pair_mode",
    "metric",
    "tau",
    "low",
    "high",
    "p_falls",
    "p_rises",
    "levels",
    "rates",
    "seeds",
]


def compare(
    quantities: Mapping[tuple[str, str, str], Sequence[RunValues]], seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare learning rates at equal epoch and at equal loss, in every quantity.

    Args:
        quantities: the runs that are alive, by (quantity, pair mode, metric).
        seed: random seed of the weights of the runs' seeds.

    Returns:
        A table with one row per level and rate, whose value is the mean over seeds (for critical
        lengths the median, which an infinite one does not spoil); and a table with one row per
        quantity: Kendall's tau with the learning rate and the p-values of Page's test, over the
        seeds that are alive at every rate. The columns low and high bound 95 % intervals.
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
        for by, levels in ((EPOCH, epoch_grid(runs)), (LOSS, loss_grid(runs))):
            if len(levels) == 0:
                continue
            key = {"by": by, "quantity": quantity, "pair_mode": mode, "metric": metric}
            found = {
                rate: [run_at_levels(run, by, levels) for run in same]
                for rate, same in by_rate.items()
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
            numbers = {
                (run.lr, run.seed): float(value.mean())
                for rate in rates
                for run, (value, _) in zip(by_rate[rate], found[rate], strict=True)
            }
            seeds = sorted(set.intersection(*({run.seed for run in by_rate[r]} for r in rates)))
            if not seeds:
                continue
            trend = page_trend(np.array([[numbers[r, seed] for r in rates] for seed in seeds]))
            of_order = {"levels": len(levels), "rates": len(rates), "seeds": len(seeds)}
            order_rows.append(key | vars(trend) | of_order)
    return (
        pd.DataFrame(levels_rows, columns=LEVEL_COLUMNS),
        pd.DataFrame(order_rows, columns=ORDER_COLUMNS),
    )


def _over_seeds(
    values: Floats, replicates: Floats, weights: Floats, lengths: bool
) -> tuple[Floats, Floats, Floats]:
    """Average values [S, L] over seeds (lengths: take the median); return it, low and high [L]."""
    if not lengths:
        low, high = percentile_interval(np.einsum("slr,sr->lr", replicates, weights))
        return values.mean(0), low, high
    # Infinite lengths have no mean: the interval reaches from the lowest seed's to the highest's.
    ends = percentile_interval(replicates)
    return np.median(values, axis=0), ends[0].min(0), ends[1].max(0)
