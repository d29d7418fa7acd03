"""Stiffness against input distance, and the critical length (sections 2.5, 4.4, 4.5)."""

from itertools import combinations, pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.isotonic import IsotonicRegression

from stiffness.measures.bootstrap import draw_weights, percentile_interval
from stiffness.measures.distance import (
    BEYOND,
    ESTIMATORS,
    EXTRAPOLATED,
    MEASURED,
    NONE,
    Bins,
    ClassPairs,
    ResampledPairs,
    defined_pairs,
    distances_from_matrix,
    same_class_pairs,
)
from stiffness.measures.lengths import CriticalLength, DistanceStiffness, distance_stiffness
from stiffness.measures.pairs import PAIR_MODES

NUM_TRAIN = 13
CLASSES = np.concatenate([np.repeat([0, 1, 2], [4, 5, 4]), np.repeat([0, 1, 2], [5, 4, 5])])
STRATA = 2 * CLASSES + (np.arange(len(CLASSES)) < NUM_TRAIN)
MODES = pytest.mark.parametrize("mode", PAIR_MODES)


def random_distances(seed: int = 0) -> np.ndarray:
    inputs = np.random.default_rng(seed).normal(size=(len(CLASSES), 3))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    return (1 - inputs @ inputs.T).clip(0, 2).astype(np.float32)


def random_pairs(mode: str, seed: int = 0) -> tuple[ClassPairs, np.ndarray]:
    """Pairs, and a stiffness that falls with their distance, with noise."""
    pairs = same_class_pairs(
        distances_from_matrix(random_distances(seed)), CLASSES, NUM_TRAIN, mode
    )
    noise = np.random.default_rng(seed + 100).normal(scale=0.1, size=len(pairs.distances))
    return pairs, 0.8 - 0.7 * pairs.distances + noise


def make(
    pairs: ClassPairs,
    values: np.ndarray,
    edges: np.ndarray | None = None,
    resamples: int = 60,
    strata: np.ndarray | None = None,
) -> DistanceStiffness:
    """Of the data above with ``STRATA``; else of as many examples of one class as there are."""
    strata = np.zeros(100, int) if strata is None else strata
    examples = int(max(pairs.first.max(initial=0), pairs.second.max(initial=0))) + 1
    weights = draw_weights(strata if strata is STRATA else strata[:examples], resamples, 0)
    edges = np.linspace(0, 2, 7) if edges is None else edges
    return distance_stiffness(ResampledPairs(pairs, edges, weights), values)


def critical_length(
    pairs: ClassPairs, values: np.ndarray, estimator: str = "line", **options: Any
) -> CriticalLength:
    lengths = make(pairs, values, **options).lengths
    (found,) = [length for length in lengths if length.estimator == estimator]
    return found


def binned(pairs: ClassPairs, values: np.ndarray, edges: np.ndarray, **options: Any) -> Bins:
    return make(pairs, values, edges, **options).bins


def literal_resamples(pairs: ClassPairs, values: np.ndarray, resamples: int = 60) -> list:
    """Distances and values of the pairs of every resample, with its examples written out."""
    known = {
        frozenset(pair): (distance, value)
        for *pair, distance, value in zip(
            pairs.first, pairs.second, pairs.distances, values, strict=True
        )
    }
    made = []
    for weights in draw_weights(STRATA, resamples, 0).T:
        drawn = np.repeat(np.arange(len(STRATA)), weights.astype(int))
        held = [
            known[pair]
            for pair in (frozenset(two) for two in combinations(drawn.tolist(), 2))
            if pair in known  # two copies of one example are no pair
        ]
        made.append(np.array(sorted(held)).reshape(-1, 2).T)
    return made


def complete(number: int, distances: np.ndarray | None = None, seed: int = 0) -> ClassPairs:
    """All pairs of ``number`` examples of one class."""
    first, second = np.triu_indices(number, k=1)
    if distances is None:
        distances = np.random.default_rng(seed).uniform(0.1, 1.4, len(first))
    return sort(first, second, distances)


def sort(first: np.ndarray, second: np.ndarray, distances: np.ndarray) -> ClassPairs:
    order = np.argsort(distances, kind="stable")
    return ClassPairs(first[order], second[order], distances[order])


