"""Several seeds of one experiment: their mean, and how far it can be trusted.

Runs that differ in their seed are few, often three, and to draw among three anew covers the truth
far less often than the interval says. So the seeds' part of an interval is Student's: their mean
errs by s / sqrt(S) times a variable of the t distribution with S - 1 degrees of freedom. The
examples are the same for every seed; their part does not shrink with the number of seeds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stiffness.measures.bootstrap import COVERAGE
from stiffness.measures.pairs import Floats


def seed_weights(seeds: int, resamples: int, seed: int) -> Floats:
    """Draw the weights of seeds in each resample.

    The mean over seeds with such weights varies about the plain mean as Student's t with S - 1
    degrees of freedom times s / sqrt(S), where s is the seeds' standard deviation: the sampling
    error of the mean of normal variables.

    Args:
        seeds: the number S of seeds.
        resamples: the number R of resamples.
        seed: random seed of the draws.

    Returns:
        [S, R]; each column adds up to 1, and a weight can be negative. One seed has weight 1.
    """
    if seeds == 1:
        return np.ones((1, resamples))
    generator = np.random.default_rng(seed)
    normal = generator.standard_normal((seeds, resamples))
    normal -= normal.mean(0)  # on average of variance (S - 1) / S
    spread = np.sqrt((seeds - 1) / generator.chisquare(seeds - 1, resamples))
    return 1 / seeds + normal * spread / np.sqrt(seeds * (seeds - 1))


def student_interval(values: Floats, coverage: float = COVERAGE) -> tuple[float, float, float]:
    """Average one number per run, with its interval by Student's t.

    Args:
        values: [S], one number per run; an infinite one makes the mean infinite.
        coverage: of the interval.

    Returns:
        The mean and the ends of its interval. The ends are NaN where there is one run, or where the
        mean is not finite.
    """
    mean = float(np.mean(values))
    if len(values) < 2 or not np.isfinite(mean):
        return mean, np.nan, np.nan
    from scipy.special import stdtrit

    quantile = float(stdtrit(len(values) - 1, (1 + coverage) / 2))
    half = quantile * float(np.std(values, ddof=1)) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def seed_means(table: pd.DataFrame, by: Sequence[str], neighbours: int = 0) -> pd.DataFrame:
    """Average over seeds; the interval covers both examples and seeds.

    Args:
        table: value, low and high, with one row per seed for each value of the columns ``by``.
        by: names of the columns that tell the averages from each other.
        neighbours: averages on either side, in the order of ``by``, with which the variance
            between seeds is pooled, with weights that fall linearly. Of three seeds it is so
            poorly known that a band of separate intervals has spikes. Neighbours are checkpoints
            of the same runs and not independent, so the degrees of freedom stay S - 1.

    Returns:
        The columns ``by``, value, low, high. The half-widths of the two parts add in squares; the
        interval of a single seed stays as it is.
    """
    sides = {"low": table["value"] - table["low"], "high": table["high"] - table["value"]}
    squares = {f"_{name}": side.clip(lower=0) ** 2 for name, side in sides.items()}
    grouped = table.assign(**squares).groupby(list(by), sort=True)
    result = grouped.agg(
        value=("value", "mean"),
        _low=("_low", "mean"),
        _high=("_high", "mean"),
        _between=("value", "var"),
        _seeds=("value", "count"),
    ).reset_index()
    between: pd.Series | float = 0.0
    if (result["_seeds"] > 1).any():
        from scipy.special import stdtrit  # pictures of one seed start sooner without it

        quantile = stdtrit((result["_seeds"] - 1).clip(lower=1), (1 + COVERAGE) / 2)
        pooled = pool(result["_between"], neighbours)
        between = (quantile**2 * pooled / result["_seeds"]).fillna(0)
    result["low"] = result["value"] - np.sqrt(result["_low"] + between)
    result["high"] = result["value"] + np.sqrt(result["_high"] + between)
    return result.drop(columns=["_low", "_high", "_between", "_seeds"])


def pool(variances: pd.Series, neighbours: int) -> pd.Series:
    """Average each variance with its neighbours, by weights that fall linearly; NaN is left out.

    >>> pool(pd.Series([0.0, 0.0, 4.0, 0.0]), 1).tolist()
    [0.0, 1.0, 2.0, 1.3333333333333333]
    """
    if not neighbours:
        return variances
    kernel = np.bartlett(2 * neighbours + 3)[1:-1]
    known = variances.notna().to_numpy(float)
    # "full" and cut: "same" gives as many numbers as the longer of the two has.
    ends = slice(neighbours, neighbours + len(variances))
    total = np.convolve(variances.fillna(0).to_numpy(float), kernel)[ends]
    weight = np.convolve(known, kernel)[ends]
    pooled = np.divide(total, weight, out=np.full(len(variances), np.nan), where=weight > 0)
    return pd.Series(pooled, index=variances.index)
