"""Stiffness of same-class pairs against their distance, and xi (sections 2.5, 4.4, 4.5).

xi is where stiffness reaches 0, estimated in two ways. The paper's: a line fitted to all same-class
pairs. It is a measurement only where the data reach: outside the range of the pairs it is an
extrapolation, and a line that does not fall has no crossing at all. Beside it the zero of the best
fit that falls monotonically, which assumes no line and never extrapolates: a monotone fit changes
its sign where the running sum of stiffness, over pairs in the order of distance, is largest.
Intervals are bootstrap percentiles; see ``bootstrap``.
"""

from dataclasses import dataclass

import numpy as np

from stiffness.stiffness.bootstrap import Singles, percentile_interval
from stiffness.stiffness.pairs import Bools, Floats, Ints

# A fall over the whole range of distances below this is rounding of float32 cosines, not a slope.
_FLAT = 1e-6
_NUMBERS = 2**26  # pair weights held at once, 4 bytes each
_CUTS = 512

ESTIMATORS = ("line", "monotone")
MEASURED, EXTRAPOLATED, BEYOND, NONE = "measured", "extrapolated", "beyond the data", "none"


@dataclass(frozen=True)
class ClassPairs:
    """Same-class pairs of one mode as lists, in the order of distance.

    Attributes:
        first, second: [P] example numbers, as in the matrix.
        distances: [P], in [0, 2], ascending.
    """

    first: Ints
    second: Ints
    distances: Floats


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
    order = np.argsort(distances[first, second], kind="stable")
    first, second = first[order], second[order]
    return ClassPairs(first, second, distances[first, second].astype(np.float64))


def defined_pairs(pairs: ClassPairs, defined: Bools) -> ClassPairs:
    """Without the pairs of an example that is not ``defined`` [N]."""
    keep = defined[pairs.first] & defined[pairs.second]
    return ClassPairs(pairs.first[keep], pairs.second[keep], pairs.distances[keep])


@dataclass(frozen=True)
class Bins:
    """Mean stiffness in bins of distance; empty bins are left out. All [B]."""

    distance: Floats
    value: Floats
    low: Floats
    high: Floats
    num_pairs: Ints


@dataclass(frozen=True)
class CriticalLength:
    """Where stiffness reaches 0.

    Attributes:
        estimator: "line" or "monotone".
        crossing: "measured" (within the data), "extrapolated" (where a line crosses 0 outside
            their range), "beyond the data" (a monotone fit is above 0 as far as they reach) or
            "none" (the slope's 95 % interval reaches 0 or is undefined, or stiffness is not above
            0 even at the shortest distances).
        value, low, high: of xi; NaN where there is no crossing. ``high`` is infinite where more
            than 2.5 % of the resamples have no crossing.
        slope, intercept, slope_low, slope_high: of the line; NaN for the monotone fit.
        max_distance: of the pairs in the fit.
        replicates: [R], xi of every resample; infinite where it has no crossing.
    """

    estimator: str
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
    replicates: Floats


@dataclass(frozen=True)
class DistanceStiffness:
    """Everything about one set of pairs; ``lengths`` holds one critical length an estimator."""

    bins: Bins
    lengths: list[CriticalLength]