# --- pairs ---------------------------------------------------------------------------------------


@MODES
def test_same_class_pairs_are_those_of_the_loops(mode):
    distances = random_distances()
    train, validation = range(NUM_TRAIN), range(NUM_TRAIN, len(CLASSES))
    expected = {}
    for i in validation if mode == "val-val" else train:
        for j in train if mode == "train-train" else validation:
            if CLASSES[i] == CLASSES[j] and (mode == "train-val" or i < j):
                expected[i, j] = distances[i, j]
    pairs = same_class_pairs(distances_from_matrix(distances), CLASSES, NUM_TRAIN, mode)
    numbers = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    found = dict(zip(numbers, pairs.distances, strict=True))
    assert len(found) == len(pairs.first)
    assert found == expected


@MODES
def test_pairs_are_in_the_order_of_distance(mode):
    assert (
        np.diff(
            same_class_pairs(
                distances_from_matrix(random_distances()), CLASSES, NUM_TRAIN, mode
            ).distances
        )
        >= 0
    ).all()


def test_pairs_of_an_undefined_example_are_left_out():
    pairs = same_class_pairs(
        distances_from_matrix(random_distances()), CLASSES, NUM_TRAIN, "train-val"
    )
    defined = np.ones(len(CLASSES), bool)
    defined[[0, 13]] = False
    kept = defined_pairs(pairs, defined)
    expected = [
        (i, j) for i, j in zip(pairs.first, pairs.second, strict=True) if i != 0 and j != 13
    ]
    assert list(zip(kept.first, kept.second, strict=True)) == expected
    distances = random_distances()
    np.testing.assert_array_equal(kept.distances, [distances[pair] for pair in expected])


# --- bins ----------------------------------------------------------------------------------------


