"""The lengths beside the line's zero: area, decay, class fixed effects, and lines that misfit."""

from typing import Any

import numpy as np
import pytest
from scipy.optimize import curve_fit

from stiffness.measures.bootstrap import draw_weights
from stiffness.measures.distance import (
    BEYOND,
    EXTRAPOLATED,
    MEASURED,
    MISFIT,
    NONE,
    ClassPairs,
    ResampledPairs,
)
from stiffness.measures.lengths import CriticalLength, distance_stiffness

EXAMPLES, RESAMPLES = 30, 80
EDGES = np.linspace(0, 2, 9)


def all_pairs(number: int = EXAMPLES, seed: int = 0, classes: int = 1) -> ClassPairs:
    """All pairs of ``number`` examples, at random distances between 0.1 and 1.9."""
    generator = np.random.default_rng(seed)
    first, second = generator.permutation(np.array(np.triu_indices(number, k=1)), axis=1)
    distances = np.sort(generator.uniform(0.1, 1.9, len(first)))
    return ClassPairs(first, second, distances, np.arange(len(first)) % classes)


def measure(
    pairs: ClassPairs, values: np.ndarray, radius: float | None = None
) -> dict[str, CriticalLength]:
    weights = draw_weights(np.zeros(EXAMPLES, int), RESAMPLES, 0)
    found = distance_stiffness(ResampledPairs(pairs, EDGES, weights, radius), values)
    return {length.estimator: length for length in found.lengths}


def one(estimator: str, *arguments: Any) -> CriticalLength:
    return measure(*arguments)[estimator]


def drawn_pairs(pairs: ClassPairs) -> list[np.ndarray]:
    """How often each pair is in each resample."""
    weights = draw_weights(np.zeros(EXAMPLES, int), RESAMPLES, 0)
    return list((weights[pairs.first] * weights[pairs.second]).T)


# --- the line's misfit ---------------------------------------------------------------------------


def test_a_line_through_a_line_is_measured_and_shows_0_at_its_zero():
    pairs = all_pairs()
    noise = np.random.default_rng(1).normal(0, 0.05, len(pairs.distances))
    line = one("line", pairs, 0.6 - 0.5 * pairs.distances + noise)
    assert line.crossing == MEASURED
    assert line.at_crossing_low <= 0 <= line.at_crossing_high
    assert abs(line.at_crossing) < 0.02


@pytest.mark.parametrize("floor", [0.1, -0.1])
def test_a_line_whose_zero_lies_where_stiffness_is_not_0_is_a_misfit(floor):
    # Falls fast and then stays at the floor, above or below 0.
    pairs = all_pairs()
    fast = np.maximum(1 - 1.5 * pairs.distances, floor)
    values = fast + np.random.default_rng(1).normal(0, 0.02, len(fast))
    line = one("line", pairs, values)
    assert line.crossing == MISFIT
    assert 0.1 < line.value < 1.9
    assert line.low <= line.value <= line.high
    ends = line.at_crossing_low, line.at_crossing_high
    assert min(ends) > 0 if line.at_crossing > 0 else max(ends) < 0


def test_the_stiffness_at_a_zero_is_that_between_the_bins_around_it():
    pairs = all_pairs()
    values = np.where(pairs.distances < 0.6, 1.0, -0.1)
    weights = draw_weights(np.zeros(EXAMPLES, int), RESAMPLES, 0)
    found = distance_stiffness(ResampledPairs(pairs, EDGES, weights), values)
    line, bins = found.lengths[0], found.bins
    expected = np.interp(line.value, bins.distance, bins.value)
    assert line.at_crossing == pytest.approx(expected)


def test_an_extrapolated_zero_has_no_stiffness_there():
    pairs = all_pairs()
    line = one("line", pairs, 1 - 0.1 * pairs.distances)
    assert line.crossing == EXTRAPOLATED
    assert np.isnan([line.at_crossing, line.at_crossing_low, line.at_crossing_high]).all()


