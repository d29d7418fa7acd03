"""The critical length and its companions, from same-class pairs by distance (Sections 2.5, 4.5).

The critical length xi is where stiffness S reaches 0. The paper fits a line to all same-class
pairs. Its zero is a measurement only within the range of the pairs: outside it is an extrapolation,
and a line that does not fall has no zero. Where the bins show a stiffness at the zero that is
certainly not 0, the line is a misfit. Beside it stand four estimates:

- monotone: the zero of the best fit that falls monotonically. It assumes no line and never
  extrapolates: a monotone fit changes its sign where the running sum of stiffness, over pairs by
  distance, is largest.
- area: L(r) = (1 / r) times the integral of S from 0 to r, the mean stiffness up to a distance r
  within the data, with S(0) = 1. It is defined whatever the shape of S.
- decay: lambda and the floor of S = floor + (1 - floor) exp(-d / lambda), by least squares. This
  curve goes through S(0) = 1, the stiffness of an example with itself (Section 4.4).
- fixed_effects: the zero of a line whose height may differ from class to class, as a check: classes
  that differ in distance and in stiffness can make a slope where no class has one.

Intervals are bootstrap percentiles; see ``bootstrap``.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from stiffness.measures.bootstrap import interval_around, open_unanimous, percentile_interval
from stiffness.measures.decay import FLAT, decay_fit, decay_grid
from stiffness.measures.distance import (
    BEYOND,
    ESTIMATORS,
    EXTRAPOLATED,
    MEASURED,
    MISFIT,
    NONE,
    Bins,
    ResampledPairs,
    blocks,
)
from stiffness.measures.pairs import Floats, Ints


@dataclass(frozen=True)
class CriticalLength:
    """One estimate of how far stiffness reaches; see the module's docstring.

    Attributes:
        estimator: one of ``distance.ESTIMATORS``.
        crossing: "measured" (within the data; an area always is), "misfit" (a line's zero where the
            bins exclude a stiffness of 0; a bin without an interval excludes nothing),
            "extrapolated" (a line's zero, or a decay length, outside the range of the pairs),
            "beyond the data" (only bounded from below: a monotone fit is above 0 as far as the
            pairs reach, or a decay looks like a line) or "none" (the slope's 95 % interval reaches
            0 or is undefined, stiffness is not above 0 even at the shortest distances, or nothing
            decays).
        max_distance: of the pairs in the fit.
        num_pairs: their number.
        replicates: [R], the value in every resample: infinite where its line does not fall, its
            monotone fit stays above 0 or nothing decays; 0 where stiffness is not above 0 even at
            the shortest distances; NaN where a resample holds too few pairs.
        value: the length xi or lambda, or the area L(r); NaN where the data hold none.
        low, high: its 95 % interval; NaN where the crossing is "none". ``high`` is infinite where
            more than 2.5 % of the resamples have no crossing; beyond the data, ``low`` still bounds
            the length from below, at most by the farthest pair.
        slope, intercept, slope_low, slope_high: of a line; NaN for other estimators.
        at_crossing, at_crossing_low, at_crossing_high: stiffness that the bins show where the line
            reaches 0; NaN outside the data.
        floor, floor_low, floor_high: of the decay.
        radius: the distance r of the area L(r).
        floors: [R], the floor in every resample; empty for other estimators.
    """

    estimator: str
    crossing: str
    max_distance: float
    num_pairs: int
    replicates: Floats
    value: float = np.nan
    low: float = np.nan
    high: float = np.nan
    slope: float = np.nan
    slope_low: float = np.nan
    slope_high: float = np.nan
    intercept: float = np.nan
    at_crossing: float = np.nan
    at_crossing_low: float = np.nan
    at_crossing_high: float = np.nan
    floor: float = np.nan
    floor_low: float = np.nan
    floor_high: float = np.nan
    radius: float = np.nan
    floors: Floats = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class DistanceStiffness:
    """Bins and lengths of one set of pairs; ``lengths`` has one entry per estimator, in order."""

    bins: Bins
    lengths: list[CriticalLength]

    def of(self, estimator: str) -> CriticalLength:
        """The critical length by one estimator."""
        return next(one for one in self.lengths if one.estimator == estimator)

    @property
    def line(self) -> CriticalLength:
        """The paper's: where a line through all pairs crosses 0."""
        return self.of("line")


def distance_stiffness(
    resampled: ResampledPairs, values: npt.NDArray[np.floating]
) -> DistanceStiffness:
    """Measure bins of distance and critical lengths (Sections 4.4 and 4.5).

    Args:
        resampled: P same-class pairs.
        values: [P], their stiffness.
    """
    return distance_stiffnesses(resampled, values[None])[0]


def distance_stiffnesses(
    resampled: ResampledPairs, values: npt.NDArray[np.floating]
) -> list[DistanceStiffness]:
    """Measure ``distance_stiffness`` by several metrics at once, which draws the pairs once.

    Args:
        resampled: P same-class pairs.
        values: [V, P], their stiffness by each metric.
    """
    if len(resampled.pairs.distances) == 0:
        empty = np.zeros(0)
        nothing = Bins(empty, empty, empty, empty, np.zeros(0, np.int64))
        lengths = [_no_fit(name, resampled) for name in ESTIMATORS]
        return [DistanceStiffness(nothing, lengths) for _ in values]
    counts, sums = resampled.sums(values)
    return [_measure(resampled, y, counts, *of) for y, of in zip(values, sums, strict=True)]


def _measure(
    resampled: ResampledPairs,
    values: npt.NDArray[np.floating],
    counts: Floats,
    by_cut: Floats,
    line: Floats,
    classes: Floats,
) -> DistanceStiffness:
    """Bins and lengths of ``values`` [P], from what ``ResampledPairs.sums`` gives."""
    starts = np.searchsorted(resampled.cuts, [part.start for part in resampled.bins])
    with np.errstate(divide="ignore", invalid="ignore"):
        means = np.add.reduceat(by_cut, starts, axis=0) / np.add.reduceat(counts, starts, axis=0)
    means[resampled.lone] = np.nan
    low, high = percentile_interval(means)
    distance, value = (
        np.array([one[part].mean(dtype=np.float64) for part in resampled.bins])
        for one in (resampled.pairs.distances, values)
    )
    open_unanimous(value, low, high, resampled.bounds)
    numbers = np.array([part.stop - part.start for part in resampled.bins], np.int64)
    bins = Bins(distance, value, low, high, numbers)
    return DistanceStiffness(
        bins,
        [
            _line_length(resampled, values, line, bins, means),
            _monotone_length(resampled, values, by_cut, counts),
            _area(resampled, bins, means),
            _decay(resampled, values, by_cut, counts),
            _fixed_effects(resampled, values, line, classes),
        ],
    )


def _line_length(
    resampled: ResampledPairs,
    values: npt.NDArray[np.floating],
    sums: Floats,
    bins: Bins,
    means: Floats,
) -> CriticalLength:
    """Fit a line to all pairs, not to bins, so that no bin width matters (Section 4.5)."""
    number, reach = len(values), float(np.ptp(resampled.pairs.distances))
    if number < 3 or reach == 0:
        return _no_fit("line", resampled)
    slope, height = _line(*resampled.totals(values))
    found = _zero("line", resampled, (float(slope), float(height)), _line(*sums))
    if found.crossing != MEASURED:
        return found
    # Both the zero and the bins vary from resample to resample.
    at = np.clip(found.replicates, bins.distance[0], bins.distance[-1])
    shown = float(_interpolate(bins.distance, bins.value[:, None], np.array([found.value]))[0])
    ends = (_interpolate(bins.distance, one, at) for one in _at_ends(bins, means))
    low, high = interval_around(shown, *ends)
    return replace(
        found,
        crossing=MISFIT if low > 0 or high < 0 else MEASURED,
        at_crossing=shown,
        at_crossing_low=low,
        at_crossing_high=high,
    )


def _at_ends(bins: Bins, means: Floats) -> tuple[Floats, Floats]:
    """Resamples [B, R] for the lower and for the upper end of what follows from bins.

    They are the ``means``, but a bin whose pairs all agree stands at an end of its interval.
    """
    agree = (np.abs(bins.value) == 1)[:, None]
    if not agree.any():
        return means, means
    return np.where(agree, bins.low[:, None], means), np.where(agree, bins.high[:, None], means)


def _fixed_effects(
    resampled: ResampledPairs, values: npt.NDArray[np.floating], sums: Floats, classes: Floats
) -> CriticalLength:
    """Fit a line with one slope and a height of its own for each class.

    The zero is that of the line through the mean of all pairs with this slope.
    """
    number, reach = len(values), float(np.ptp(resampled.pairs.distances))
    if number < 3 or reach == 0:
        return _no_fit("fixed_effects", resampled)
    fit = _class_line(resampled.totals(values), resampled.class_sums(values))
    drawn = _class_line(sums, classes)
    return _zero("fixed_effects", resampled, (float(fit[0]), float(fit[1])), drawn)


def _zero(
    estimator: str,
    resampled: ResampledPairs,
    fit: tuple[float, float],
    drawn: tuple[Floats, Floats],
) -> CriticalLength:
    """Find where a line reaches 0, from its slope and height at the mean distance.

    Args:
        fit: slope and height; ``drawn``: those of the resamples, [R] each.
    """
    pairs, (slope, height), (slopes, heights) = resampled.pairs, fit, drawn
    reach = float(np.ptp(pairs.distances))
    if resampled.lone.any():
        slopes = np.full_like(slopes, np.nan)
    slope_low, slope_high = interval_around(slope, slopes)
    falls = -slope * reach > FLAT and -slope_high * reach > FLAT
    xi = resampled.center - height / slope if falls else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.maximum(resampled.center - heights / slopes, 0)
    others[-slopes * reach <= FLAT] = np.inf
    found = bool(falls and xi > 0)
    low, high = interval_around(xi, others) if found else (np.nan, np.nan)
    inside = pairs.distances[0] <= xi <= pairs.distances[-1]
    return CriticalLength(
        estimator=estimator,
        crossing=(MEASURED if inside else EXTRAPOLATED) if found else NONE,
        value=float(xi) if found else np.nan,
        low=low,
        high=high,
        slope=slope,
        slope_low=slope_low,
        slope_high=slope_high,
        intercept=height - slope * resampled.center,
        max_distance=float(pairs.distances[-1]),
        num_pairs=len(pairs.distances),
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
    value = xi if found and np.isfinite(xi) else np.nan
    low, high = interval_around(value, others)
    return CriticalLength(
        estimator="monotone",
        crossing=(MEASURED if np.isfinite(xi) else BEYOND) if found else NONE,
        value=value,
        # Infinite means no more than that: beyond the farthest pair.
        low=min(low, float(distances[-1])) if found else np.nan,
        high=high if found else np.nan,
        max_distance=float(distances[-1]),
        num_pairs=number,
        replicates=others,
    )


def _area(resampled: ResampledPairs, bins: Bins, means: Floats) -> CriticalLength:
    """Average stiffness up to the radius r: straight pieces from S(0) = 1 through the bins."""
    distances, radius = resampled.pairs.distances, resampled.radius
    if not radius > 0:
        return _no_fit("area", resampled)
    knots = np.append(bins.distance[bins.distance < radius], radius)

    def area(heights: Floats) -> Floats:
        """[R], of the heights [B, R] of bins."""
        points = np.concatenate([[0.0], bins.distance])
        curve = np.concatenate([np.ones((1, heights.shape[1])), heights])
        curve = _fill_gaps(points, curve)
        at_radius = _interpolate(points, curve, np.full(heights.shape[1], radius))
        shown = np.concatenate([curve[: len(knots)], at_radius[None]])
        return np.asarray(np.trapezoid(shown, np.append(0.0, knots), axis=0) / radius)

    value = float(area(bins.value[:, None])[0])
    drawn = area(means)
    ends = [drawn if one is means else area(one) for one in _at_ends(bins, means)]
    if resampled.lone.any():
        for one in (drawn, *ends):
            one[:] = np.nan
    low, high = interval_around(value, *ends)
    return CriticalLength(
        estimator="area",
        crossing=MEASURED,
        value=value,
        low=low,
        high=high,
        max_distance=float(distances[-1]),
        num_pairs=len(distances),
        replicates=drawn,
        radius=radius,
    )


def _decay(
    resampled: ResampledPairs, values: npt.NDArray[np.floating], by_cut: Floats, counts: Floats
) -> CriticalLength:
    """Fit floor + (1 - floor) exp(-d / lambda) by least squares; see the module's docstring."""
    distances, cuts = resampled.pairs.distances, resampled.cuts
    farthest = float(distances[-1])
    if len(values) < 3 or np.ptp(distances) == 0:
        return _no_fit("decay", resampled)
    numbers = np.diff(np.append(cuts, len(values))).astype(np.float64)
    places = np.add.reduceat(distances, cuts) / numbers
    totals = np.add.reduceat(values.astype(np.float64), cuts)
    numbers, totals = numbers[:, None], totals[:, None]
    fit = decay_fit(places, numbers, totals, farthest, decay_grid(places, numbers, farthest))
    length, floor, falls = (one[0].item() for one in fit)
    if resampled.decay is None:
        resampled.decay = decay_grid(places, counts, farthest)
    lengths, floors, _ = decay_fit(places, counts, by_cut, farthest, resampled.decay)
    if resampled.lone.any():
        lengths[:] = floors[:] = np.nan
    ends, floor_ends = interval_around(length, lengths), interval_around(floor, floors)
    if not falls:
        crossing = NONE
    elif np.isinf(length):
        crossing = BEYOND
    else:
        crossing = MEASURED if distances[0] <= length <= farthest else EXTRAPOLATED
    return CriticalLength(
        estimator="decay",
        crossing=crossing,
        value=length if falls and np.isfinite(length) else np.nan,
        low=min(ends[0], farthest if crossing == BEYOND else np.inf) if falls else np.nan,
        high=ends[1] if falls else np.nan,
        max_distance=farthest,
        num_pairs=len(values),
        replicates=lengths,
        floor=floor,
        floor_low=floor_ends[0],
        floor_high=floor_ends[1],
        floors=floors,
    )


def _interpolate(x: Floats, heights: Floats, at: Floats) -> Floats:
    """Interpolate ``heights`` [B, R] linearly at ``at`` [R]; constant outside ``x`` [B]."""
    if len(x) == 1:
        return heights[0].copy()
    after = np.clip(np.searchsorted(x, at), 1, len(x) - 1)
    columns = np.arange(heights.shape[1])
    with np.errstate(divide="ignore"):
        share = np.clip((at - x[after - 1]) / (x[after] - x[after - 1]), 0, 1)
    return (1 - share) * heights[after - 1, columns] + share * heights[after, columns]


def _fill_gaps(x: Floats, heights: Floats) -> Floats:
    """Fill undefined ``heights`` [B, R] from the neighbours in ``x`` [B]."""
    filled = heights.copy()
    for column in np.flatnonzero(np.isnan(heights).any(0)):
        known = ~np.isnan(heights[:, column])
        if known.any():
            filled[:, column] = np.interp(x, x[known], heights[known, column])
    return filled


def _last_above(distances: Floats, values: npt.NDArray[np.floating]) -> int:
    """The last pair of those over which the running sum of ``values`` [P] is largest, where pairs
    at one distance count as one; -1 as in ``_peak``."""
    number = len(values)
    best, last, carry = FLAT * number, -1, 0.0
    for part in blocks(number):
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
    return np.where(running.max(0) > FLAT * number, running.argmax(0) + 1, 0)


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


def _no_fit(estimator: str, resampled: ResampledPairs) -> CriticalLength:
    distances, resamples = resampled.pairs.distances, resampled.weights.shape[1]
    return CriticalLength(
        estimator=estimator,
        crossing=NONE,
        max_distance=float(distances[-1]) if len(distances) else np.nan,
        num_pairs=len(distances),
        replicates=np.full(resamples, np.nan),
        floors=np.full(resamples if estimator == "decay" else 0, np.nan),
    )


def _line(n: Floats, x: Floats, xx: Floats, y: Floats, xy: Floats) -> tuple[Floats, Floats]:
    """Slope, and height at x = 0, from the sums of the normal equations."""
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = n * xx - x * x
        # Of one pair, or of pairs at one distance, float32 leaves nothing but rounding of it.
        slope = (n * xy - x * y) / np.where(spread > 1e-5 * n * xx, spread, np.nan)
        return slope, (y - slope * x) / n


def _class_line(sums: Floats, classes: Floats) -> tuple[Floats, Floats]:
    """Slope with one height per class, and the mean height at x = 0.

    Args:
        sums: [5] or [5, R] of the normal equations: n, x, x x, y, x y.
        classes: [3, C] or [3, C, R]: n, x and y of each class.
    """
    n, x, xx, y, xy = sums
    size, along, up = classes
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = xx - np.where(size > 0, along**2 / size, 0).sum(0)
        both = xy - np.where(size > 0, along * up / size, 0).sum(0)
        slope = both / np.where(spread > 1e-5 * xx, spread, np.nan)
        return slope, (y - slope * x) / n
