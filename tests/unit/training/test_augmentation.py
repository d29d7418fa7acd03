"""Crops and flips, against one image after the other."""

import numpy as np
import pytest
import torch

from stiffness.data.arrays import Normalization
from stiffness.training.augmentation import crop_flip


@pytest.fixture
def images() -> torch.Tensor:
    """Colour images that are not square."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (40, 3, 12, 9), generator=generator, dtype=torch.uint8)


def slow_crop_flip(images: np.ndarray, mean, std, generator) -> np.ndarray:
    """Pad, crop and flip one image after the other; then preprocess."""
    count, channels, height, width = images.shape
    corners = torch.randint(0, 9, (2, count), generator=generator).numpy()
    flips = torch.rand(count, generator=generator).numpy() < 0.5
    result = np.empty(images.shape)
    for number in range(count):
        padded = np.empty((channels, height + 8, width + 8))
        padded[:] = mean[:, None, None]
        padded[:, 4:-4, 4:-4] = images[number]
        top, left = corners[:, number]
        crop = padded[:, top : top + height, left : left + width]
        crop = crop[:, :, ::-1] if flips[number] else crop
        crop = (crop - mean[:, None, None]) / std[:, None, None]
        result[number] = crop / np.linalg.norm(crop)
    return result


def test_crop_flip_against_a_slow_reference(images):
    normalization = Normalization.measure(images)
    found = crop_flip(images, normalization, torch.Generator().manual_seed(1))
    expected = slow_crop_flip(
        images.numpy(),
        normalization.mean.numpy(),
        normalization.std.numpy(),
        torch.Generator().manual_seed(1),
    )
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_crop_flip_keeps_length_one(images):
    found = crop_flip(images, Normalization.measure(images), torch.Generator().manual_seed(1))
    np.testing.assert_allclose(found.double().flatten(1).norm(dim=1), 1, atol=1e-6)


def test_crop_flip_is_drawn_anew(images):
    generator = torch.Generator().manual_seed(1)
    normalization = Normalization.measure(images)
    first, second = (crop_flip(images, normalization, generator) for _ in range(2))
    assert not torch.equal(first, second)


def test_crop_flip_reaches_every_shift_and_both_flips():
    """One bright pixel in the middle of a dark image shows where it went."""
    image = torch.zeros(1, 1, 10, 11, dtype=torch.uint8)
    image[0, 0, 5, 4] = 255
    generator = torch.Generator().manual_seed(0)
    found = crop_flip(image.expand(3000, 1, 10, 11), Normalization.measure(image), generator)
    places = found.flatten(1).argmax(1)
    rows, columns = places // 11, places % 11
    assert rows.unique().tolist() == list(range(1, 10))
    # 4 moves to 0..8; flipped, to 2..10.
    assert columns.unique().tolist() == list(range(11))