@pytest.mark.parametrize(("examples", "crossing"), [(3, MEASURED), (4, MISFIT)])
def test_bins_whose_pairs_all_agree_make_a_misfit_where_they_have_intervals(examples, crossing):
    # The sign turns at 0.6 and the line's zero lies at 0.68, among bins at -1. Three training
    # examples are too few to say that stiffness is not 0 there.
    number = 400
    first, second = (one.ravel() for one in np.indices((examples, number)))
    distances = np.random.default_rng(0).permuted(
        np.tile(np.linspace(0, 2, number), (examples, 1)), axis=1
    )
    order = np.argsort(distances, axis=None)
    pairs = ClassPairs(
        first[order], second[order] + examples, distances.ravel()[order], same_set=False
    )
    strata = np.repeat([0, 1], [examples, number])
    resampled = ResampledPairs(pairs, np.linspace(0, 2, 41), draw_weights(strata, 80, 0))
    found = distance_stiffness(resampled, np.where(pairs.distances < 0.6, 1.0, -1.0))
    line = found.line
    assert line.value == pytest.approx(0.68, abs=0.01)
    assert line.at_crossing == -1
    assert line.crossing == crossing
    if crossing == MISFIT:
        # Four examples that agree exclude 0 only just: 1 - 2 q is 0.02.
        assert line.at_crossing_low == -1
        assert -0.02 < line.at_crossing_high < 0
    else:
        assert np.isnan([line.at_crossing_low, line.at_crossing_high]).all()


# --- the area ------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.05, 0.12, 0.3, 0.5, 1.0, 1.5])
def test_the_area_under_a_line_from_1_is_exact(radius):
    pairs = all_pairs()
    area = one("area", pairs, 1 - 0.5 * pairs.distances, radius)
    assert area.radius == radius
    assert area.crossing == MEASURED
    assert area.value == pytest.approx(1 - 0.25 * radius, abs=1e-9)
    assert area.low <= area.value <= area.high


def test_the_radius_holds_nine_tenths_of_the_pairs():
    pairs = all_pairs()
    radius = one("area", pairs, np.ones(len(pairs.distances))).radius
    assert np.mean(pairs.distances <= radius) == pytest.approx(0.9, abs=0.003)


def test_an_area_is_defined_where_nothing_crosses():
    pairs = all_pairs()
    for level in (1.0, 0.3, -0.2):
        area = one("area", pairs, np.full(len(pairs.distances), level), 1.0)
        # From 1 at distance 0 to the first bin, and level from there on.
        first = pairs.distances[pairs.distances < EDGES[1]].mean()
        assert area.value == pytest.approx(level + (1 - level) * first / 2)


@pytest.mark.parametrize("radius", [0.2, 1.0])
def test_an_area_under_pairs_that_all_agree_reaches_down_to_the_bounds_of_the_bins(radius):
    pairs = all_pairs()
    weights = draw_weights(np.zeros(EXAMPLES, int), RESAMPLES, 0)
    signs = np.ones(len(pairs.distances))
    found = distance_stiffness(ResampledPairs(pairs, EDGES, weights, radius), signs)
    bins, area = found.bins, found.of("area")
    grid = np.linspace(0, radius, 20001)
    lowest = np.trapezoid(np.interp(grid, [0, *bins.distance], [1, *bins.low]), grid) / radius
    assert area.low == pytest.approx(lowest, rel=1e-6)
    assert area.low < 0.99
    assert area.value == pytest.approx(area.high) == 1
    np.testing.assert_allclose(area.replicates, 1)
    # Below 0 it is the upper end that opens.
    found = distance_stiffness(ResampledPairs(pairs, EDGES, weights, radius), -signs)
    bins, area = found.bins, found.of("area")
    highest = np.trapezoid(np.interp(grid, [0, *bins.distance], [1, *bins.high]), grid) / radius
    assert area.high == pytest.approx(highest, rel=1e-6)
    assert area.low == pytest.approx(area.value)


