"""Raw data: what is read, and what is said when it cannot be."""

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from stiffness.data import images
from stiffness.data.images import load_digits, load_image_folder, load_torchvision
from stiffness.data.sources import load
from stiffness.data.vision import import_torchvision
from stiffness.errors import StiffnessError

SHARED_DATA = Path(__file__).parents[4] / "shared" / "data"


@pytest.fixture(autouse=True)
def asked(monkeypatch) -> list[str]:
    """No network: every download fails. Returns the addresses that were asked for."""
    addresses = []

    def refuse(request, *args, **kwargs):
        addresses.append(request.full_url)
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    return addresses


def complaint(function, *args, **kwargs) -> str:
    with pytest.raises(StiffnessError) as raised:
        function(*args, **kwargs)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


# --- digits --------------------------------------------------------------------------------------


def test_digits(digits):
    assert digits.train_inputs.shape == (1200, 1, 8, 8)
    assert digits.validation_inputs.shape == (597, 1, 8, 8)
    assert digits.train_inputs.dtype == torch.uint8
    assert int(digits.train_inputs.max()) == 16
    assert digits.class_names == list("0123456789")


def test_digits_are_split_by_class_without_overlap(digits):
    from sklearn.datasets import load_digits as sklearn_digits

    original = sklearn_digits()
    images = torch.cat([digits.train_inputs, digits.validation_inputs]).flatten(1)
    targets = torch.cat([digits.train_targets, digits.validation_targets])
    labelled = np.column_stack([images.numpy(), targets.numpy()])
    expected = np.column_stack([original.data, original.target])
    assert sorted(map(tuple, labelled.tolist())) == sorted(map(tuple, expected.tolist()))
    shares = torch.bincount(digits.validation_targets) / torch.bincount(targets)
    assert torch.allclose(shares, torch.full((10,), 597 / 1797), atol=0.01)


def test_digits_split_is_seeded(digits):
    same, other = load_digits(597, seed=0), load_digits(597, seed=1)
    assert torch.equal(same.train_inputs, digits.train_inputs)
    assert not torch.equal(other.train_inputs, digits.train_inputs)


@pytest.mark.parametrize("count", [5, 1790, 1797, 5000])
def test_a_digits_split_that_cannot_be(count):
    """Fewer than one a class on either side."""
    message = complaint(load_digits, validation_examples=count, seed=0)
    assert "validation_examples" in message
    assert str(count) in message


# --- MNIST's idx files ---------------------------------------------------------------------------


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path, monkeypatch) -> dict[str, np.ndarray]:
    """A tiny MNIST below tmp_path, whose checksums are taken for the true ones."""
    rng = np.random.default_rng(0)
    content = {
        "train-images-idx3-ubyte": rng.integers(0, 256, (12, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(12) % 10,
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(5),
    }
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, array in content.items():
        (folder / name).write_bytes(idx(array))
    sums = tuple(hashlib.md5((folder / name).read_bytes()).hexdigest() for name in content)
    monkeypatch.setitem(images._IDX_MD5, "MNIST", sums)
    return content


def test_mnist_is_read_from_its_raw_files(tmp_path, mnist, asked):
    arrays = load_torchvision("MNIST", tmp_path)
    images, labels, test_images, test_labels = mnist.values()
    assert np.array_equal(arrays.train_inputs, images[:, None])
    assert np.array_equal(arrays.train_targets, labels)
    assert np.array_equal(arrays.validation_inputs, test_images[:, None])
    assert np.array_equal(arrays.validation_targets, test_labels)
    assert arrays.train_inputs.dtype == torch.uint8
    assert arrays.train_targets.dtype == torch.int64
    assert len(arrays.class_names) == 10
    assert asked == []


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3])


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty])
@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_damaged_file_is_named(tmp_path, mnist, asked, damage, name):
    path = tmp_path / "MNIST" / "raw" / name
    damage(path)
    message = complaint(load_torchvision, "MNIST", tmp_path)
    assert message.startswith(f"{path}: corrupt or truncated")
    assert asked == []