@MODES
def test_bins_are_means_over_pairs(mode):
    pairs, values = random_pairs(mode)
    edges = np.linspace(0, 2, 7)
    bins = binned(pairs, values, edges)
    expected = []
    for low, high in pairwise(edges):
        inside = [
            (distance, value)
            for distance, value in zip(pairs.distances, values, strict=True)
            if low <= distance < high
        ]
        if inside:
            expected.append([*np.mean(inside, axis=0), len(inside)])
    found = np.stack([bins.distance, bins.value, bins.num_pairs], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert bins.num_pairs.sum() == len(values)


def test_empty_bins_are_dropped():
    pairs = complete(3, np.array([0.1, 0.15, 0.9]))
    bins = binned(pairs, np.array([1.0, 0.0, -1.0]), np.linspace(0, 1, 6))
    np.testing.assert_allclose(bins.distance, [0.125, 0.9])
    np.testing.assert_array_equal(bins.value, [0.5, -1.0])
    np.testing.assert_array_equal(bins.num_pairs, [2, 1])
    assert len(bins.low) == len(bins.high) == 2


def test_a_bin_has_its_left_edge_and_the_last_one_both():
    pairs = complete(3, np.array([0.0, 0.5, 1.0]))
    bins = binned(pairs, np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(bins.value, [1.0, 3.0])
    np.testing.assert_array_equal(bins.num_pairs, [1, 2])


@MODES
def test_intervals_of_bins_are_those_of_literal_resamples(mode):
    pairs, values = random_pairs(mode)
    edges = np.array([0, 0.9, 2.0])
    expected = []
    for distances, found in literal_resamples(pairs, values):
        upper = distances >= 0.9
        expected.append([found[side].mean() if side.any() else np.nan for side in (~upper, upper)])
    assert np.isfinite(expected).mean() > 0.9
    ends = percentile_interval(np.transpose(expected))
    bins = binned(pairs, values, edges, strata=STRATA)
    np.testing.assert_allclose([bins.low, bins.high], ends, rtol=1e-5)


def test_a_bin_that_hangs_on_one_example_has_no_interval():
    # All near pairs are of example 2, which is first in some and second in others; a third of the
    # resamples do not hold it.
    pairs = complete(7)
    near = (pairs.first == 2) | (pairs.second == 2)
    pairs = sort(pairs.first, pairs.second, np.where(near, 0.2, 1.2))
    values = np.random.default_rng(0).normal(size=21)
    bins = binned(pairs, values, np.array([0, 0.5, 2]))
    assert bins.num_pairs.tolist() == [6, 15]
    assert np.isnan([bins.low[0], bins.high[0]]).all()
    assert bins.low[1] < bins.high[1]


def agreeing(examples: int, same_set: bool, near: int = 0) -> tuple[ClassPairs, np.ndarray]:
    """Pairs of ``examples`` examples, or of as many in each of two sets; those of the first
    ``near`` among themselves lie in a bin of their own. Also the strata."""
    if same_set:
        first, second = np.triu_indices(examples, k=1)
    else:
        first, second = (one.ravel() for one in np.indices((examples, examples)))
        second = second + examples
    distances = np.where((first < near) & (second % examples < near), 0.2, 1.2)
    order = np.argsort(distances, kind="stable")
    pairs = ClassPairs(first[order], second[order], distances[order], same_set=same_set)
    return pairs, np.repeat([0, 1], examples)[: examples if same_set else None]


def bound(examples: int) -> float:
    """1 - 2 q, with q at the upper end of Wilson's interval of none of ``examples``."""
    return 1 - 2 * float(binomtest(0, examples).proportion_ci(method="wilson").high)


@pytest.mark.parametrize("same_set", [True, False])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_bin_whose_pairs_all_agree_has_an_interval_of_wilsons_type(sign, same_set):
    pairs, strata = agreeing(12, same_set, near=8)
    signs = np.where(pairs.distances < 1, sign, -sign)
    made = distance_stiffness(
        ResampledPairs(pairs, np.array([0, 1, 2.0]), draw_weights(strata, 200, 0)), signs
    )
    bins = made.bins
    np.testing.assert_array_equal(bins.value, [sign, -sign])
    # By the examples of a bin, not by its pairs: 8 near ones; all 12 have a far pair.
    ends = [sorted([side, side * bound(n) ** 2]) for side, n in ((sign, 8), (-sign, 12))]
    np.testing.assert_allclose(np.stack([bins.low, bins.high], 1), ends, rtol=1e-12)


def test_each_set_of_a_bin_has_a_bound_of_its_own():
    first, second = (one.ravel() for one in np.indices((5, 9)))
    pairs = ClassPairs(first, second + 5, np.full(45, 0.5), same_set=False)
    weights = draw_weights(np.repeat([0, 1], [5, 9]), 200, 0)
    bins = distance_stiffness(ResampledPairs(pairs, np.array([0, 1.0]), weights), np.ones(45)).bins
    np.testing.assert_allclose(bins.low, bound(5) * bound(9), rtol=1e-12)


@pytest.mark.parametrize(("examples", "known"), [(3, False), (4, True)])
def test_three_examples_of_a_set_say_too_little_of_a_bin(examples, known):
    first, second = (one.ravel() for one in np.indices((examples, 20)))
    pairs = ClassPairs(first, second + examples, np.full(20 * examples, 0.5), same_set=False)
    weights = draw_weights(np.repeat([0, 1], [examples, 20]), 200, 0)
    resampled = ResampledPairs(pairs, np.array([0, 1.0]), weights)
    bins = distance_stiffness(resampled, np.ones(20 * examples)).bins
    assert (bins.value == 1).all()
    assert np.isfinite([bins.low, bins.high]).all() == known
    # Where one pair disagrees, the bootstrap has something to go by.
    bins = distance_stiffness(resampled, np.append(np.ones(20 * examples - 1), -1)).bins
    assert bins.low[0] < bins.value[0] < bins.high[0]


@MODES
def test_pairs_know_whether_they_are_of_one_set(mode):
    distances = distances_from_matrix(random_distances())
    pairs = same_class_pairs(distances, CLASSES, NUM_TRAIN, mode)
    assert pairs.same_set == (mode != "train-val")
    assert defined_pairs(pairs, np.ones(len(CLASSES), bool)).same_set == pairs.same_set


def test_no_pair_gives_no_bin():
    empty = np.zeros(0, np.int64)
    pairs = ClassPairs(empty, empty, np.zeros(0))
    assert len(binned(pairs, np.zeros(0), np.linspace(0, 1, 4)).value) == 0


@MODES
def test_chunks_and_runs_change_nothing(mode, monkeypatch):
    pairs, values = random_pairs(mode)
    whole = make(pairs, values, strata=STRATA)
    monkeypatch.setattr("stiffness.measures.distance._CHUNK", 60 * 7)
    monkeypatch.setattr("stiffness.measures.distance._BLOCK", 20)
    chunked = make(pairs, values, strata=STRATA)
    for found, expected in zip(chunked.lengths, whole.lengths, strict=True):
        np.testing.assert_allclose(found.replicates, expected.replicates, rtol=1e-5)
    np.testing.assert_allclose(chunked.bins.low, whole.bins.low, rtol=1e-5)
    # Fewer runs than pairs: the monotone crossings are coarser, the rest is what it was.
    monkeypatch.setattr("stiffness.measures.distance._CUTS", 8)
    coarse = make(pairs, values, strata=STRATA)
    np.testing.assert_allclose(coarse.bins.low, whole.bins.low, rtol=1e-5)
    np.testing.assert_allclose(coarse.lengths[0].replicates, whole.lengths[0].replicates, rtol=1e-4)
    assert coarse.lengths[1].value == whole.lengths[1].value
    apart = np.abs(np.arctan(coarse.lengths[1].replicates) - np.arctan(whole.lengths[1].replicates))
    assert 0 < np.nanmax(apart) < 0.5


def test_one_set_of_resamples_serves_many_values():
    pairs, values = random_pairs("train-val")
    weights = draw_weights(STRATA, 60, 0)
    shared = ResampledPairs(pairs, np.linspace(0, 2, 7), weights)
    distance_stiffness(shared, -values)
    again, alone = distance_stiffness(shared, values), make(pairs, values, strata=STRATA)
    for name in ("value", "low", "high"):
        np.testing.assert_array_equal(getattr(again.bins, name), getattr(alone.bins, name))
    for found, expected in zip(again.lengths, alone.lengths, strict=True):
        np.testing.assert_array_equal(found.replicates, expected.replicates)


def test_what_rests_on_a_lone_example_has_no_interval():
    # Examples 0 to 4 are of one class, and example 5 is a validation example by itself.
    distances = np.random.default_rng(0).uniform(0.1, 1.4, 5)
    pairs = sort(np.arange(5), np.full(5, 5), distances)
    weights = draw_weights(np.array([0, 0, 0, 0, 0, 1]), 60, 0)
    made = distance_stiffness(ResampledPairs(pairs, np.linspace(0, 2, 3), weights), 1 - distances)
    assert np.isfinite(made.bins.value).all()
    assert np.isnan([made.bins.low, made.bins.high]).all()
    for length in made.lengths:
        assert np.isnan([length.low, length.high]).all()


# --- the critical length -------------------------------------------------------------------------


def test_a_crossing_within_the_data_is_measured():
    pairs = complete(6)
    fit = critical_length(pairs, 0.6 - 0.5 * pairs.distances)
    assert fit.crossing == MEASURED
    assert fit.value == pytest.approx(1.2, rel=1e-12)
    assert (fit.low, fit.high) == (pytest.approx(1.2, rel=1e-5), pytest.approx(1.2, rel=1e-5))
    assert (fit.slope, fit.intercept) == (pytest.approx(-0.5), pytest.approx(0.6))
    assert fit.max_distance == pairs.distances.max() > 1.2
    assert fit.num_pairs == 15


def test_a_crossing_at_the_farthest_pair_is_measured():
    pairs = complete(7, np.arange(12, 33) / 32)
    fit = critical_length(pairs, 1 - pairs.distances)
    assert fit.value == 1.0
    assert fit.crossing == MEASURED


def test_a_crossing_beyond_the_data_is_extrapolated():
    pairs = complete(6)
    fit = critical_length(pairs, 0.9 - 0.5 * pairs.distances)
    assert fit.crossing == EXTRAPOLATED
    assert fit.value == pytest.approx(1.8, rel=1e-12)
    assert fit.max_distance < 1.8


def test_a_crossing_nearer_than_the_nearest_pair_is_not_measured():
    # Every pair is below 0: no distance at which stiffness reaches 0 was seen.
    pairs = complete(6, np.linspace(0.3, 1.4, 15))
    fit = critical_length(pairs, 0.1 - pairs.distances)
    assert fit.crossing != MEASURED


NO_CROSSING = {
    "rising": lambda x: 0.1 + 0.5 * x,
    "rising from below": lambda x: -0.5 + 0.5 * x,
    "flat": lambda x: np.full_like(x, 0.3),
    "flat at 0": np.zeros_like,
    "flat at 1": np.ones_like,
    "flat to 1e-16": lambda x: 0.3 - 1e-16 * np.arange(len(x)),
    "1e-16 throughout": lambda x: 1e-16 * (1 - x),
    "flat to float32": lambda x: 0.3 - 3e-8 * x,
    "negative and falling": lambda x: -0.2 - 0.3 * x,
    "negative and flat": lambda x: np.full_like(x, -0.2),
    "noise": lambda x: 0.5 + np.random.default_rng(0).normal(scale=0.3, size=len(x)),
}


@pytest.mark.parametrize("name", NO_CROSSING)
def test_no_crossing_is_undefined(name):
    pairs = complete(7)
    fit = critical_length(pairs, NO_CROSSING[name](pairs.distances))
    assert fit.crossing == NONE
    assert np.isnan([fit.value, fit.low, fit.high]).all()
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert fit.num_pairs == 21
    # The monotone fit never invents one either.
    assert critical_length(pairs, NO_CROSSING[name](pairs.distances), "monotone").crossing in (
        {BEYOND, MEASURED} if name == "noise" else {BEYOND, NONE}
    )


def test_a_fit_flat_to_rounding_has_no_crossing_at_2e15():
    # As the sign metric gave it on real data: 1 everywhere, and a slope of -5e-16.
    pairs = complete(30)
    values = 1 - 5e-16 * np.arange(len(pairs.distances))
    slope, intercept = np.polyfit(pairs.distances, values, 1)
    assert slope == 0 or abs(intercept / slope) > 1e10
    line = critical_length(pairs, values)
    assert line.crossing == NONE
    assert not np.isfinite(line.replicates).any()
    monotone = critical_length(pairs, values, "monotone")
    assert monotone.crossing == BEYOND
    assert np.isnan(monotone.value)


def test_resamples_flat_to_rounding_have_no_crossing_either():
    # All is 1 but the pairs of example 0: without it a line is flat, and float32 must not tilt it.
    pairs = complete(12, seed=1)
    values = np.where((pairs.first == 0) & (pairs.distances > 1), 0.9, 1)
    line = critical_length(pairs, values)
    without = draw_weights(np.zeros(12, int), 60, 0)[0] == 0
    assert without.sum() > 10
    assert np.isinf(line.replicates[without]).all()


def test_a_slope_that_may_be_zero_has_no_crossing():
    # It falls, but its interval reaches 0.
    pairs, _ = random_pairs("train-val")
    noise = np.random.default_rng(4).normal(size=len(pairs.distances))
    fit = critical_length(pairs, 0.5 - 0.1 * pairs.distances + noise)
    assert fit.slope < 0 < fit.slope_high
    assert fit.crossing == NONE
    assert np.isnan(fit.value)


FEW = {
    "no pair": complete(1),
    "one pair": complete(2, np.array([0.5])),
    "two pairs": ClassPairs(np.array([0, 0]), np.array([1, 2]), np.array([0.5, 0.8])),
    "one distance": complete(4, np.full(6, 0.7)),
}


@pytest.mark.parametrize("name", FEW)
def test_too_few_pairs_have_no_line(name):
    pairs = FEW[name]
    number = len(pairs.distances)
    fit = critical_length(pairs, np.linspace(0.9, 0.1, number))
    assert fit.crossing == NONE
    assert np.isnan([fit.value, fit.low, fit.high, fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high]).all()
    assert np.isnan(fit.replicates).all()
    assert fit.num_pairs == number
    farthest = pairs.distances.max() if number else np.nan
    assert fit.max_distance == pytest.approx(farthest, nan_ok=True)


@pytest.mark.parametrize("seed", [1, 6, 9, 17])
def test_three_pairs_have_a_line_without_an_interval(seed):
    # Two of three examples are one pair, and one pair has no slope.
    pairs = complete(3, seed=seed)
    values = 0.8 - pairs.distances + np.random.default_rng(seed).normal(scale=0.01, size=3)
    fit = critical_length(pairs, values)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high, fit.low, fit.high]).all()


