"""Images: scikit-learn's digits, torchvision's data sets, and a folder of images."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.vision import import_torchvision
from stiffness.digests import file_digest
from stiffness.errors import StiffnessError

# MD5 of the unpacked idx files; torchvision checks only the archives it downloads.
_IDX_FILES = ("train-images", "train-labels", "t10k-images", "t10k-labels")
_IDX_MD5 = {
    "MNIST": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "FashionMNIST": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
_CIFAR_FOLDERS = {"CIFAR10": "cifar-10-batches-py", "CIFAR100": "cifar-100-python"}
TORCHVISION_NAMES = (*_IDX_MD5, *_CIFAR_FOLDERS)


def load_digits(validation_examples: int, seed: int) -> Arrays:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, which come with the package.

    Args:
        validation_examples: size of the validation set, which is stratified by class.
        seed: of the split.

    Raises:
        StiffnessError: too few or too many validation examples.
    """
    from sklearn.datasets import load_digits as sklearn_digits
    from sklearn.model_selection import train_test_split

    digits = sklearn_digits()
    classes = len(digits.target_names)
    largest = len(digits.target) - classes
    if not classes <= validation_examples <= largest:
        raise StiffnessError(
            f"datasets: digits: validation_examples is {validation_examples}; "
            f"take {classes} to {largest}, at least one per class on either side"
        )
    rows = np.arange(len(digits.target))
    train, validation = train_test_split(
        rows, test_size=validation_examples, random_state=seed, stratify=digits.target
    )
    inputs = torch.from_numpy(digits.images.astype(np.uint8))[:, None]
    targets = torch.from_numpy(digits.target)
    return Arrays.from_images(
        inputs[train],
        targets[train],
        inputs[validation],
        targets[validation],
        [str(name) for name in digits.target_names],
    )


def load_torchvision(name: str, data_dir: str | Path) -> Arrays:
    """MNIST, FashionMNIST, CIFAR10 or CIFAR100 in torchvision's own layout (Section 3.1).

    Files that are absent are downloaded; files that are there are checked against their checksums.

    Raises:
        StiffnessError: a file is corrupt, or absent and cannot be downloaded.
    """
    data_dir = Path(data_dir)
    if name in _IDX_MD5:
        folder = data_dir / name / "raw"
        files = [folder / f"{stem}-idx{3 if 'images' in stem else 1}-ubyte" for stem in _IDX_FILES]
    elif name in _CIFAR_FOLDERS:
        folder = data_dir / _CIFAR_FOLDERS[name]
        files = [folder]
    else:
        raise StiffnessError(
            f"datasets: unknown torchvision set {name!r}; known: {', '.join(TORCHVISION_NAMES)}"
        )
    kind = getattr(import_torchvision().datasets, name)
    absent = [file for file in files if not file.exists()]
    if absent:
        try:
            kind(data_dir, train=True, download=True)
        except (OSError, RuntimeError) as error:
            missing = ", ".join(file.name for file in absent)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StiffnessError(
                f"{name}: {missing} not in {absent[0].parent} and the download failed ({reason}); "
                "put the files there, or set data_dir to the folder that has them"
            ) from None
    for file, expected in zip(files, _IDX_MD5.get(name, ()), strict=False):
        _check_md5(file, expected)
    try:
        train, validation = kind(data_dir, train=True), kind(data_dir, train=False)
    except RuntimeError as error:
        raise StiffnessError(
            f"{folder}: corrupt or incomplete ({str(error).splitlines()[0]}); "
            "delete the folder and run again"
        ) from None
    return Arrays.from_images(
        *_images_and_targets(train), *_images_and_targets(validation), list(train.classes)
    )


def load_image_folder(
    path: str | Path,
    channels: int = 3,
    image_size: int | None = None,
    data_dir: str | Path = ".",
) -> Arrays:
    """Images in ``path/train/<class>/*`` and ``path/test/<class>/*``, as ImageFolder reads them.

    Args:
        path: below ``data_dir``, or absolute.
        channels: 3 (colour) or 1 (grey); images are converted.
        image_size: width and height in pixels that images are resized to; without it, all images
            must have the same size.

    Raises:
        StiffnessError: no such folder, fewer than two classes, a class without images, other
            classes in test than in train, an unreadable image, or images of different sizes.
    """
    path = Path(data_dir) / path
    folders = {}
    for split in ("train", "test"):
        try:
            folders[split] = import_torchvision().datasets.ImageFolder(path / split)
        except FileNotFoundError as error:
            reason = str(error).splitlines()[0]
            raise StiffnessError(
                f"{path / split}: {reason}; an image folder holds train/<class>/* and "
                "test/<class>/*"
            ) from None
    classes = folders["train"].classes
    if len(classes) < 2:
        raise StiffnessError(
            f"{path / 'train'}: one class only ({classes[0]}); stiffness needs at least two"
        )
    different = sorted(set(classes) ^ set(folders["test"].classes))
    if different:
        raise StiffnessError(
            f"{path}: train and test do not have the same classes; "
            f"in only one of them: {', '.join(different[:5])}"
        )
    inputs, targets = [], []
    shape: tuple[int, ...] | None = None
    for folder in folders.values():
        images = []
        for file, _ in folder.samples:
            image = _read_image(file, channels, image_size)
            shape = shape or image.shape
            if image.shape != shape:
                raise StiffnessError(
                    f"{file}: {image.shape[1]} x {image.shape[2]} pixels, others have "
                    f"{shape[1]} x {shape[2]}; set image_size to resize them"
                )
            images.append(image)
        inputs.append(torch.from_numpy(np.stack(images)))
        targets.append(torch.tensor(folder.targets))
    return Arrays.from_images(inputs[0], targets[0], inputs[1], targets[1], classes)


def _images_and_targets(dataset: Any) -> tuple[torch.Tensor, torch.Tensor]:
    data, targets = torch.as_tensor(dataset.data), torch.as_tensor(dataset.targets)
    # MNIST: [N, H, W]; CIFAR: [N, H, W, C]
    inputs = data[:, None] if data.ndim == 3 else data.permute(0, 3, 1, 2)
    return inputs.contiguous(), targets


def _check_md5(file: Path, expected: str) -> None:
    found = file_digest(file, "md5")
    if found != expected:
        raise StiffnessError(
            f"{file}: corrupt or truncated (MD5 {found}, expected {expected}); "
            "delete it and run again to download it, or copy it anew"
        )


def _read_image(file: str, channels: int, image_size: int | None) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return image_array(image, channels, image_size)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise StiffnessError(f"{file}: not a readable image ({error})") from None


def image_array(image: Any, channels: int, image_size: int | None) -> np.ndarray:
    """The bytes of a PIL image, uint8 [channels, height, width].

    Args:
        channels: 3 (colour) or 1 (grey); the image is converted.
        image_size: width and height in pixels that the image is resized to; None leaves its size.

    Raises:
        ValueError: its pixels are no bytes.
    """
    from PIL import Image

    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{image.mode} pixels; save it with 8 bits per channel")
    pixels = image.convert("L" if channels == 1 else "RGB")
    if image_size is not None:
        pixels = pixels.resize((image_size, image_size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels, dtype=np.uint8)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)