def test_absent_files_are_named_with_their_folder(tmp_path, mnist, asked):
    folder = tmp_path / "MNIST" / "raw"
    (folder / "train-labels-idx1-ubyte").unlink()
    (folder / "t10k-images-idx3-ubyte").unlink()
    message = complaint(load_torchvision, "MNIST", tmp_path)
    absent = "train-labels-idx1-ubyte, t10k-images-idx3-ubyte"
    assert message.startswith(f"MNIST: {absent} not in {folder} and the download failed")
    assert "data_dir" in message
    assert asked != []


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_nothing_there_and_no_network(tmp_path, name):
    message = complaint(load_torchvision, name, tmp_path / "absent")
    for file in ("train-images", "train-labels", "t10k-images", "t10k-labels"):
        assert file in message
    assert str(tmp_path / "absent" / name / "raw") in message


def test_the_reason_why_a_download_failed_is_said(tmp_path):
    assert "no network" in complaint(load_torchvision, "MNIST", tmp_path)


# --- CIFAR ---------------------------------------------------------------------------------------


@pytest.fixture
def cifar10(tmp_path, monkeypatch) -> np.ndarray:
    """A tiny CIFAR-10 below tmp_path, whose checksums are taken for the true ones."""
    kind = import_torchvision().datasets.CIFAR10
    folder = tmp_path / kind.base_folder
    folder.mkdir()
    images = np.random.default_rng(0).integers(0, 256, (6, 2, 3, 32, 32), dtype=np.uint8)
    sums = {}
    names = [name for name, _ in kind.train_list + kind.test_list]
    for position, name in enumerate(names):
        entry = {"data": images[position].reshape(2, -1), "labels": [position, 9 - position]}
        sums[name] = pickle.dumps(entry)
    sums["batches.meta"] = pickle.dumps({"label_names": [f"class {n}" for n in range(10)]})
    for name, content in sums.items():
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(kind, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    return images


def test_cifar_images_are_channels_first(tmp_path, cifar10, asked):
    arrays = load_torchvision("CIFAR10", tmp_path)
    assert np.array_equal(arrays.train_inputs, cifar10[:5].reshape(10, 3, 32, 32))
    assert np.array_equal(arrays.validation_inputs, cifar10[5])
    assert arrays.train_inputs.is_contiguous()
    assert arrays.train_targets.tolist() == [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    assert arrays.validation_targets.tolist() == [5, 4]
    assert arrays.class_names[3] == "class 3"
    assert asked == []


@pytest.mark.parametrize("damage", [flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_a_damaged_cifar_folder_is_named(tmp_path, cifar10, damage, name):
    folder = tmp_path / "cifar-10-batches-py"
    damage(folder / name)
    message = complaint(load_torchvision, "CIFAR10", tmp_path)
    assert message.startswith(f"{folder}: corrupt or incomplete")


@pytest.mark.parametrize(
    ("name", "folder"),
    [("CIFAR10", "cifar-10-batches-py"), ("CIFAR100", "cifar-100-python")],
)
def test_an_absent_cifar_folder_is_named_with_where_it_belongs(tmp_path, asked, name, folder):
    message = complaint(load_torchvision, name, tmp_path)
    assert message.startswith(f"{name}: {folder} not in {tmp_path} and the download failed")
    assert len(asked) == 1


def test_unknown_torchvision_set(tmp_path):
    message = complaint(load_torchvision, "SVHN", tmp_path)
    assert message.startswith("datasets: unknown torchvision set 'SVHN'")
    assert "FashionMNIST" in message


@pytest.mark.skipif(not (SHARED_DATA / "FashionMNIST").is_dir(), reason="no real data")
def test_the_real_fashion_mnist(tmp_path, asked):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for archive in (SHARED_DATA / "FashionMNIST").glob("*.gz"):
        with gzip.open(archive) as source, (raw / archive.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    arrays = load_torchvision("FashionMNIST", tmp_path)
    assert arrays.train_inputs.shape == (60000, 1, 28, 28)
    assert arrays.validation_inputs.shape == (10000, 1, 28, 28)
    assert torch.bincount(arrays.train_targets).tolist() == [6000] * 10
    assert torch.bincount(arrays.validation_targets).tolist() == [1000] * 10
    assert arrays.class_names[0] == "T-shirt/top"
    assert asked == []


# --- image folders -------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two classes: three training images and one test image of each, 6 high and 5 wide."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 1)):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                image = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8))
                image.save(tmp_path / split / name / f"{number}.png")
    return tmp_path


def test_image_folder_in_colour(folder):
    arrays = load_image_folder(folder)
    assert arrays.train_inputs.shape == (6, 3, 6, 5)
    assert arrays.validation_inputs.shape == (2, 3, 6, 5)
    assert arrays.train_targets.tolist() == [0, 0, 0, 1, 1, 1]
    assert arrays.validation_targets.tolist() == [0, 1]
    assert arrays.class_names == ["cat", "dog"]
    original = np.asarray(Image.open(folder / "train/dog/1.png"))
    assert np.array_equal(arrays.train_inputs[4], original.transpose(2, 0, 1))


def test_image_folder_in_grey(folder):
    arrays = load_image_folder(folder, channels=1)
    assert arrays.train_inputs.shape == (6, 1, 6, 5)
    expected = np.asarray(Image.open(folder / "test/cat/0.png").convert("L"))
    assert np.array_equal(arrays.validation_inputs[0, 0], expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_images_of_other_modes_are_converted(folder, mode):
    path = folder / "train/cat/0.png"
    Image.open(path).convert(mode).save(path)
    expected = np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(load_image_folder(folder).train_inputs[0], expected)


def test_image_folder_resized(folder):
    Image.new("RGB", (40, 30), (10, 20, 30)).save(folder / "train/cat/0.png")
    arrays = load_image_folder(folder, image_size=4)
    assert arrays.train_inputs.shape == (6, 3, 4, 4)
    assert arrays.train_inputs[0].flatten(1).unique(dim=1).flatten().tolist() == [10, 20, 30]


def test_images_of_different_sizes(folder):
    path = folder / "test/dog/0.png"
    Image.new("RGB", (7, 8)).save(path)
    message = complaint(load_image_folder, folder)
    assert message.startswith(f"{path}: 8 x 7 pixels, others have 6 x 5")
    assert "image_size" in message


def test_one_class_only(folder):
    shutil.rmtree(folder / "train/dog")
    message = complaint(load_image_folder, folder)
    assert message.startswith(f"{folder / 'train'}: one class only (cat)")


def test_other_classes_in_test_than_in_train(folder):
    (folder / "test/dog").rename(folder / "test/hen")
    message = complaint(load_image_folder, folder)
    assert message.startswith(f"{folder}: train and test do not have the same classes")
    assert "dog, hen" in message


@pytest.mark.parametrize("damage", ["text", "half"])
def test_an_unreadable_image_is_named(folder, damage):
    path = folder / "train/dog/2.png"
    whole = path.read_bytes()
    path.write_bytes(b"not an image" if damage == "text" else whole[: len(whole) // 2])
    assert complaint(load_image_folder, folder).startswith(f"{path}: not a readable image")


def test_an_image_too_large_to_be_true_is_named(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    path = folder / "train/cat/0.png"
    assert complaint(load_image_folder, folder).startswith(f"{path}: not a readable image")


def test_a_class_without_images_is_named(folder):
    (folder / "train/dog/0.png").rename(folder / "keep")
    shutil.rmtree(folder / "train/dog")
    (folder / "train/dog").mkdir()
    message = complaint(load_image_folder, folder)
    assert message.startswith(f"{folder / 'train'}: ")
    assert "dog" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_folder_is_named(folder, split):
    shutil.rmtree(folder / split)
    message = complaint(load_image_folder, folder)
    assert message.startswith(f"{folder / split}: ")
    assert "train/<class>/*" in message


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_folder_without_classes_is_named(folder, split):
    shutil.rmtree(folder / split)
    (folder / split).mkdir()
    assert complaint(load_image_folder, folder).startswith(f"{folder / split}: ")


# --- load ----------------------------------------------------------------------------------------


def test_load_finds_each_source(tmp_path, folder, mnist, digits):
    found = load("digits", {"validation_examples": 597, "seed": 0}, tmp_path)
    assert torch.equal(found.train_inputs, digits.train_inputs)
    found = load("torchvision", {"name": "MNIST"}, tmp_path)
    assert found.train_inputs.shape == (12, 1, 28, 28)
    options = {"path": folder.name, "channels": 1, "image_size": 4}
    assert load("image_folder", options, folder.parent).train_inputs.shape == (6, 1, 4, 4)
    assert options.keys() == {"path", "channels", "image_size"}


def test_unknown_source(tmp_path):
    message = complaint(load, "kaggle", {}, tmp_path)
    assert message.startswith("datasets: unknown source 'kaggle'; known: digits, torchvision, ")