def test_resamples_at_one_distance_have_no_line():
    # Only the pairs of example 0 are at other distances: without it there is no slope.
    pairs = complete(5)
    distances = np.where(pairs.first == 0, pairs.distances, 0.7)
    pairs = sort(pairs.first, pairs.second, distances)
    values = 0.8 - pairs.distances + np.random.default_rng(0).normal(scale=0.01, size=10)
    fit = critical_length(pairs, values)
    without = draw_weights(np.zeros(5, int), 60, 0)[0] == 0
    assert without.any()
    assert np.isnan(fit.replicates[without]).all()
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high, fit.low, fit.high]).all()


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_the_line_is_that_of_polyfit(mode, seed):
    pairs, values = random_pairs(mode, seed)
    fit = critical_length(pairs, values)
    slope, intercept = np.polyfit(pairs.distances, values, 1)
    assert fit.slope == pytest.approx(slope, rel=1e-9)
    assert fit.intercept == pytest.approx(intercept, rel=1e-9)
    assert fit.value == pytest.approx(-intercept / slope, rel=1e-9)


def antitonic_zero(distances: np.ndarray, values: np.ndarray) -> float:
    """Where scikit-learn's fit stops being above 0: half-way between two distances, 0 or inf."""
    if len(distances) == 0:
        return np.nan
    fit = IsotonicRegression(increasing=False).fit(distances, values)
    levels = np.unique(distances)
    above = fit.predict(levels) > 1e-9
    if not above.any():
        return 0.0
    last = int(above.sum()) - 1
    return np.inf if above.all() else float(levels[last : last + 2].mean())


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_replicates_of_crossings_are_those_of_literal_resamples(mode, seed):
    pairs, values = random_pairs(mode, seed)
    slopes, crossings, zeros = [], [], []
    for distances, found in literal_resamples(pairs, values):
        if len(np.unique(distances)) < 2:
            slopes.append(np.nan)
            crossings.append(np.nan)
        else:
            slope, intercept = np.polyfit(distances, found, 1)
            slopes.append(slope)
            crossings.append(max(-intercept / slope, 0) if slope < 0 else np.inf)
        zeros.append(antitonic_zero(distances, found))
    line = critical_length(pairs, values, strata=STRATA)
    ends = percentile_interval(np.array(slopes))
    assert np.isfinite(ends).all()
    np.testing.assert_allclose([line.slope_low, line.slope_high], ends, rtol=1e-4)
    np.testing.assert_allclose(line.replicates, crossings, rtol=1e-4)
    np.testing.assert_allclose(
        [line.low, line.high], percentile_interval(np.array(crossings)), rtol=1e-4
    )
    monotone = critical_length(pairs, values, "monotone", strata=STRATA)
    np.testing.assert_allclose(monotone.replicates, zeros, rtol=1e-6)
    assert {0 < zero < np.inf for zero in zeros} >= {True}


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_monotone_crossing_is_that_of_an_antitonic_fit(seed, rounded):
    generator = np.random.default_rng(seed)
    pairs = complete(12, generator.uniform(0.1, 1.4, 66))
    if rounded:  # many pairs at one distance
        pairs = sort(pairs.first, pairs.second, np.round(pairs.distances, 1))
    values = 0.5 - generator.uniform(0, 1) * pairs.distances + generator.normal(0, 0.5, 66)
    fit = critical_length(pairs, values, "monotone")
    expected = antitonic_zero(pairs.distances, values)
    if np.isinf(expected):
        assert fit.crossing == BEYOND
        assert np.isnan(fit.value)
    else:
        assert fit.crossing == MEASURED
        assert fit.value == pytest.approx(expected, rel=1e-12)