def test_areas_of_resamples_are_those_of_their_bins():
    pairs = all_pairs()
    values = (
        0.8 - 0.5 * pairs.distances + np.random.default_rng(2).normal(0, 0.3, len(pairs.distances))
    )
    weights = draw_weights(np.zeros(EXAMPLES, int), RESAMPLES, 0)
    resampled = ResampledPairs(pairs, EDGES, weights, 1.3)
    found = distance_stiffness(resampled, values)
    x = found.bins.distance
    expected = []
    for drawn in drawn_pairs(pairs):
        with np.errstate(invalid="ignore"):
            heights = np.array(
                [np.sum(drawn[b] * values[b]) / np.sum(drawn[b]) for b in resampled.bins]
            )
        known = np.isfinite(heights)
        grid = np.unique([*np.linspace(0, 1.3, 20001), *x[x < 1.3]])
        curve = np.interp(grid, [0, *x[known]], [1, *heights[known]])
        expected.append(np.trapezoid(curve, grid) / 1.3)
    np.testing.assert_allclose(found.lengths[2].replicates, expected, rtol=1e-4)


# --- the decay -----------------------------------------------------------------------------------


@pytest.mark.parametrize("floor", [0.0, 0.3, -0.2])
@pytest.mark.parametrize("scale", [0.2, 0.5, 1.2])
def test_a_decay_gives_its_length_and_its_floor(scale, floor):
    pairs = all_pairs()
    decay = one("decay", pairs, floor + (1 - floor) * np.exp(-pairs.distances / scale))
    assert decay.crossing == MEASURED
    assert decay.value == pytest.approx(scale, rel=0.01)
    assert decay.floor == pytest.approx(floor, abs=0.01)
    assert decay.low <= decay.value <= decay.high
    assert decay.floor_low <= decay.floor <= decay.floor_high


def test_resampled_decays_are_those_of_a_solver():
    pairs = all_pairs()
    x = pairs.distances
    values = 0.2 + 0.8 * np.exp(-x / 0.5) + np.random.default_rng(3).normal(0, 0.1, len(x))
    decay = one("decay", pairs, values)

    def curve(x: np.ndarray, scale: float, floor: float) -> np.ndarray:
        return floor + (1 - floor) * np.exp(-x / scale)

    for number, drawn in enumerate(drawn_pairs(pairs)[:20]):
        kept = drawn > 0
        (scale, floor), _ = curve_fit(
            curve, x[kept], values[kept], (0.5, 0.2), sigma=drawn[kept] ** -0.5
        )
        assert decay.replicates[number] == pytest.approx(scale, rel=0.01)
        assert decay.floors[number] == pytest.approx(floor, abs=0.01)


def test_what_never_falls_has_no_decay_length():
    pairs = all_pairs()
    decay = one("decay", pairs, np.ones(len(pairs.distances)))
    assert decay.crossing == NONE
    assert np.isnan(decay.value)
    assert decay.floor == 1


def test_a_decay_that_looks_like_a_line_is_only_bounded():
    # Even the lowest floor, -1, needs a length beyond the data for so slow a fall.
    pairs = all_pairs()
    decay = one("decay", pairs, 1 - 0.01 * pairs.distances)
    assert decay.crossing == BEYOND
    assert np.isnan(decay.value)
    assert decay.low == pytest.approx(pairs.distances[-1])
    assert decay.high == np.inf


def test_a_decay_length_beyond_the_farthest_pair_is_extrapolated():
    pairs = all_pairs()
    decay = one("decay", pairs, np.exp(-pairs.distances / 4))
    assert decay.crossing == EXTRAPOLATED
    assert decay.value == pytest.approx(4, rel=0.02)


def test_a_decay_before_the_nearest_pair_has_the_shortest_length_that_is_tried():
    pairs = all_pairs()
    decay = one("decay", pairs, np.full(len(pairs.distances), 0.2))
    assert decay.crossing == EXTRAPOLATED
    assert decay.value == pytest.approx(pairs.distances[-1] / 300)
    assert decay.floor == pytest.approx(0.2, abs=1e-6)


