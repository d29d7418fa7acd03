"""Stiffness of same-class pairs against their distance, and xi (Sections 2.5, 4.4 and 4.5).

The critical length xi is where stiffness reaches 0. It is estimated in two ways. The paper fits a
line to all same-class pairs. Its zero is a measurement only within the range of the pairs; outside
it is an extrapolation, and a line that does not fall has no zero. The other estimate is the zero of
the best fit that falls monotonically, which assumes no line and never extrapolates: a monotone fit
changes its sign where the running sum of stiffness, over pairs by distance, is largest.
Intervals are bootstrap percentiles; see ``bootstrap``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stiffness.measures.bootstrap import Floats32, lone_examples, percentile_interval
from stiffness.measures.pairs import Bools, Floats, Ints, Tile, mode_ranges

Numbers = npt.NDArray[np.integer]
Distances = Callable[[Ints, Ints], npt.NDArray[np.floating]]
"""Gives the distances [n, m] between examples, from their numbers [n] and [m]."""

# A fall over the whole range of distances below this is rounding of float32 cosines, not a slope.
_FLAT = 1e-6
_CHUNK = 2**19  # weights of pairs held at once, 4 bytes each
_BLOCK = 2**20  # pairs whose float64 terms are held at once
_CUTS = 512

ESTIMATORS = ("line", "monotone")
MEASURED, EXTRAPOLATED, BEYOND, NONE = "measured", "extrapolated", "beyond the data", "none"


@dataclass(frozen=True)
class ClassPairs:
    """The P same-class pairs of one mode, in the order of distance.

    Attributes:
        first, second: [P], example numbers in the evaluation subset.
        distances: [P], in [0, 2] (Eq. 8), ascending.
    """

    first: Numbers
    second: Numbers
    distances: Floats

    def fill(self, values: npt.NDArray[np.floating], tile: Tile) -> None:
        """Copy the cosines of the pairs that a tile has to ``values`` [P]."""
        rows, columns = tile.rows, tile.columns
        for part in _blocks(len(values)):
            first, second = self.first[part], self.second[part]
            there = (first >= rows.start) & (first < rows.stop)
            there &= (second >= columns.start) & (second < columns.stop)
            values[part][there] = tile.values[
                first[there] - rows.start, second[there] - columns.start
            ]


def distances_from_matrix(matrix: npt.NDArray[np.floating]) -> Distances:
    """Look distances up in a matrix [N, N] over [training subset ; validation subset]."""
    return lambda rows, columns: matrix[np.ix_(rows, columns)]


def same_class_pairs(distances: Distances, classes: Ints, num_train: int, mode: str) -> ClassPairs:
    """List the same-class pairs of a mode: each unordered pair once, no example with itself.

    This works class by class. Memory holds the pairs, 16 bytes each, and a block of distances.

    Args:
        distances: between examples of the evaluation subset.
        classes: [N].
        num_train, mode: as for ``pairs.mode_ranges``.
    """
    rows, columns = mode_ranges(num_train, len(classes), mode)
    members = [
        (
            rows.start + np.flatnonzero(classes[rows] == label),
            columns.start + np.flatnonzero(classes[columns] == label),
        )
        for label in np.unique(classes)
    ]
    # In one set (i, j) and (j, i) are one pair; training examples come before the others.
    number = sum(int((ours[:, None] < theirs).sum()) for ours, theirs in members)
    first, second = np.empty(number, np.int32), np.empty(number, np.int32)
    apart = np.empty(number)
    begin = 0
    for ours, theirs in members:
        size = max(1, _BLOCK // max(1, len(theirs)))
        for some in (ours[at : at + size] for at in range(0, len(ours), size)):
            i, j = np.nonzero(some[:, None] < theirs)
            part = slice(begin, begin + len(i))
            first[part], second[part] = some[i], theirs[j]
            apart[part] = distances(some, theirs)[i, j]
            begin = part.stop
    order = np.argsort(apart, kind="stable")
    return ClassPairs(first[order], second[order], apart[order])


def both_defined(pairs: ClassPairs, defined: Bools) -> Bools:
    """Which pairs have two examples that are ``defined`` [N], bool [P]."""
    return np.asarray(defined[pairs.first] & defined[pairs.second])


def defined_pairs(pairs: ClassPairs, defined: Bools) -> ClassPairs:
    """Drop the pairs of examples that are not ``defined``, bool [N]."""
    keep = both_defined(pairs, defined)
    return ClassPairs(pairs.first[keep], pairs.second[keep], pairs.distances[keep])


def _blocks(number: int) -> list[slice]:
    return [slice(at, min(at + _BLOCK, number)) for at in range(0, number, _BLOCK)]


@dataclass(frozen=True)
class Bins:
    """Mean stiffness in bins of distance; empty bins are left out.

    Attributes:
        distance, value: [B], means over the pairs of a bin.
        low, high: [B], ends of a 95 % bootstrap interval over examples.
        num_pairs: [B].
    """

    distance: Floats
    value: Floats
    low: Floats
    high: Floats
    num_pairs: Ints


@dataclass(frozen=True)
class CriticalLength:
    """The distance xi at which stiffness reaches 0 (Section 4.5).

    Attributes:
        estimator: "line" or "monotone".
        crossing: "measured" (within the data), "extrapolated" (where a line crosses 0 outside
            their range), "beyond the data" (a monotone fit is above 0 as far as they reach) or
            "none" (the slope's 95 % interval reaches 0 or is undefined, or stiffness is not above
            0 even at the shortest distances).
        value: of xi; NaN where the data hold no crossing.
        low, high: NaN where the crossing is "none". ``high`` is infinite where more than 2.5 % of
            the resamples have no crossing; beyond the data, ``low`` still bounds xi from below, at
            most by the farthest pair.
        slope, intercept, slope_low, slope_high: of the line; NaN for the monotone fit.
        max_distance: of the pairs in the fit.
        replicates: [R], xi of every resample: infinite where its line does not fall or its
            monotone fit stays above 0, 0 where stiffness is not above 0 even at the shortest
            distances, NaN where a resample holds too few pairs.
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
    """Bins and critical lengths of one set of pairs; ``lengths`` has one entry per estimator."""

    bins: Bins
    lengths: list[CriticalLength]

    def of(self, estimator: str) -> CriticalLength:
        """The critical length by one estimator."""
        return next(one for one in self.lengths if one.estimator == estimator)

    @property
    def line(self) -> CriticalLength:
        """The paper's: where a line through all pairs crosses 0."""
        return self.of("line")


