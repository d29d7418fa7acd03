"""Pairs at distances, and what tests of stiffness against distance make of them."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from stiffness.measures.bootstrap import draw_weights
from stiffness.measures.distance import (
    Bins,
    ClassPairs,
    ResampledPairs,
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