class ResampledPairs:
    """Pairs in bins of distance, with how often each is in each resample of the examples.

    One of these serves all checkpoints and metrics for which the pairs are the same.
    """

    def __init__(self, pairs: ClassPairs, edges: Floats, weights: Singles) -> None:
        """``edges`` [B + 1] of the bins, the last one closed; ``weights`` [R, N] of examples."""
        self.pairs, self.weights = pairs, weights
        self.center = float(pairs.distances.mean()) if len(pairs.distances) else 0.0
        self.moved = pairs.distances - self.center  # keeps the sums of a flat line exact
        count = len(edges) - 1
        index = np.searchsorted(edges, pairs.distances, side="right") - 1
        self.bins = np.clip(index, 0, count - 1)
        # The replicates' monotone fits resolve distance by these cuts, the bins' edges among them.
        every = max(1, -(-len(self.bins) // _CUTS))
        steps = (np.diff(self.bins, prepend=-1) > 0) | (np.arange(len(self.bins)) % every == 0)
        self.cuts = np.flatnonzero(steps)
        self.size = max(1, _NUMBERS // max(1, len(self.bins)))
        self.kept = self._chunk(0) if self.size >= len(weights) else None
        self.space: Singles | None = None
        self.counts: Floats | None = None  # filled with the first values: [R, cuts], [R, 3]
        self.line_sums: Floats | None = None

    def _chunk(self, begin: int) -> Singles:
        part = self.weights[begin : begin + self.size]
        return part[:, self.pairs.first] * part[:, self.pairs.second]

    def _buffer(self, shape: tuple[int, ...]) -> Singles:
        if self.space is None or self.space.shape != shape:
            self.space = np.empty(shape, np.float32)
        return self.space

    def sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Of R resamples: sums of ``values`` [P] between cuts [R, cuts], and of the line's normal
        equations [R, 5]: n, x, x x, y, x y."""
        x = np.stack([np.ones_like(self.moved), self.moved, self.moved**2], 1)
        y = np.stack([values, self.moved * values], 1)
        single = values.astype(np.float32)
        by_cut, by_x, by_y, counts = [], [], [], []
        for begin in range(0, len(self.weights), self.size):
            chunk = self._chunk(begin) if self.kept is None else self.kept
            by_y.append(chunk @ y.astype(np.float32))
            # Into the same memory every time: new pages cost more than the product.
            weighted = np.multiply(chunk, single, out=self._buffer(chunk.shape))
            by_cut.append(np.add.reduceat(weighted, self.cuts, axis=1))
            if self.counts is None:
                counts.append(np.add.reduceat(chunk, self.cuts, axis=1))
                by_x.append(chunk @ x.astype(np.float32))
        if self.counts is None or self.line_sums is None:
            self.counts = np.concatenate(counts).astype(np.float64)
            self.line_sums = np.concatenate(by_x).astype(np.float64)
        line = np.concatenate([self.line_sums, np.concatenate(by_y)], 1)
        return np.concatenate(by_cut).astype(np.float64), line


def distance_stiffness(resampled: ResampledPairs, values: Floats) -> DistanceStiffness:
    """Bins of distance and critical lengths of pairs with stiffness ``values`` [P]."""
    pairs = resampled.pairs
    if len(values) == 0:
        empty = np.zeros(0)
        nothing = Bins(empty, empty, empty, empty, np.zeros(0, np.int64))
        number = len(resampled.weights)
        return DistanceStiffness(nothing, [_no_length(name, pairs, number) for name in ESTIMATORS])
    by_cut, line = resampled.sums(values)
    starts = np.flatnonzero(np.diff(resampled.bins[resampled.cuts], prepend=-1))
    assert resampled.counts is not None
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.add.reduceat(by_cut, starts, axis=1) / np.add.reduceat(
            resampled.counts, starts, axis=1
        )
    low, high = percentile_interval(means)
    numbers = np.bincount(resampled.bins)
    full = numbers > 0
    distance = np.bincount(resampled.bins, pairs.distances)[full] / numbers[full]
    value = np.bincount(resampled.bins, values)[full] / numbers[full]
    bins = Bins(distance, value, low, high, numbers[full])
    return DistanceStiffness(
        bins, [_line_length(resampled, values, line), _monotone_length(resampled, values, by_cut)]
    )


def _line_length(resampled: ResampledPairs, values: Floats, sums: Floats) -> CriticalLength:
    """Least squares over all pairs, not over bins, so that no bin width enters."""
    pairs, moved, number = resampled.pairs, resampled.moved, len(values)
    if number < 3 or np.ptp(pairs.distances) == 0:
        return _no_length("line", pairs, len(sums))
    totals = (number, moved.sum(), (moved**2).sum(), values.sum(), (moved * values).sum())
    slope, height = (float(one) for one in _line(*(np.asarray(total) for total in totals)))
    slopes, heights = _line(*sums.T)
    slope_low, slope_high = (float(end) for end in percentile_interval(slopes))
    falls = -slope * np.ptp(pairs.distances) > _FLAT and slope_high < 0
    xi = resampled.center - height / slope if falls else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.where(slopes < 0, resampled.center - heights / slopes, np.inf)
    line = {
        "estimator": "line",
        "slope": slope,
        "slope_low": slope_low,
        "slope_high": slope_high,
        "intercept": height - slope * resampled.center,
        "max_distance": float(pairs.distances[-1]),
        "num_pairs": number,
        "replicates": others,
    }
    if not (falls and xi > 0):
        return CriticalLength(crossing=NONE, value=np.nan, low=np.nan, high=np.nan, **line)  # type: ignore[arg-type]
    inside = pairs.distances[0] <= xi <= pairs.distances[-1]
    low, high = (float(end) for end in percentile_interval(others))
    crossing = MEASURED if inside else EXTRAPOLATED
    return CriticalLength(crossing=crossing, value=float(xi), low=low, high=high, **line)  # type: ignore[arg-type]


def _monotone_length(resampled: ResampledPairs, values: Floats, by_cut: Floats) -> CriticalLength:
    """The fit's change of sign; see the module's docstring."""
    pairs = resampled.pairs
    place = _peak(np.cumsum(values)[None])[0]
    if place == 0:
        return _no_length("monotone", pairs, len(by_cut))
    xi = _distance_at(pairs.distances, np.array([place]))[0]
    ends = np.append(resampled.cuts[1:], len(values))  # of the cuts, in pairs
    places = np.concatenate([[0], ends])[_peak(np.cumsum(by_cut, axis=1))]
    others = _distance_at(pairs.distances, places)
    low, high = (float(end) for end in percentile_interval(others))
    missing = dict.fromkeys(("slope", "slope_low", "slope_high", "intercept"), np.nan)
    return CriticalLength(
        estimator="monotone",
        crossing=MEASURED if np.isfinite(xi) else BEYOND,
        value=float(xi) if np.isfinite(xi) else np.nan,
        low=low,
        high=high,
        max_distance=float(pairs.distances[-1]),
        num_pairs=len(values),
        replicates=others,
        **missing,
    )


def _peak(running: Floats) -> Ints:
    """[R]: how many terms of each running sum [R, K] end at its largest value; 0 if none is
    above 0."""
    return np.where(running.max(1) > 0, running.argmax(1) + 1, 0)


def _distance_at(distances: Floats, places: Ints) -> Floats:
    """Half-way between pair ``place`` and the next; 0 before the first, infinite after the last."""
    between = np.concatenate([[0], (distances[:-1] + distances[1:]) / 2, [np.inf]])
    return between[places]


def _no_length(estimator: str, pairs: ClassPairs, resamples: int) -> CriticalLength:
    names = ("value", "low", "high", "slope", "slope_low", "slope_high", "intercept")
    number = len(pairs.distances)
    return CriticalLength(
        estimator=estimator,
        crossing=NONE,
        max_distance=float(pairs.distances[-1]) if number else np.nan,
        num_pairs=number,
        replicates=np.full(resamples, np.inf),
        **dict.fromkeys(names, np.nan),
    )


def _line(n: Floats, x: Floats, xx: Floats, y: Floats, xy: Floats) -> tuple[Floats, Floats]:
    """Slope, and height at x = 0, from the sums of the normal equations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * xx - x * x
        # Of one pair, or of pairs at one distance, nothing but rounding is left of the spread.
        slope = (n * xy - x * y) / np.where(spread > 1e-9 * n * xx, spread, np.nan)
        return slope, (y - slope * x) / n
