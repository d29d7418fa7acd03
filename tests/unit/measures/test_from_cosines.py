"""Class stiffness and critical length of a matrix, as a notebook asks for them."""

import numpy as np
import pytest
import torch

from stiffness import StiffnessError, class_stiffness, cosine_distances, critical_length


@pytest.fixture(scope="module")
def cosines() -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    vectors[:, 0] += np.arange(40) % 2
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T


LABELS = np.arange(40) % 2
NAMES = ["odd" if label else "even" for label in LABELS]


@pytest.mark.parametrize("metric", ["sign", "cosine"])
def test_means_over_the_pairs_of_two_classes(cosines, metric):
    values = np.sign(cosines) if metric == "sign" else cosines
    found = class_stiffness(torch.from_numpy(cosines), NAMES, metric)
    apart = ~np.eye(40, dtype=bool)
    for a in (0, 1):
        for b in (0, 1):
            chosen = (LABELS[:, None] == a) & (b == LABELS) & apart
            assert found.matrix[a, b] == pytest.approx(values[chosen].mean())
            assert found.low[a, b] <= found.matrix[a, b] <= found.high[a, b]
    assert found.within.value == pytest.approx(found.matrix.diagonal().mean())
    assert found.between.value == pytest.approx(found.matrix[0, 1])
    assert found.within.low < found.within.value < found.within.high


def test_pairs_of_a_training_and_a_validation_example(cosines):
    found = class_stiffness(cosines, LABELS, "cosine", num_train=24)
    chosen = (LABELS[:24, None] == 0) & (LABELS[24:] == 1)
    assert found.matrix[0, 1] == pytest.approx(cosines[:24, 24:][chosen].mean())
    assert found.num_pairs.sum() == 24 * 16
    own = class_stiffness(cosines, LABELS, "cosine", num_train=24, pair_mode="val-val")
    alone = class_stiffness(cosines[24:, 24:], LABELS[24:], "cosine")
    assert own.matrix == pytest.approx(alone.matrix)


def test_each_class_of_each_set_is_drawn_by_itself(cosines):
    # So a resample always has one of two training examples, and never one that is alone.
    for number, known in ((2, True), (1, False)):
        labels = np.array([*[0] * number, *[1] * (10 - number), *[0, 1] * 15])
        low = class_stiffness(cosines, labels, "cosine", num_train=10).low
        assert np.isfinite(low).tolist() == [[known, known], [True, True]]


def test_an_example_without_a_gradient_has_no_cosine(cosines):
    gone = cosines.copy()
    gone[3] = gone[:, 3] = np.nan
    kept = np.arange(40) != 3
    found, expected = (
        class_stiffness(matrix, labels, "cosine")
        for matrix, labels in ((gone, LABELS), (cosines[np.ix_(kept, kept)], LABELS[kept]))
    )
    assert found.matrix == pytest.approx(expected.matrix)
    # Its sign is 0 (section 2.1), which counts.
    assert class_stiffness(gone, LABELS, "sign").num_pairs.sum() == 40 * 39 / 2 + 20 * 20


def test_the_line_crosses_where_it_was_drawn():
    inputs = torch.randn(80, 2, generator=torch.Generator().manual_seed(0))
    distances = cosine_distances(inputs).double()
    labels = np.arange(80) % 2
    found = critical_length(1 - distances / 1.4, labels, distances, "cosine")
    assert found.line.crossing == "measured"
    assert found.line.value == pytest.approx(1.4, abs=1e-6)
    assert found.line.low <= found.line.value <= found.line.high
    assert found.of("monotone").value == pytest.approx(1.4, abs=0.05)  # between two pairs
    area = found.of("area")
    # The integral over bins of a line: each bin's mean stands for its middle.
    assert area.value == pytest.approx(1 - area.radius / 2.8, abs=0.02)
    assert area.low <= area.value <= area.high
    assert found.of("decay").value > 0
    assert found.bins.num_pairs.sum() == 2 * 40 * 39 / 2
    halves = critical_length(1 - distances / 1.4, labels, distances, "cosine", num_train=50)
    assert halves.bins.num_pairs.sum() == 2 * 25 * 15


def test_arguments_that_do_not_fit_are_named(cosines):
    with pytest.raises(StiffnessError, match=r"cosines, labels: .* got \[40, 40\] and \[39\]"):
        class_stiffness(cosines, LABELS[1:])
    with pytest.raises(StiffnessError, match="metric: unknown 'cos'; known: sign, cosine"):
        class_stiffness(cosines, LABELS, "cos")
    with pytest.raises(StiffnessError, match="pair_mode: unknown 'train'; known: train-train"):
        class_stiffness(cosines, LABELS, num_train=3, pair_mode="train")
    with pytest.raises(StiffnessError, match="num_train: must lie between 0 and 40, got 40"):
        class_stiffness(cosines, LABELS, num_train=40)
    with pytest.raises(StiffnessError, match=r"distances: \[40, 40\] are needed, .* \[40, 2\]"):
        critical_length(cosines, LABELS, cosines[:, :2])


def test_bins_reach_from_0_to_the_farthest_pair():
    inputs = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    distances = cosine_distances(inputs).numpy()
    lengths = critical_length(1 - distances, np.zeros(40), distances, "cosine", resamples=20)
    pairs = distances[np.triu_indices(40, 1)]
    edges = np.linspace(0, pairs.max(), 17)
    expected, _ = np.histogram(pairs, edges)
    assert lengths.bins.num_pairs.tolist() == expected[expected > 0].tolist()
    few = critical_length(1 - distances, np.zeros(40), distances, "cosine", bins=3, resamples=20)
    assert len(few.bins.value) == 3