def test_pairs_at_one_distance_are_one_in_any_order():
    distances = np.repeat([0.2, 0.6, 1.0], [5, 5, 5])
    values = np.concatenate([np.full(5, 0.5), [-1, -1, 1, 1, 1], np.full(5, -0.5)])
    pairs = complete(6, distances)
    expected = critical_length(pairs, values, "monotone")
    assert expected.value == 0.8
    turned = values.copy()
    turned[5:10] = turned[5:10][::-1]
    assert critical_length(pairs, turned, "monotone").value == 0.8


def test_four_kinds_of_crossing_are_kept_apart():
    pairs = complete(20)
    x = pairs.distances
    found = {
        name: tuple(critical_length(pairs, values, one).crossing for one in ESTIMATORS[:2])
        for name, values in {
            "inside": 0.5 - 0.5 * x,
            "outside": 0.9 - 0.5 * x,
            "flat": np.ones_like(x),
            "below": -0.2 - 0.5 * x,
        }.items()
    }
    assert found == {
        "inside": (MEASURED, MEASURED),
        "outside": (EXTRAPOLATED, BEYOND),
        "flat": (NONE, BEYOND),
        "below": (NONE, NONE),
    }


def test_beyond_the_data_xi_has_a_lower_bound_and_no_upper_one():
    pairs = complete(25)
    noise = np.random.default_rng(0).normal(scale=0.3, size=len(pairs.distances))
    fit = critical_length(pairs, 0.85 - 0.5 * pairs.distances + noise, "monotone", resamples=200)
    assert fit.crossing == BEYOND
    assert np.isnan(fit.value)
    assert 0.5 < fit.low <= fit.max_distance
    assert fit.high == np.inf


