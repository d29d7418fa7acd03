"""Stiffness of same-class pairs against their input distance, and xi (sections 2.5, 4.4, 4.5).

xi is where a line fitted to all same-class pairs crosses 0. It is a measurement only where the data
reach: outside the range of the pairs it is an extrapolation, and a line that does not fall has no
crossing at all. Errors are delete-one-example jackknife errors, stratified by class and set.
"""

from dataclasses import dataclass

import numpy as np

from stiffness.stiffness.pairs import Bools, Floats, Ints, interval

# A fall over the whole range of distances below this is rounding of float32 cosines, not a slope.
_FLAT = 1e-6

MEASURED, EXTRAPOLATED, NONE = "measured", "extrapolated", "none"


@dataclass(frozen=True)
class ClassPairs:
    """Same-class pairs of one mode as lists; examples are numbered as in the matrix.

    Attributes:
        first, second: [P] example numbers.
        distances: [P], in [0, 2].
        strata: [N], the (class, set) an example was drawn from.
    """

    first: Ints
    second: Ints
    distances: Floats
    strata: Ints


def same_class_pairs(distances: np.ndarray, classes: Ints, num_train: int, mode: str) -> ClassPairs:
    """All pairs of one class in one mode: each unordered pair once, no example with itself.

    Args:
        distances: [N, N] over [training subset ; validation subset].
    """
    number = len(classes)
    training = np.arange(number) < num_train
    same = classes[:, None] == classes[None, :]
    if mode == "train-val":
        chosen = same & training[:, None] & ~training[None, :]
    else:
        inside = training if mode == "train-train" else ~training
        chosen = np.triu(same & inside[:, None] & inside[None, :], k=1)
    first, second = np.nonzero(chosen)
    strata = classes * 2 + training
    return ClassPairs(first, second, distances[first, second].astype(np.float64), strata)


def defined_pairs(pairs: ClassPairs, defined: Bools) -> ClassPairs:
    """Without the pairs of an example that is not ``defined`` [N]."""
    keep = defined[pairs.first] & defined[pairs.second]
    return ClassPairs(pairs.first[keep], pairs.second[keep], pairs.distances[keep], pairs.strata)


@dataclass(frozen=True)
class Bins:
    """Mean stiffness in bins of distance; empty bins are left out. All [B]."""

    distance: Floats
    value: Floats
    error: Floats
    num_pairs: Ints