class ResampledPairs:
    """Pairs in bins of distance, with resamples of the examples.

    One object serves all checkpoints and metrics for which the pairs are the same. Since pairs are
    in the order of distance, bins and runs are ranges of them and take no memory per pair.

    Attributes:
        bins: the range of pairs of each bin that has any.
        cuts: [K], the first pair of each of K runs of pairs; every bin begins a run. The monotone
            fits of the resamples resolve distance by these runs.
        lone: [B'], whether a bin has a pair of an example that is alone in its stratum.
    """

    def __init__(self, pairs: ClassPairs, edges: Floats, weights: Floats32) -> None:
        """``edges`` [B + 1] of the bins, the last one closed; ``weights`` [N, R] of examples."""
        self.pairs, self.weights = pairs, weights
        distances = pairs.distances
        number = len(distances)
        self.center = float(distances.mean()) if number else 0.0
        ends = [0, *np.searchsorted(distances, edges[1:-1]).tolist(), number]
        self.bins = [slice(begin, end) for begin, end in pairwise(ends) if begin < end]
        alone = lone_examples(weights)
        self.lone = np.array(
            [(alone[pairs.first[b]] | alone[pairs.second[b]]).any() for b in self.bins], bool
        )
        self.cuts = self._runs()
        self._counts: tuple[Floats, Floats] | None = None  # filled with the first values

    def _runs(self) -> Ints:
        """Where runs begin: in even steps and with every bin, but pairs at one distance stay
        together."""
        distances = self.pairs.distances
        number = len(distances)
        even = np.arange(0, number, max(1, -(-number // _CUTS)))
        wanted = np.union1d(even, [part.start for part in self.bins]).astype(np.int64)
        split = (wanted > 0) & (distances[wanted] == distances[wanted - 1])
        after = np.searchsorted(distances, distances[wanted], side="right")
        begins = np.where(split, after, wanted)
        return np.unique(begins[begins < number])

    def moved(self, part: slice) -> Floats:
        """Distances from their mean, which keeps the sums of a flat line exact."""
        return self.pairs.distances[part] - self.center

    def totals(self, values: npt.NDArray[np.floating]) -> Floats:
        """Sums of n, x, x x, y, x y for the line's normal equations, [5]."""
        totals = np.zeros(5)
        for part in _blocks(len(values)):
            x, y = self.moved(part), values[part].astype(np.float64)
            totals += (len(x), x.sum(), (x**2).sum(), y.sum(), (x * y).sum())
        return totals

    def sums(self, values: npt.NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
        """Of every resample: the number of pairs in each run [K, R], the sum of ``values`` [P] over
        them [K, R], and the sums of the line's normal equations [5, R]: n, x, x x, y, x y."""

        def ones(part: slice) -> tuple[Floats, Floats]:
            x = self.moved(part)
            return np.ones(len(x)), np.stack([x, x**2])

        def measured(part: slice) -> tuple[Floats, Floats]:
            y = values[part].astype(np.float64)
            return y, (self.moved(part) * y)[None]

        if self._counts is None:
            counts, line = self._products(ones, 2)
            self._counts = counts, np.concatenate([counts.sum(0)[None], line])
        counts, line = self._counts
        by_cut, xy = self._products(measured, 1)
        return counts, by_cut, np.concatenate([line, by_cut.sum(0)[None], xy])

    def _products(
        self, terms: Callable[[slice], tuple[Floats, Floats]], others: int
    ) -> tuple[Floats, Floats]:
        """Weighted sums over each run [K, R], and over all pairs [M, R], of what ``terms`` gives of
        some pairs: [c] for the runs, and [M, c], M = ``others``.

        In chunks of pairs that fit a cache: the weights of all pairs are never held.
        """
        from scipy import sparse  # figures that need a constant of this room do without

        resamples, number = self.weights.shape[1], len(self.pairs.distances)
        size = max(1, _CHUNK // resamples)
        first, second = (np.empty((size, resamples), np.float32) for _ in range(2))
        ends = np.append(self.cuts, number)
        by_cut = np.zeros((len(self.cuts), resamples))
        totals = np.zeros((others, resamples))
        for begin in range(0, number, size):
            end = min(begin + size, number)
            weights, by = first[: end - begin], second[: end - begin]
            np.take(self.weights, self.pairs.first[begin:end], axis=0, out=weights, mode="clip")
            np.take(self.weights, self.pairs.second[begin:end], axis=0, out=by, mode="clip")
            weights *= by
            low, high = np.searchsorted(ends, [begin, end - 1], side="right")
            low, high = low - 1, high  # the runs that the chunk touches
            values, rest = (one.astype(np.float32) for one in terms(slice(begin, end)))
            chunk = sparse.csr_array(
                (
                    values,
                    np.arange(end - begin),
                    np.clip(ends[low : high + 1], begin, end) - begin,
                ),
                shape=(high - low, end - begin),
            )
            by_cut[low:high] += chunk @ weights
            totals += rest @ weights
        return by_cut, totals


def distance_stiffness(
    resampled: ResampledPairs, values: npt.NDArray[np.floating]
) -> DistanceStiffness:
    """Bins of distance and critical lengths (Sections 4.4 and 4.5).

    Args:
        resampled: P same-class pairs.
        values: [P], their stiffness.
    """
    pairs, resamples = resampled.pairs, resampled.weights.shape[1]
    if len(values) == 0:
        empty = np.zeros(0)
        nothing = Bins(empty, empty, empty, empty, np.zeros(0, np.int64))
        return DistanceStiffness(nothing, [_no_fit(name, pairs, resamples) for name in ESTIMATORS])
    counts, by_cut, line = resampled.sums(values)
    starts = np.searchsorted(resampled.cuts, [part.start for part in resampled.bins])
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.add.reduceat(by_cut, starts, axis=0) / np.add.reduceat(counts, starts, axis=0)
    means[resampled.lone] = np.nan
    low, high = percentile_interval(means)
    distance, value = (
        np.array([one[part].mean(dtype=np.float64) for part in resampled.bins])
        for one in (pairs.distances, values)
    )
    numbers = np.array([part.stop - part.start for part in resampled.bins], np.int64)
    bins = Bins(distance, value, low, high, numbers)
    return DistanceStiffness(
        bins,
        [
            _line_length(resampled, values, line),
            _monotone_length(resampled, values, by_cut, counts),
        ],
    )


def _line_length(
    resampled: ResampledPairs, values: npt.NDArray[np.floating], sums: Floats
) -> CriticalLength:
    """Fit a line to all pairs, not to bins, so that no bin width matters (Section 4.5)."""
    pairs, number = resampled.pairs, len(values)
    reach = float(np.ptp(pairs.distances))
    if number < 3 or reach == 0:
        return _no_fit("line", pairs, sums.shape[1])
    slope, height = (float(one) for one in _line(*resampled.totals(values)))
    slopes, heights = _line(*sums)
    if resampled.lone.any():
        slopes[:] = np.nan
    slope_low, slope_high = (float(end) for end in percentile_interval(slopes))
    falls = -slope * reach > _FLAT and slope_high < 0
    xi = resampled.center - height / slope if falls else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.maximum(resampled.center - heights / slopes, 0)
    others[-slopes * reach <= _FLAT] = np.inf
    found = bool(falls and xi > 0)
    low, high = (float(end) for end in percentile_interval(others))
    inside = pairs.distances[0] <= xi <= pairs.distances[-1]
    return CriticalLength(
        estimator="line",
        crossing=(MEASURED if inside else EXTRAPOLATED) if found else NONE,
        value=float(xi) if found else np.nan,
        low=low if found else np.nan,
        high=high if found else np.nan,
        slope=slope,
        slope_low=slope_low,
        slope_high=slope_high,
        intercept=height - slope * resampled.center,
        max_distance=float(pairs.distances[-1]),
        num_pairs=number,
        replicates=others,
    )


def _monotone_length(
    resampled: ResampledPairs, values: npt.NDArray[np.floating], by_cut: Floats, counts: Floats
) -> CriticalLength:
    """Find where the monotone fit changes its sign; see the module's docstring."""
    distances, number = resampled.pairs.distances, len(values)
    last = _last_above(distances, values)
    found = last >= 0
    xi = float(distances[last : last + 2].mean()) if 0 <= last < number - 1 else np.inf
    others = _half_way(distances, resampled.cuts, counts, _peak(by_cut, number))
    others[counts.sum(0) == 0] = np.nan
    if resampled.lone.any():
        others[:] = np.nan
    low, high = (float(end) for end in percentile_interval(others))
    missing = dict.fromkeys(("slope", "slope_low", "slope_high", "intercept"), np.nan)
    return CriticalLength(
        estimator="monotone",
        crossing=(MEASURED if np.isfinite(xi) else BEYOND) if found else NONE,
        value=xi if found and np.isfinite(xi) else np.nan,
        # Infinite means no more than that: beyond the farthest pair.
        low=min(low, float(distances[-1])) if found else np.nan,
        high=high if found else np.nan,
        max_distance=float(distances[-1]),
        num_pairs=number,
        replicates=others,
        **missing,
    )


def _last_above(distances: Floats, values: npt.NDArray[np.floating]) -> int:
    """The last pair of those over which the running sum of ``values`` [P] is largest, where pairs
    at one distance count as one; -1 as in ``_peak``."""
    number = len(values)
    best, last, carry = _FLAT * number, -1, 0.0
    for part in _blocks(number):
        running = values[part].astype(np.float64)
        running[0] += carry
        np.cumsum(running, out=running)
        carry = running[-1]
        farther = np.diff(distances[part.start : part.stop + 1], append=np.inf)[: len(running)] > 0
        running[~farther] = -np.inf
        place = int(running.argmax())
        if running[place] > best:
            best, last = running[place], part.start + place
    return last


def _peak(sums: Floats, number: int) -> Ints:
    """[R]: after how many of the ``sums`` [K, R] their running sum is largest; 0 if it is never
    above 0, or above what rounding may have left of ``number`` values around 0."""
    running = np.cumsum(sums, axis=0)
    return np.where(running.max(0) > _FLAT * number, running.argmax(0) + 1, 0)


def _half_way(distances: Floats, starts: Ints, counts: Floats, places: Ints) -> Floats:
    """[R]: between the last pair of the first ``places`` [R] runs and the next that is drawn.

    0 where ``places`` is 0, infinite where no later pair is drawn.

    Args:
        starts: [K], the first pair of each run; ``counts`` [K, R] of drawn pairs.
    """
    number, columns = len(starts), np.arange(counts.shape[1])
    following = places.copy()
    while (empty := (following < number) & (counts[following % number, columns] == 0)).any():
        following += empty
    ends = np.append(starts[1:], len(distances)) - 1
    before = distances[ends[places - 1]]
    after = np.append(distances[starts], np.inf)[following]
    return np.where(places > 0, (before + after) / 2, 0.0)


def _no_fit(estimator: str, pairs: ClassPairs, resamples: int) -> CriticalLength:
    names = ("value", "low", "high", "slope", "slope_low", "slope_high", "intercept")
    number = len(pairs.distances)
    return CriticalLength(
        estimator=estimator,
        crossing=NONE,
        max_distance=float(pairs.distances[-1]) if number else np.nan,
        num_pairs=number,
        replicates=np.full(resamples, np.nan),
        **dict.fromkeys(names, np.nan),
    )


def _line(n: Floats, x: Floats, xx: Floats, y: Floats, xy: Floats) -> tuple[Floats, Floats]:
    """Slope, and height at x = 0, from the sums of the normal equations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * xx - x * x
        # Of one pair, or of pairs at one distance, float32 leaves nothing but rounding of it.
        slope = (n * xy - x * y) / np.where(spread > 1e-5 * n * xx, spread, np.nan)
        return slope, (y - slope * x) / n
