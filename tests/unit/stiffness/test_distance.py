"""Stiffness against input distance, and the critical length (sections 2.5, 4.4, 4.5)."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from stiffness.stiffness.distance import (
    EXTRAPOLATED,
    MEASURED,
    NONE,
    ClassPairs,
    binned,
    critical_length,
    defined_pairs,
    jackknife_error,
    same_class_pairs,
)
from stiffness.stiffness.pairs import PAIR_MODES, Z95

NUM_TRAIN = 12
CLASSES = np.concatenate([np.repeat([0, 1, 2], [3, 5, 4]), np.repeat([0, 1, 2], [4, 3, 3])])
MODES = pytest.mark.parametrize("mode", PAIR_MODES)


def random_distances(seed: int = 0) -> np.ndarray:
    inputs = np.random.default_rng(seed).normal(size=(len(CLASSES), 3))
    inputs /= np.linalg.norm(inputs, axis=1, keepdims=True)
    return (1 - inputs @ inputs.T).clip(0, 2).astype(np.float32)


def random_pairs(mode: str, seed: int = 0) -> tuple[ClassPairs, np.ndarray]:
    """Pairs, and a stiffness that falls with their distance, with noise."""
    pairs = same_class_pairs(random_distances(seed), CLASSES, NUM_TRAIN, mode)
    noise = np.random.default_rng(seed + 100).normal(scale=0.1, size=len(pairs.distances))
    return pairs, 0.8 - 0.7 * pairs.distances + noise


def literal_jackknife(pairs: ClassPairs, statistic: Callable) -> np.ndarray:
    """Delete one example, recompute ``statistic`` of the mask of pairs that are left."""
    strata: dict[int, list] = {}
    for example in sorted({*pairs.first.tolist(), *pairs.second.tolist()}):
        left_out = statistic((pairs.first != example) & (pairs.second != example))
        strata.setdefault(int(pairs.strata[example]), []).append(left_out)
    variance = 0.0
    for left_out in strata.values():
        number, spread = len(left_out), np.array(left_out) - np.mean(left_out, axis=0)
        variance = variance + (number - 1) / number * (spread**2).sum(axis=0)
    return np.sqrt(variance)


def complete(number: int, distances: np.ndarray | None = None, seed: int = 0) -> ClassPairs:
    """All pairs of ``number`` examples of one class."""
    first, second = np.triu_indices(number, k=1)
    if distances is None:
        distances = np.random.default_rng(seed).uniform(0.1, 1.4, len(first))
    return ClassPairs(first, second, distances, np.zeros(number, np.int64))


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
    pairs = same_class_pairs(distances, CLASSES, NUM_TRAIN, mode)
    numbers = zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    found = dict(zip(numbers, pairs.distances, strict=True))
    assert len(found) == len(pairs.first)
    assert found == expected


def test_strata_are_class_and_set():
    strata = same_class_pairs(random_distances(), CLASSES, NUM_TRAIN, "train-val").strata
    groups = {}
    for example, stratum in enumerate(strata):
        groups.setdefault(stratum, set()).add((CLASSES[example], example < NUM_TRAIN))
    assert all(len(group) == 1 for group in groups.values())
    assert len(groups) == 6


def test_pairs_of_an_undefined_example_are_left_out():
    pairs = same_class_pairs(random_distances(), CLASSES, NUM_TRAIN, "train-val")
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
    assert len(bins.error) == 2


def test_a_bin_has_its_left_edge_and_the_last_one_both():
    pairs = complete(3, np.array([0.0, 0.5, 1.0]))
    bins = binned(pairs, np.array([1.0, 2.0, 4.0]), np.array([0.0, 0.5, 1.0]))
    np.testing.assert_array_equal(bins.value, [1.0, 3.0])
    np.testing.assert_array_equal(bins.num_pairs, [1, 2])


@MODES
def test_errors_of_bins_are_those_of_a_literal_jackknife(mode):
    pairs, values = random_pairs(mode)
    edges = np.array([0, 0.9, 2.0])
    upper = pairs.distances >= 0.9

    def means(left: np.ndarray) -> list[float]:
        return [values[left & ~upper].mean(), values[left & upper].mean()]

    expected = literal_jackknife(pairs, means)
    assert (expected > 0).all()
    np.testing.assert_allclose(binned(pairs, values, edges).error, expected, rtol=1e-9)


def test_a_bin_that_hangs_on_one_example_has_no_error():
    # All near pairs are of example 2, which is first in some and second in others.
    pairs = complete(7)
    near = (pairs.first == 2) | (pairs.second == 2)
    distances = np.where(near, 0.2, 1.2)
    pairs = ClassPairs(pairs.first, pairs.second, distances, pairs.strata)
    for seed in range(5):
        values = np.random.default_rng(seed).normal(size=len(distances))
        bins = binned(pairs, values, np.array([0, 0.5, 2]))
        assert bins.num_pairs.tolist() == [6, 15]
        assert np.isnan(bins.error[0])
        assert bins.error[1] > 0


def test_no_pair_gives_no_bin():
    empty = np.zeros(0, np.int64)
    pairs = ClassPairs(empty, empty, np.zeros(0), np.zeros(3, np.int64))
    assert len(binned(pairs, np.zeros(0), np.linspace(0, 1, 4)).value) == 0


def test_jackknife_of_a_mean_is_the_standard_error():
    values = np.random.default_rng(0).normal(size=9)
    left_out = np.array([np.delete(values, i).mean() for i in range(9)])[:, None]
    error = jackknife_error(left_out, np.zeros(9, np.int64), np.ones(9, bool))
    np.testing.assert_allclose(error, [values.std(ddof=1) / 3], rtol=1e-12)


def test_jackknife_is_undefined_for_a_stratum_of_one():
    error = jackknife_error(np.ones((3, 2)), np.array([0, 0, 1]), np.ones(3, bool))
    assert np.isnan(error).all()


# --- the critical length -------------------------------------------------------------------------


def test_a_crossing_within_the_data_is_measured():
    pairs = complete(6)
    fit = critical_length(pairs, 0.6 - 0.5 * pairs.distances)
    assert fit.crossing == MEASURED
    assert fit.value == pytest.approx(1.2, rel=1e-12)
    assert (fit.low, fit.high) == (pytest.approx(1.2), pytest.approx(1.2))
    assert (fit.slope, fit.intercept) == (pytest.approx(-0.5), pytest.approx(0.6))
    assert fit.max_distance == pairs.distances.max() > 1.2
    assert fit.num_pairs == 15


def test_a_crossing_at_the_farthest_pair_is_measured():
    pairs = complete(4, np.array([0.125, 0.25, 0.375, 0.5, 0.75, 1.0]))
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
    "two pairs": ClassPairs(
        np.array([0, 0]), np.array([1, 2]), np.array([0.5, 0.8]), np.zeros(3, np.int64)
    ),
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
    assert fit.num_pairs == number
    farthest = pairs.distances.max() if number else np.nan
    assert fit.max_distance == pytest.approx(farthest, nan_ok=True)


@pytest.mark.parametrize("seed", [1, 6, 9, 17])
def test_three_pairs_have_a_line_without_an_error(seed):
    # Without any of the three examples one pair is left, and one pair has no slope.
    pairs = complete(3, seed=seed)
    values = 0.8 - pairs.distances + np.random.default_rng(seed).normal(scale=0.01, size=3)
    fit = critical_length(pairs, values)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high, fit.low, fit.high]).all()


def test_one_distance_without_an_example_has_no_error():
    # Only the pairs of example 0 are at other distances: without it there is no slope.
    pairs = complete(5)
    distances = np.where(pairs.first == 0, pairs.distances, 0.7)
    pairs = ClassPairs(pairs.first, pairs.second, distances, pairs.strata)
    values = 0.8 - distances + np.random.default_rng(0).normal(scale=0.01, size=10)
    fit = critical_length(pairs, values)
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


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_intervals_are_those_of_a_literal_jackknife(mode, seed):
    pairs, values = random_pairs(mode, seed)

    def slope_and_crossing(left: np.ndarray) -> list[float]:
        slope, intercept = np.polyfit(pairs.distances[left], values[left], 1)
        return [slope, -intercept / slope]

    slope_error, crossing_error = literal_jackknife(pairs, slope_and_crossing)
    fit = critical_length(pairs, values)
    assert fit.slope_low == pytest.approx(fit.slope - Z95 * slope_error, rel=1e-8)
    assert fit.slope_high == pytest.approx(fit.slope + Z95 * slope_error, rel=1e-8)
    assert fit.low == pytest.approx(fit.value - Z95 * crossing_error, rel=1e-8)
    assert fit.high == pytest.approx(fit.value + Z95 * crossing_error, rel=1e-8)


@pytest.mark.parametrize("scale", [0.5, 0.01, 1000.0])
def test_the_crossing_does_not_depend_on_the_scale_of_stiffness(scale):
    pairs, values = random_pairs("train-train")
    fit, scaled = critical_length(pairs, values), critical_length(pairs, scale * values)
    assert scaled.crossing == fit.crossing == MEASURED
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(fit, name), rel=1e-9)
    for name in ("slope", "slope_low", "slope_high", "intercept"):
        assert getattr(scaled, name) == pytest.approx(scale * getattr(fit, name), rel=1e-9)


def test_the_crossing_scales_with_distance():
    pairs, values = random_pairs("train-train")
    half = ClassPairs(pairs.first, pairs.second, pairs.distances / 2, pairs.strata)
    fit, scaled = critical_length(pairs, values), critical_length(half, values)
    assert scaled.value == pytest.approx(fit.value / 2, rel=1e-9)
    assert scaled.high == pytest.approx(fit.high / 2, rel=1e-9)
