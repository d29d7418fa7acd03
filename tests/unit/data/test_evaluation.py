"""The fixed subset that stiffness is measured on (section 3.2)."""

import numpy as np
import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import Evaluation, draw_evaluation
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors


@pytest.fixture(scope="module")
def subset(digits) -> Evaluation:
    return draw_evaluation(digits, train=200, validation=100, seed=0)


def test_every_class_has_an_equal_share(subset):
    assert subset.num_train == 200
    assert torch.bincount(subset.targets[:200]).tolist() == [20] * 10
    assert torch.bincount(subset.targets[200:]).tolist() == [10] * 10


def test_the_first_classes_take_what_does_not_divide(digits):
    subset = draw_evaluation(digits, train=23, validation=10, seed=0)
    assert torch.bincount(subset.targets[:23]).tolist() == [3] * 3 + [2] * 7
    assert torch.bincount(subset.targets[23:]).tolist() == [1] * 10


def test_sorted_by_class_within_each_half(subset):
    for half in (subset.targets[:200], subset.targets[200:]):
        assert (half.diff() >= 0).all()


def test_no_example_twice(subset):
    assert len(set(subset.indices[:200].tolist())) == 200
    assert len(set(subset.indices[200:].tolist())) == 100


def test_inputs_and_targets_are_those_at_the_indices(digits, subset):
    train, validation = subset.indices[:200], subset.indices[200:]
    assert torch.equal(subset.targets[:200], digits.train_targets[train])
    assert torch.equal(subset.targets[200:], digits.validation_targets[validation])
    raw = torch.cat([digits.train_inputs[train], digits.validation_inputs[validation]])
    assert torch.equal(subset.inputs, digits.normalization(raw))


def test_the_draw_is_not_the_first_of_each_class(digits, subset):
    first = torch.cat([(digits.train_targets == c).nonzero().flatten()[:20] for c in range(10)])
    assert not torch.equal(subset.indices[:200], first)


def test_same_seed_same_draw(digits, subset):
    state = torch.random.get_rng_state()
    again = draw_evaluation(digits, train=200, validation=100, seed=0)
    assert torch.equal(again.indices, subset.indices)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_other_seed_other_draw(digits, subset):
    other = draw_evaluation(digits, train=200, validation=100, seed=1)
    assert not torch.equal(other.indices[:200], subset.indices[:200])
    assert not torch.equal(other.indices[200:], subset.indices[200:])


def test_round_trip(subset, tmp_path):
    subset.save(tmp_path / "evaluation.safetensors")
    found = Evaluation.load(tmp_path / "evaluation.safetensors")
    assert torch.equal(found.inputs, subset.inputs)
    assert torch.equal(found.targets, subset.targets)
    assert torch.equal(found.indices, subset.indices)
    assert found.num_train == subset.num_train
    assert found.class_names == subset.class_names


def test_a_file_of_something_else_is_named(tmp_path):
    path = tmp_path / "evaluation.safetensors"
    write_tensors(path, {"x": torch.ones(1)}, {})
    with pytest.raises(StiffnessError, match="not an evaluation subset") as raised:
        Evaluation.load(path)
    assert str(path) in str(raised.value)


# --- distances -----------------------------------------------------------------------------------


def test_distances_are_one_minus_the_cosine(subset):
    flat = subset.inputs.flatten(1).double().numpy()
    norms = np.linalg.norm(flat, axis=1)
    expected = 1 - flat @ flat.T / np.outer(norms, norms)
    found = subset.distances()
    assert found.dtype == torch.float32
    assert found.shape == (300, 300)
    # The inputs' own length is 1 to float32's rounding.
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_distances_are_symmetric_and_zero_to_oneself(subset):
    found = subset.distances()
    # A product need not sum both of its triangles in the same order.
    torch.testing.assert_close(found, found.T, rtol=0, atol=torch.finfo(torch.float32).eps)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 2
    assert float(found.diagonal().max()) < 1e-6
    assert float(found.fill_diagonal_(1).min()) > 1e-3


def test_distances_of_known_directions():
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]])
    inputs = directions[:, None, None, :]
    subset = Evaluation(inputs, torch.tensor([0, 1, 0, 1]), torch.arange(4), 2, ["a", "b"])
    expected = [[0, 1, 2, 0.4], [1, 0, 1, 0.2], [2, 1, 0, 1.6], [0.4, 0.2, 1.6, 0]]
    np.testing.assert_allclose(subset.distances(), expected, atol=1e-6)


# --- too few examples ----------------------------------------------------------------------------


@pytest.fixture
def uneven() -> Arrays:
    """Ten cats and three dogs to train on, four of each to validate on."""
    inputs = torch.arange(21 * 4, dtype=torch.uint8).reshape(21, 1, 2, 2)
    train = torch.tensor([0] * 10 + [1] * 3)
    validation = torch.tensor([0, 1] * 4)
    return Arrays.from_images(inputs[:13], train, inputs[13:], validation, ["cat", "dog"])


def test_all_examples_of_a_class_can_be_asked_for(uneven):
    subset = draw_evaluation(uneven, train=6, validation=8, seed=0)
    assert subset.indices[3:6].tolist() == [10, 11, 12]


@pytest.mark.parametrize(
    ("train", "validation", "key", "name", "available"),
    [(8, 8, "train", "dog", 3), (6, 10, "validation", "cat", 4)],
)
def test_more_than_a_class_has(uneven, train, validation, key, name, available):
    with pytest.raises(StiffnessError) as raised:
        draw_evaluation(uneven, train, validation, seed=0)
    message = str(raised.value)
    assert message.startswith(f"evaluation: {key}: ")
    assert f"class {name!r}, which has {available}" in message


@pytest.mark.parametrize(("train", "validation", "key"), [(1, 2, "train"), (2, 1, "validation")])
def test_fewer_than_one_per_class(uneven, train, validation, key):
    with pytest.raises(StiffnessError) as raised:
        draw_evaluation(uneven, train, validation, seed=0)
    assert str(raised.value).startswith(f"evaluation: {key}: 1 examples for 2 classes")