def test_no_floor_lies_below_minus_1():
    pairs = all_pairs()
    decay = one("decay", pairs, -1.5 + 0 * pairs.distances)
    assert decay.floor == -1


# --- class fixed effects -------------------------------------------------------------------------


def two_classes(slope: float) -> tuple[ClassPairs, np.ndarray]:
    """The second class lies farther away and is less stiff; each has ``slope``."""
    pairs = all_pairs()
    classes = (pairs.distances > 1).astype(int)
    noise = np.random.default_rng(4).normal(0, 0.01, len(classes))
    values = np.where(classes == 0, 0.9, 0.2) + slope * (pairs.distances - 1) + noise
    return ClassPairs(pairs.first, pairs.second, pairs.distances, classes), values


def test_a_slope_between_classes_is_none_within_them():
    found = measure(*two_classes(0.0))
    assert found["line"].slope_high < -0.3
    assert abs(found["fixed_effects"].slope) < 0.01
    assert found["fixed_effects"].crossing == NONE


def test_the_slope_with_fixed_effects_is_that_of_a_regression_with_indicators():
    pairs, values = two_classes(-0.3)
    own = one("fixed_effects", pairs, values)
    design = np.stack([pairs.distances, pairs.classes == 0, pairs.classes == 1], 1).astype(float)
    expected = np.linalg.lstsq(design, values, rcond=None)[0][0]
    assert own.slope == pytest.approx(expected, rel=1e-6)
    zero = pairs.distances.mean() - values.mean() / expected
    assert own.value == pytest.approx(zero, rel=1e-6)
    crossings = []
    for drawn in drawn_pairs(pairs):
        root = np.sqrt(drawn)[:, None]
        slope = np.linalg.lstsq(root * design, root[:, 0] * values, rcond=None)[0][0]
        center, height = (np.average(one, weights=drawn) for one in (pairs.distances, values))
        crossings.append(max(center - height / slope, 0))
    np.testing.assert_allclose(own.replicates, crossings, rtol=1e-3)


def test_with_one_class_the_check_is_the_line():
    pairs = all_pairs()
    values = 0.6 - 0.5 * pairs.distances + np.random.default_rng(1).normal(0, 0.1, 435)
    found = measure(pairs, values)
    for name in ("value", "low", "high", "slope", "slope_low", "slope_high", "intercept"):
        line, own = (getattr(found[kind], name) for kind in ("line", "fixed_effects"))
        assert own == pytest.approx(line, rel=1e-5), name


# --- no pairs, lone examples ---------------------------------------------------------------------


def test_without_pairs_nothing_is_measured():
    empty = np.zeros(0, np.int64)
    for length in measure(ClassPairs(empty, empty, np.zeros(0)), np.zeros(0)).values():
        assert length.crossing == NONE
        assert np.isnan([length.value, length.low, length.high, length.max_distance]).all()
        assert len(length.floors) == (RESAMPLES if length.estimator == "decay" else 0)
        assert len(length.replicates) == RESAMPLES


def test_what_rests_on_a_lone_example_has_no_interval():
    pairs = all_pairs()
    strata = np.array([1, *[0] * (EXAMPLES - 1)])
    resampled = ResampledPairs(pairs, EDGES, draw_weights(strata, RESAMPLES, 0))
    found = distance_stiffness(resampled, 0.8 - 0.5 * pairs.distances)
    for length in found.lengths:
        assert np.isnan([length.low, length.high]).all(), length.estimator


@pytest.mark.parametrize("number", [1, 2])
def test_one_or_two_pairs_fit_no_curve(number):
    pairs = all_pairs()
    few = ClassPairs(pairs.first[:number], pairs.second[:number], pairs.distances[:number])
    found = measure(few, np.array([0.5, -0.5])[:number])
    for name in ("line", "decay", "fixed_effects"):
        assert found[name].crossing == NONE
        assert np.isnan(found[name].slope)
        assert np.isnan(found[name].floor)


