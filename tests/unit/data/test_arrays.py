"""Preprocessing (section 3.1) and the checks on a data set's parts."""

import numpy as np
import pytest
import torch

from stiffness.data.arrays import Arrays, Normalization
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors

EPSILON = torch.finfo(torch.float32).eps


@pytest.fixture
def colour() -> torch.Tensor:
    """Colour images whose channels differ in mean and spread."""
    rng = np.random.default_rng(0)
    high = np.array([256, 100, 30])[:, None, None]
    return torch.from_numpy(rng.integers(0, high, (50, 3, 6, 5), dtype=np.uint8))


def pixels(inputs: torch.Tensor) -> np.ndarray:
    return inputs.numpy().astype(np.float64)


# --- normalisation -------------------------------------------------------------------------------


def test_mean_and_std_are_exact(colour):
    found = Normalization.measure(colour)
    assert found.mean.dtype == found.std.dtype == torch.float32
    expected = pixels(colour).mean((0, 2, 3)), pixels(colour).std((0, 2, 3))
    np.testing.assert_allclose(found.mean, expected[0], rtol=EPSILON)
    np.testing.assert_allclose(found.std, expected[1], rtol=EPSILON)


def test_mean_and_std_of_the_digits(digits):
    train = pixels(digits.train_inputs)
    np.testing.assert_allclose(digits.normalization.mean, [train.mean()], rtol=EPSILON)
    np.testing.assert_allclose(digits.normalization.std, [train.std()], rtol=EPSILON)


def test_zero_mean_and_unit_variance_per_channel_before_the_sphere(colour):
    """An image's direction is all that the sphere keeps; undo it by the norm it divides by."""
    normalization = Normalization.measure(colour)
    mean, std = (part.double()[:, None, None] for part in (normalization.mean, normalization.std))
    standard = (colour.double() - mean) / std
    np.testing.assert_allclose(standard.mean((0, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(standard.numpy().var((0, 2, 3)), 1, atol=1e-6)
    norms = standard.flatten(1).norm(dim=1)
    np.testing.assert_allclose(
        normalization(colour) * norms[:, None, None, None], standard, atol=1e-5
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_digit_has_length_one(digits, split):
    inputs = digits.normalization(getattr(digits, f"{split}_inputs"))
    assert inputs.dtype == torch.float32
    assert inputs.shape == getattr(digits, f"{split}_inputs").shape
    np.testing.assert_allclose(inputs.double().flatten(1).norm(dim=1), 1, atol=1e-6)


def test_preprocessing_against_numpy(digits):
    mean, std = pixels(digits.train_inputs).mean(), pixels(digits.train_inputs).std()
    expected = (pixels(digits.validation_inputs) - mean) / std
    expected /= np.sqrt((expected**2).sum((1, 2, 3), keepdims=True))
    found = digits.normalization(digits.validation_inputs)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_an_image_does_not_depend_on_its_neighbours(digits):
    whole = digits.normalization(digits.train_inputs)
    found = digits.normalization(digits.train_inputs[7:9])
    # The sum of 64 squares may be taken in another order.
    torch.testing.assert_close(found, whole[7:9], rtol=64 * torch.finfo(torch.float32).eps, atol=0)


def test_a_constant_image_of_the_mean_colour_stays_zero():
    train = torch.tensor([[98, 102], [101, 99]], dtype=torch.uint8)[:, None, None, :]
    normalization = Normalization.measure(train)
    assert normalization.mean.tolist() == [100]
    found = normalization(torch.full((1, 1, 1, 2), 100, dtype=torch.uint8))
    assert torch.equal(found, torch.zeros(1, 1, 1, 2))


def test_another_constant_image_has_a_direction(colour):
    found = Normalization.measure(colour)(torch.zeros(1, 3, 6, 5, dtype=torch.uint8))
    assert float(found.norm()) == pytest.approx(1, abs=1e-6)
    assert (found < 0).all()


# --- Arrays --------------------------------------------------------------------------------------


@pytest.fixture
def parts(colour):
    """Arguments of Arrays.of: 30 training and 20 validation images of three classes."""
    targets = torch.arange(50, dtype=torch.int32) % 3
    return [colour[:30], targets[:30], colour[30:], targets[30:], ["cat", "dog", "eel"]]


def test_arrays_measure_the_training_set_alone(parts):
    arrays = Arrays.from_images(*parts)
    expected = Normalization.measure(parts[0])
    assert torch.equal(arrays.normalization.mean, expected.mean)
    assert torch.equal(arrays.normalization.std, expected.std)
    assert arrays.train_targets.dtype == arrays.validation_targets.dtype == torch.int64


def test_arrays_round_trip(parts, tmp_path):
    arrays = Arrays.from_images(*parts)
    arrays.save(tmp_path / "arrays.safetensors")
    found = Arrays.load(tmp_path / "arrays.safetensors")
    for name in ("train_inputs", "train_targets", "validation_inputs", "validation_targets"):
        assert torch.equal(getattr(found, name), getattr(arrays, name))
        assert getattr(found, name).dtype == getattr(arrays, name).dtype
    assert torch.equal(found.normalization.mean, arrays.normalization.mean)
    assert torch.equal(found.normalization.std, arrays.normalization.std)
    assert found.class_names == arrays.class_names


@pytest.mark.parametrize(
    ("position", "change", "message"),
    [
        (1, lambda targets: targets[:-1], "training set: 30 inputs but 29 labels"),
        (3, lambda targets: targets[:-1], "validation set: 20 inputs but 19 labels"),
        (2, lambda inputs: inputs[:, :, :-1], "validation set: images of another shape"),
        (2, lambda inputs: inputs[:, :1], "validation set: images of another shape"),
        (1, lambda targets: targets + 1, r"training set: a label outside 0\.\.2"),
        (3, lambda targets: targets - 1, r"validation set: a label outside 0\.\.2"),
        (0, torch.zeros_like, "a colour channel is the same"),
    ],
)
def test_parts_that_do_not_fit(parts, position, change, message):
    parts[position] = change(parts[position])
    with pytest.raises(StiffnessError, match=message):
        Arrays.from_images(*parts)


def test_an_empty_validation_set(parts):
    parts[2], parts[3] = parts[2][:0], parts[3][:0]
    with pytest.raises(StiffnessError, match="validation set: 0 inputs"):
        Arrays.from_images(*parts)


@pytest.mark.parametrize(
    ("tensors", "metadata"),
    [({"x": torch.ones(1)}, {}), ({"mean": torch.ones(1), "std": torch.ones(1)}, {})],
)
def test_a_file_of_something_else_is_named(tmp_path, tensors, metadata):
    path = tmp_path / "arrays.safetensors"
    write_tensors(path, tensors, metadata)
    with pytest.raises(StiffnessError, match="not a file of data arrays") as raised:
        Arrays.load(path)
    assert str(path) in str(raised.value)
