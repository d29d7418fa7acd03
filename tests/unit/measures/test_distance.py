"""Pairs of one class and bins of their distance (sections 2.5 and 4.4)."""

from itertools import pairwise

import numpy as np
import pytest
from distance_cases import (
    CLASSES,
    MODES,
    NUM_TRAIN,
    STRATA,
    agreeing,
    binned,
    complete,
    literal_resamples,
    make,
    random_distances,
    random_pairs,
    sort,
)
from scipy.stats import binomtest

from stiffness.measures.bootstrap import draw_weights, percentile_interval
from stiffness.measures.distance import (
    ClassPairs,
    ResampledPairs,
    defined_pairs,
    distances_from_matrix,
    same_class_pairs,
)
from stiffness.measures.lengths import distance_stiffness

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