def binned(pairs: ClassPairs, values: Floats, edges: Floats) -> Bins:
    """Means over the pairs in each bin of distance.

    Args:
        values: [P] stiffness of the pairs.
        edges: [B + 1]; the last bin includes its right edge.
    """
    count = len(edges) - 1
    index = np.clip(np.searchsorted(edges, pairs.distances, side="right") - 1, 0, count - 1)
    numbers = np.bincount(index, minlength=count)
    sums = np.bincount(index, values, count)
    example_numbers = _per_example(pairs, index, np.ones_like(values), count)
    example_sums = _per_example(pairs, index, values, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = numbers - example_numbers
        left_out = (sums - example_sums) / np.where(left > 0, left, np.nan)
        means = sums / numbers
        distance = np.bincount(index, pairs.distances, count) / numbers
    error = jackknife_error(left_out, pairs.strata, _members(pairs))
    full = numbers > 0
    return Bins(distance[full], means[full], error[full], numbers[full])


@dataclass(frozen=True)
class CriticalLength:
    """A line fitted to stiffness against distance, and where it crosses 0.

    Attributes:
        crossing: "measured" (within the data), "extrapolated" (outside their range) or "none"
            (the slope's 95 % interval reaches 0 or is undefined, or the line is below 0
            throughout).
        value, low, high: of xi; NaN where there is no crossing.
        slope, intercept, slope_low, slope_high: of the line.
        max_distance: of the pairs in the fit.
    """

    crossing: str
    value: float
    low: float
    high: float
    slope: float
    slope_low: float
    slope_high: float
    intercept: float
    max_distance: float
    num_pairs: int


def critical_length(pairs: ClassPairs, values: Floats) -> CriticalLength:
    """Least squares over all pairs ``values`` [P], not over bins, so that no bin width enters."""
    number = len(values)
    if number < 3 or np.ptp(pairs.distances) == 0:
        nothing = float(pairs.distances.max()) if number else np.nan
        fields = ("value", "low", "high", "slope", "slope_low", "slope_high", "intercept")
        undefined = dict.fromkeys(fields, np.nan)
        return CriticalLength(crossing=NONE, max_distance=nothing, num_pairs=number, **undefined)
    center = pairs.distances.mean()  # keeps the sums of a flat line exact
    moved = pairs.distances - center
    terms = np.stack([np.ones(number), moved, moved**2, values, moved * values])
    totals = terms.sum(1)
    zeros = np.zeros(number, np.int64)
    parts = np.concatenate([_per_example(pairs, zeros, term, 1) for term in terms], axis=1)
    slope, height = _line(*totals)
    slopes, heights = _line(*(totals - parts).T)
    members = _members(pairs)
    slope_error = float(jackknife_error(slopes[:, None], pairs.strata, members)[0])
    slope_low, slope_high = (float(end) for end in interval(slope, slope_error))
    farthest = float(pairs.distances.max())
    intercept = float(height - slope * center)
    fall = -slope * np.ptp(pairs.distances)
    falls = fall > _FLAT and slope_high < 0  # undefined errors decide nothing
    xi = float(center - height / slope) if falls else np.nan
    crossing, low, high = NONE, np.nan, np.nan
    if falls and xi > 0:
        crossing = MEASURED if pairs.distances.min() <= xi <= farthest else EXTRAPOLATED
        with np.errstate(divide="ignore", invalid="ignore"):
            left_out = center - heights / slopes
        error = float(jackknife_error(left_out[:, None], pairs.strata, members)[0])
        low, high = (float(end) for end in interval(xi, error))
    else:
        xi = np.nan
    return CriticalLength(
        crossing, xi, low, high, float(slope), slope_low, slope_high, intercept, farthest, number
    )


def jackknife_error(left_out: Floats, strata: Ints, members: Bools) -> Floats:
    """Stratified delete-one jackknife standard errors.

    Args:
        left_out: [N, K]; K statistics without example i.
        strata: [N].
        members: [N]; examples that take part at all.

    Returns:
        [K]; NaN where a stratum has one member or a statistic vanishes with an example.
    """
    variance = np.zeros(left_out.shape[1])
    for stratum in np.unique(strata[members]):
        values = left_out[members & (strata == stratum)]
        if len(values) < 2:
            return np.full(left_out.shape[1], np.nan)
        variance += (len(values) - 1) * values.var(axis=0)
    return np.sqrt(variance)


def _members(pairs: ClassPairs) -> Bools:
    members = np.zeros(len(pairs.strata), bool)
    members[pairs.first] = members[pairs.second] = True
    return members


def _per_example(pairs: ClassPairs, index: Ints, weights: Floats, count: int) -> Floats:
    """[N, count]: sums of ``weights`` [P] over the pairs an example takes part in, by ``index``."""
    number = len(pairs.strata)
    first = np.bincount(pairs.first * count + index, weights, number * count)
    second = np.bincount(pairs.second * count + index, weights, number * count)
    return (first + second).astype(np.float64).reshape(number, count)


def _line(n: Floats, x: Floats, xx: Floats, y: Floats, xy: Floats) -> tuple[Floats, Floats]:
    """Slope, and height at x = 0, from the sums of the normal equations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * xx - x * x
        # Of one pair, or of pairs at one distance, nothing but rounding is left of the spread.
        slope = (n * xy - x * y) / np.where(spread > 1e-9 * n * xx, spread, np.nan)
        return slope, (y - slope * x) / n