def test_a_monotone_crossing_before_the_last_pair_lies_in_its_interval():
    # The last pair alone is below 0, by less than one of the others of its run of ten is above it:
    # few resamples cross within the data.
    pairs = complete(100)
    values = np.ones(len(pairs.distances))
    values[-1] = -0.1
    fit = critical_length(pairs, values, "monotone")
    assert fit.crossing == MEASURED
    assert fit.value == pytest.approx(pairs.distances[-2:].mean())
    assert np.isinf(fit.replicates).mean() > 0.975
    assert fit.low <= fit.value < fit.high


def test_where_no_resample_crosses_the_farthest_pair_is_the_lower_bound():
    pairs = complete(9)
    fit = critical_length(pairs, np.ones_like(pairs.distances), "monotone")
    assert np.isinf(fit.replicates).all()
    assert (fit.low, fit.high) == (fit.max_distance, np.inf)


def test_stiffness_below_0_has_replicates_at_0():
    pairs = complete(8)
    for estimator in ("line", "monotone"):
        fit = critical_length(pairs, -0.2 - 0.5 * pairs.distances, estimator)
        assert fit.crossing == NONE
        assert (fit.replicates == 0).all()


@pytest.mark.parametrize("scale", [0.5, 0.01, 1000.0])
def test_the_crossing_does_not_depend_on_the_scale_of_stiffness(scale):
    pairs, values = random_pairs("train-train")
    fit, scaled = critical_length(pairs, values), critical_length(pairs, scale * values)
    assert scaled.crossing == fit.crossing == MEASURED
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(fit, name), rel=1e-4)
    for name in ("slope", "slope_low", "slope_high", "intercept"):
        assert getattr(scaled, name) == pytest.approx(scale * getattr(fit, name), rel=1e-4)


