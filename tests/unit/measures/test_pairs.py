"""Which pairs count, and with what value (eq. 4, 5; section 2.2)."""

import numpy as np
import pytest

from stiffness.measures.classes import ClassStiffness
from stiffness.measures.classes import class_stiffness as resampled_class_stiffness
from stiffness.measures.pairs import METRICS, PAIR_MODES, Pairs, select_pairs

NUM_TRAIN = 4
CLASSES = np.array([0, 0, 1, 1, 0, 1, 1])
TRAIN, VALIDATION = slice(0, NUM_TRAIN), slice(NUM_TRAIN, None)
BLOCKS = {
    "train-train": (TRAIN, TRAIN),
    "train-val": (TRAIN, VALIDATION),
    "val-val": (VALIDATION, VALIDATION),
}


def class_stiffness(pairs: Pairs, num_classes: int) -> ClassStiffness:
    """Its values alone matter here: one resample, which is the sample."""
    weights = [np.ones((number, 1), np.float32) for number in pairs.values.shape]
    return resampled_class_stiffness(pairs, num_classes, *weights)


def cosine_matrix(seed: int = 0) -> np.ndarray:
    """Symmetric with ones on its diagonal, as the gradient room writes it."""
    gradients = np.random.default_rng(seed).normal(size=(len(CLASSES), 5))
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    return (gradients @ gradients.T).astype(np.float32)


def without_gradient(*examples: int) -> tuple[np.ndarray, np.ndarray]:
    cosines, log_norms = cosine_matrix(), np.zeros(len(CLASSES))
    for example in examples:
        cosines[example] = cosines[:, example] = np.nan
        log_norms[example] = -np.inf
    return cosines, log_norms


def select(mode: str, metric: str, *zero: int):
    cosines, log_norms = without_gradient(*zero)
    return select_pairs(cosines, log_norms, CLASSES, NUM_TRAIN, mode, metric)


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_a_mode_cuts_its_block(mode):
    rows, columns = BLOCKS[mode]
    pairs = select(mode, "cosine")
    expected = cosine_matrix()[rows, columns].astype(np.float64)
    if mode != "train-val":
        np.fill_diagonal(expected, 0)
    np.testing.assert_array_equal(pairs.values, expected)
    np.testing.assert_array_equal(pairs.row_classes, CLASSES[rows])
    np.testing.assert_array_equal(pairs.column_classes, CLASSES[columns])
    assert pairs.same_set == (mode != "train-val")


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_sign_is_the_sign_of_the_cosine(mode):
    np.testing.assert_array_equal(
        select(mode, "sign").values, np.sign(select(mode, "cosine").values)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("mode", ["train-train", "val-val"])
def test_an_example_is_no_pair_with_itself(mode, metric):
    # Only the diagonal is not 0: whatever leaks from it shows in the mean.
    pairs = select_pairs(np.eye(7), np.zeros(7), CLASSES, NUM_TRAIN, mode, metric)
    assert not pairs.values.any()
    assert class_stiffness(pairs, 2).within.value == 0
    sizes = np.bincount(pairs.row_classes)
    np.testing.assert_array_equal(
        np.diagonal(class_stiffness(pairs, 2).num_pairs), sizes * (sizes - 1) / 2
    )


@pytest.mark.parametrize("metric", METRICS)
def test_train_val_excludes_no_pair(metric):
    ones = np.ones((7, 7))
    pairs = select_pairs(ones, np.zeros(7), CLASSES, NUM_TRAIN, "train-val", metric)
    np.testing.assert_array_equal(pairs.values, np.ones((4, 3)))
    assert class_stiffness(pairs, 2).num_pairs.sum() == 4 * 3


def test_the_class_matrix_of_train_val_is_not_symmetric():
    matrix = class_stiffness(select("train-val", "cosine"), 2).matrix
    assert abs(matrix[0, 1] - matrix[1, 0]) > 0.01


@pytest.mark.parametrize("mode", ["train-train", "val-val"])
def test_the_class_matrix_of_one_set_is_symmetric(mode):
    matrix = class_stiffness(select(mode, "cosine"), 2).matrix
    np.testing.assert_allclose(matrix, matrix.T, rtol=1e-12)


def test_rows_of_train_val_are_training_examples():
    cosines = np.zeros((3, 3))
    cosines[0, 2] = cosines[2, 0] = 0.5
    pairs = select_pairs(cosines, np.zeros(3), np.array([0, 1, 1]), 2, "train-val", "cosine")
    np.testing.assert_array_equal(pairs.values, [[0.5], [0.0]])


def test_the_sign_of_zero_is_zero():
    cosines = np.array([[1, 0, -0.0], [0, 1, 1e-30], [-0.0, 1e-30, 1]])
    pairs = select_pairs(cosines, np.zeros(3), np.zeros(3, int), 3, "train-train", "sign")
    np.testing.assert_array_equal(pairs.values, [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert class_stiffness(pairs, 1).within.value == pytest.approx(1 / 3)


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_zero_gradients_are_excluded_and_counted_for_the_cosine(mode):
    pairs = select(mode, "cosine", 1, 4, 6)
    assert pairs.num_excluded == {"train-train": 1, "train-val": 3, "val-val": 2}[mode]
    assert np.isfinite(pairs.values).all()
    kept = [example for example in range(7) if example not in (1, 4, 6)]
    rows, columns = (np.arange(7)[part] for part in BLOCKS[mode])
    assert rows[pairs.row_defined].tolist() == [i for i in rows if i in kept]
    assert columns[pairs.column_defined].tolist() == [i for i in columns if i in kept]


@pytest.mark.parametrize("mode", PAIR_MODES)
def test_zero_gradients_count_as_zero_for_the_sign(mode):
    pairs = select(mode, "sign", 1, 4, 6)
    assert pairs.num_excluded == 0
    assert pairs.row_defined.all()
    assert pairs.column_defined.all()
    rows, columns = (np.arange(7)[part] for part in BLOCKS[mode])
    zero = np.isin(rows, [1, 4, 6])[:, None] | np.isin(columns, [1, 4, 6])[None, :]
    assert (pairs.values[zero] == 0).all()


def test_a_zero_gradient_pulls_the_sign_down_but_not_the_cosine():
    cosines, log_norms = np.ones((3, 3)), np.array([0.0, 0.0, -np.inf])
    cosines[2] = cosines[:, 2] = np.nan
    means = {
        metric: class_stiffness(
            select_pairs(cosines, log_norms, np.zeros(3, int), 3, "train-train", metric), 1
        ).within.value
        for metric in METRICS
    }
    assert means == {"sign": pytest.approx(1 / 3), "cosine": 1.0}


@pytest.mark.parametrize("metric", METRICS)
def test_the_given_matrix_is_left_as_it_was(metric):
    cosines, log_norms = without_gradient(2)
    before = cosines.copy()
    for mode in PAIR_MODES:
        select_pairs(cosines, log_norms, CLASSES, NUM_TRAIN, mode, metric)
    np.testing.assert_array_equal(cosines, before)