def test_three_pairs_fit_curves():
    pairs = all_pairs()
    few = ClassPairs(pairs.first[:3], pairs.second[:3], np.array([0.2, 0.5, 1.0]))
    found = measure(few, np.array([0.5, 0.1, -0.5]))
    for name in ("line", "fixed_effects"):
        assert found[name].slope == pytest.approx(np.polyfit(few.distances, [0.5, 0.1, -0.5], 1)[0])
    assert np.isfinite(found["decay"].floor)


def test_pairs_at_one_distance_have_no_slope():
    pairs = all_pairs()
    same = ClassPairs(pairs.first, pairs.second, np.full(len(pairs.first), 0.5))
    found = measure(same, np.linspace(1, -1, len(pairs.first)))
    for name in ("line", "decay", "fixed_effects"):
        assert found[name].crossing == NONE
        assert np.isnan([found[name].slope, found[name].floor]).all()


def test_a_resample_without_pairs_has_no_length():
    first, second = np.triu_indices(3, k=1)
    pairs = ClassPairs(first, second, np.array([0.2, 0.5, 1.0]))
    weights = draw_weights(np.zeros(3, int), RESAMPLES, 0)
    empty = (weights > 0).sum(0) < 2  # one example, drawn twice
    assert 0 < empty.sum() < RESAMPLES
    found = distance_stiffness(ResampledPairs(pairs, EDGES, weights), np.array([0.5, 0.1, -0.5]))
    for length in found.lengths[:-1]:
        if length.estimator != "area":
            assert np.isnan(length.replicates[empty]).all(), length.estimator
    decay = found.of("decay")
    assert np.isnan(decay.floors).tolist() == empty.tolist()


# --- coverage ------------------------------------------------------------------------------------

DRAWS = 250
# Three binomial standard deviations of a rate of 0.95, and 4 points above for bounded estimates.
LEAST = 0.95 - 3 * (0.95 * 0.05 / DRAWS) ** 0.5


@pytest.mark.slow
def test_intervals_of_area_decay_and_fixed_effects_cover_the_truth():
    """Pairs of an example share its height, so that they are dependent."""
    generator = np.random.default_rng(0)
    number, scale, floor, radius, slope = 40, 0.5, 0.2, 1.4, -0.5
    weights = draw_weights(np.zeros(number, int), 200, 0)
    first, second = np.triu_indices(number, k=1)
    edges = np.linspace(0, 1.8, 13)
    grid = np.linspace(0, radius, 2001)
    area = np.trapezoid(floor + (1 - floor) * np.exp(-grid / scale), grid) / radius
    covered = dict.fromkeys(("area", "decay", "floor", "fixed slope", "at a true zero"), 0)
    for _ in range(DRAWS):
        places = generator.uniform(0, 1.6, number)
        heights = generator.normal(0, 0.05, number)
        distances = (places[first] + places[second]) / 2 + 0.1
        order = np.argsort(distances)
        classes = (np.arange(len(order)) % 2)[order]
        pairs = ClassPairs(first[order], second[order], distances[order], classes)
        noise = heights[pairs.first] + heights[pairs.second]
        noise += generator.normal(0, 0.2, len(noise))
        resampled = ResampledPairs(pairs, edges, weights, radius)
        decays = floor + (1 - floor) * np.exp(-pairs.distances / scale)
        lengths = {
            length.estimator: length
            for length in distance_stiffness(resampled, decays + noise).lengths
        }
        covered["area"] += lengths["area"].low <= area <= lengths["area"].high
        covered["decay"] += lengths["decay"].low <= scale <= lengths["decay"].high
        covered["floor"] += lengths["decay"].floor_low <= floor <= lengths["decay"].floor_high
        falling = 0.5 + 0.3 * classes + slope * pairs.distances + noise
        own = distance_stiffness(resampled, falling).lengths[4]
        covered["fixed slope"] += own.slope_low <= slope <= own.slope_high
        line = distance_stiffness(resampled, 0.5 + slope * pairs.distances + noise).lengths[0]
        covered["at a true zero"] += line.crossing != MISFIT
    shares = {name: hits / DRAWS for name, hits in covered.items()}
    assert min(shares.values()) >= LEAST, shares