def test_the_crossing_scales_with_distance():
    pairs, values = random_pairs("train-train")
    half = ClassPairs(pairs.first, pairs.second, pairs.distances / 2)
    fit, scaled = critical_length(pairs, values), critical_length(half, values)
    assert scaled.value == pytest.approx(fit.value / 2, rel=1e-9)
    assert scaled.high == pytest.approx(fit.high / 2, rel=1e-4)


# --- coverage ------------------------------------------------------------------------------------

DRAWS, RATE = 250, 0.95
# Three binomial standard deviations: 0.909 to 0.991.
TOLERANCE = 3 * (RATE * (1 - RATE) / DRAWS) ** 0.5
EXAMPLES = 40


@pytest.fixture(scope="module")
def coverage() -> dict[str, float]:
    """How often intervals cover the truth for stiffness 0.6 - 0.5 d with the noise of examples.

    Example i has a height a_i and a place u_i; the pair's distance is (u_i + u_j) / 2 + 0.2 and its
    stiffness 0.6 - 0.5 d + a_i + a_j + noise of its own, so that pairs which share an example are
    dependent. Least squares are unbiased for the line, whose zero is 1.2; the least-squares
    antitonic fit is of the same function.
    """
    generator = np.random.default_rng(0)
    weights = draw_weights(np.zeros(EXAMPLES, int), 200, 0)
    first, second = np.triu_indices(EXAMPLES, k=1)
    edges = np.linspace(0.2, 1.8, 5)
    covered = dict.fromkeys(("line", "slope", "monotone", *range(4)), 0)
    for _ in range(DRAWS):
        places = generator.uniform(0, 1.6, EXAMPLES)
        heights = generator.normal(0, 0.1, EXAMPLES)
        pairs = sort(first, second, (places[first] + places[second]) / 2 + 0.2)
        noise = heights[pairs.first] + heights[pairs.second]
        noise += generator.normal(0, 0.3, len(noise))
        made = distance_stiffness(
            ResampledPairs(pairs, edges, weights), 0.6 - 0.5 * pairs.distances + noise
        )
        for length in made.lengths[:2]:
            covered[length.estimator] += length.low <= 1.2 <= length.high
        covered["slope"] += made.lengths[0].slope_low <= -0.5 <= made.lengths[0].slope_high
        # A sum of two uniform numbers has a triangular density; a bin's mean follows from it.
        for number, (low, high) in enumerate(pairwise(edges)):
            grid = np.linspace(low, high, 2001)
            density = 0.8 - np.abs(grid - 1.0)
            true = 0.6 - 0.5 * np.average(grid, weights=density)
            covered[number] += made.bins.low[number] <= true <= made.bins.high[number]
    return {name: hits / DRAWS for name, hits in covered.items()}


