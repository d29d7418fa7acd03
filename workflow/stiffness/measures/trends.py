"""Is a quantity ordered, in run after run? Page's trend test, with one number per run."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from stiffness.measures.pairs import Floats
from stiffness.measures.seeds import student_interval


@dataclass(frozen=True)
class Trend:
    """How the columns of a table are ordered in each of its rows.

    Attributes:
        tau: Kendall's tau of the values with their columns, the mean over rows: the size of the
            effect. It is 1 where every row rises and -1 where every row falls.
        low, high: its 95 % interval by Student's t over rows, within [-1, 1]; NaN with one row.
        p_falls: one-sided p-value of Page's exact test for a fall; NaN with one row or two columns.
        p_rises: the same for a rise.
    """

    tau: float
    low: float
    high: float
    p_falls: float
    p_rises: float


def kendall_tau(values: Floats) -> float:
    """Compute Kendall's tau of values [k] with their places: the mean sign of later minus earlier.

    Infinite values are the largest and equal to each other.
    """
    signs = [float(late > early) - float(late < early) for early, late in combinations(values, 2)]
    return float(np.mean(signs)) if signs else float("nan")


def page_trend(values: Floats) -> Trend:
    """Test whether values fall or rise from column to column, alike in all rows.

    Rows are blocks: only the order within a row counts, so that runs which differ in level can be
    compared. Under the null hypothesis all orders of a row are equally likely. With three rows of
    five columns of normal noise, each test at the level 0.05 errs in at most 5 % of the tables.

    Args:
        values: [S, k], one number per run: S seeds by k learning rates or stages. An infinite value
            is the largest.

    Returns:
        The trend; all NaN where a value is undefined.

    Examples:
        >>> trend = page_trend(np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 7.0], [6.0, 5.0, 4.0]]))
        >>> trend.tau, round(trend.p_falls, 4), trend.p_rises
        (-1.0, 0.0046, 1.0)
    """
    from scipy.stats import page_trend_test, rankdata

    if np.isnan(values).any():
        return Trend(*[float("nan")] * 5)
    taus = np.array([kendall_tau(row) for row in values])
    tau, low, high = student_interval(taus)
    falls = rises = float("nan")
    seeds, columns = values.shape
    if seeds > 1 and columns > 2:
        ranks, places = rankdata(values, axis=1), np.arange(1, columns + 1)
        falls, rises = (
            float(
                page_trend_test(
                    ranks, ranked=True, predicted_ranks=predicted, method="exact"
                ).pvalue
            )
            for predicted in (places[::-1], places)
        )
    return Trend(tau, max(low, -1.0), min(high, 1.0), falls, rises)