@pytest.mark.parametrize("name", ["line", "slope", "monotone", *range(4)])
def test_intervals_cover_the_truth_in_95_percent_of_draws(coverage, name):
    assert abs(coverage[name] - RATE) <= TOLERANCE


def anti_stiff_coverage(
    each: int, share: float, rule: str, same_set: bool, draws: int
) -> tuple[float, float]:
    """How often intervals of bins, and of the area, cover the truth where few examples disagree.

    A pair is anti-stiff where one of its two examples is; two such are stiff (product), or not
    (any). Bins without an interval do not count.
    """
    generator = np.random.default_rng(each)
    truth = (1 - 2 * share) ** 2 if rule == "product" else 2 * (1 - share) ** 2 - 1
    whole, strata = agreeing(each, same_set)
    weights, edges, radius = draw_weights(strata, 200, 0), np.linspace(0, 1.8, 7), 1.4
    hits, known, areas = 0, 0, 0
    for _ in range(draws):
        places = generator.uniform(0, 1.6, len(strata))
        stiff = np.where(generator.random(len(strata)) < share, -1.0, 1.0)
        distances = (places[whole.first] + places[whole.second]) / 2 + 0.1
        order = np.argsort(distances)
        pairs = ClassPairs(
            whole.first[order], whole.second[order], distances[order], same_set=same_set
        )
        a, b = stiff[pairs.first], stiff[pairs.second]
        values = a * b if rule == "product" else np.minimum(a, b)
        made = distance_stiffness(ResampledPairs(pairs, edges, weights, radius), values)
        bins, area = made.bins, made.of("area")
        hits += int(((bins.low <= truth) & (truth <= bins.high)).sum())
        known += int(np.isfinite(bins.low).sum())
        # The curve falls from 1 at distance 0 to the first bin.
        true_area = truth + (1 - truth) * bins.distance[0] / 2 / radius
        areas += area.low <= true_area <= area.high
    return hits / known, areas / draws


def test_ten_draws_of_bins_cover_the_truth_where_few_examples_are_anti_stiff():
    # Percentiles alone cover it in about 0.3 of the bins: where all pairs agree they have no width.
    assert min(anti_stiff_coverage(10, 0.02, "product", False, 10)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("same_set", [True, False])
@pytest.mark.parametrize("rule", ["product", "any"])
@pytest.mark.parametrize("share", [0.02, 0.05])
@pytest.mark.parametrize("each", [10, 50])
def test_bins_cover_the_truth_where_a_few_examples_are_anti_stiff(each, share, rule, same_set):
    # In 200 draws an area's coverage of 0.95 shows as less than 0.90 once in 500 times.
    coverage = anti_stiff_coverage(each, share, rule, same_set, 200)
    assert min(coverage) >= 0.9, coverage
