"""A user's own arrays: a function of theirs, a file of numpy, Hugging Face datasets on the disk."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import draw_evaluation
from stiffness.data.own import as_arrays
from stiffness.data.sources import data_set, load
from stiffness.errors import StiffnessError

NUMBERS = np.random.default_rng(0).normal(size=(12, 3, 2)).astype(np.float64)
BYTES = np.random.default_rng(0).integers(0, 255, (12, 5, 4), dtype=np.uint8)
LABELS = np.arange(12) % 3
CODE = """
import numpy as np
def load(data_dir, count=12):
    x = np.full((count, 4), float(len(data_dir)))
    x[0] += 1
    y = np.array(["cat", "dog"] * (count // 2))
    return x, y, x[:4], y[:4]
def three():
    return 1, 2, 3
def ragged():
    return [[1.0], [1.0, 2.0]], [0, 1], [[1.0]], [0]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    Path("own_data.py").write_text(CODE)
    return tmp_path


def complaint(function, *args, **kwargs) -> str:
    with pytest.raises(StiffnessError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_floats_reach_the_network_as_they_are(tmp_path):
    arrays = as_arrays(NUMBERS, LABELS, torch.from_numpy(NUMBERS[:6]), LABELS[:6])
    assert arrays.shape == (3, 2)
    assert arrays.class_names == ["0", "1", "2"]
    expected = torch.from_numpy(NUMBERS).float()
    assert torch.equal(arrays.preprocess(arrays.train_inputs), expected)
    arrays.save(tmp_path / "arrays.safetensors")
    again = Arrays.load(tmp_path / "arrays.safetensors")
    assert again.normalization is None
    assert torch.equal(again.train_inputs, expected)
    few = again.with_few_examples(6, 0)
    assert len(few.train_targets) == 6
    subset = draw_evaluation(again, 3, 3, 0)
    assert torch.equal(subset.inputs[:3], expected[subset.indices[:3]])
    assert subset.distances().shape == (6, 6)


@pytest.mark.parametrize(
    ("given", "shape"),
    [(BYTES, (1, 5, 4)), (BYTES[..., None], (1, 5, 4)), (BYTES[:, None], (1, 5, 4))],
    ids=["N H W", "N H W C", "N C H W"],
)
def test_bytes_are_images(given, shape):
    arrays = as_arrays(given, LABELS, given, LABELS[:, None])
    assert arrays.shape == shape
    assert arrays.normalization is not None
    norms = arrays.preprocess(arrays.train_inputs).flatten(1).norm(dim=1)
    assert torch.allclose(norms, torch.ones(12))


def test_a_mapping_of_integers_is_tokens():
    tokens = {"input_ids": np.ones((12, 4), np.int64), "attention_mask": np.ones((12, 4), int)}
    arrays = as_arrays(tokens, LABELS, tokens, LABELS, ["a", "b", "c"])
    assert arrays.shape == ()
    assert set(arrays.train_inputs) == {"input_ids", "attention_mask"}


def test_a_function_gets_its_arguments_and_the_folder_of_data(tmp_path):
    arrays = load("own_data.py:load", {"arguments": {"count": 8}}, tmp_path)
    assert arrays.train_inputs.shape == (8, 4)
    assert float(arrays.train_inputs[1, 0]) == len(str(tmp_path))
    assert arrays.class_names == ["cat", "dog"]
    assert arrays.train_targets.tolist() == [0, 1] * 4
    few = {"train_examples": 4, "seed": 1, "label_noise": {"share": 0.5, "seed": 0}}
    assert len(load("own_data.py:load", few, tmp_path).train_targets) == 4


def test_a_file_of_numpy(tmp_path):
    file = tmp_path / "mine.npz"
    np.savez(file, x_train=BYTES, y_train=LABELS, x_test=BYTES[:6], y_test=LABELS[:6])
    options = {"source": "npz", "path": "mine.npz"}
    before = data_set(options).fingerprint(tmp_path)
    arrays = load("npz", {"path": "mine.npz", "class_names": ["a", "b", "c"]}, tmp_path)
    assert arrays.validation_inputs.shape == (6, 1, 5, 4)
    assert arrays.class_names == ["a", "b", "c"]
    message = complaint(load, "npz", {"path": "mine.npz", "names": ["a", "b", "c", "d"]}, tmp_path)
    assert message == (
        f"{file}: no array 'a'; there are: x_train, y_train, x_test, y_test; set names"
    )
    np.savez(file, x_train=np.array([{}], object), y_train=[0], x_test=[0.0], y_test=[0])
    assert data_set(options).fingerprint(tmp_path) != before
    assert complaint(load, "npz", {"path": "mine.npz"}, tmp_path).startswith(f"{file}: not a ")
    assert "no such file" in complaint(load, "npz", {"path": "no.npz"}, tmp_path)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("own_data.py:three", {}, "source: own_data.py:three must return (train_inputs, train_la"),
        ("own_data.py:ragged", {}, "source: own_data.py:ragged: training set: inputs are no array"),
        ("own_data.py:none", {}, "source: own_data.py has no 'none'; it has load, np, ragged, thr"),
        ("own_data.py:load", {"arguments": {"n": 1}}, "arguments: own_data.py:load does not take "),
        ("digit", {}, "datasets: unknown source 'digit'; known: digits, torchvision, image_folder"),
    ],
)
def test_what_is_no_source_is_refused(source, options, message, tmp_path):
    assert complaint(load, source, options, tmp_path).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": LABELS[:5]}, "training set: 12 inputs but 5 labels"),
        ({"train_labels": LABELS / 2}, "training set: labels must be numbers or names"),
        ({"train_labels": [*LABELS[:-1], -1]}, "training set: a label outside 0..2"),
        ({"train_labels": LABELS + 1}, "labels: no training example of class '0'"),
        ({"validation_labels": LABELS.astype(str)}, "labels: numbers in one set and names in th"),
        ({"validation_inputs": NUMBERS[:, :2]}, "validation set: inputs of another shape"),
        ({"validation_inputs": BYTES}, "inputs: the two sets differ in type (floats, images)"),
        ({"train_inputs": LABELS}, "training set: inputs are torch.int64; give images as bytes"),
        ({"train_inputs": NUMBERS * np.nan}, "training set: inputs must be finite numbers"),
        ({"class_names": ["a", "b"]}, "training set: a label outside 0..1"),
    ],
)
def test_arrays_that_do_not_fit(changes, message):
    given: dict[str, Any] = {
        "train_inputs": NUMBERS,
        "train_labels": LABELS,
        "validation_inputs": NUMBERS,
        "validation_labels": LABELS,
    }
    assert complaint(as_arrays, **given | changes).startswith(message)


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory) -> Path:
    """Images and texts of Hugging Face datasets, as ``save_to_disk`` writes them."""
    from stiffness.data.hub import import_transformers

    import_transformers()
    import datasets
    from PIL import Image

    tmp_path = tmp_path_factory.mktemp("datasets")
    datasets.disable_progress_bars()
    columns = {
        "picture": [Image.fromarray(image) for image in BYTES],
        "text": [f"good {number}" for number in range(12)],
        "kind": LABELS.tolist(),
    }
    features = datasets.Features(
        picture=datasets.Image(),
        text=datasets.Value("string"),
        kind=datasets.ClassLabel(names=["x", "y", "z"]),
    )
    rows = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=rows, test=rows.select(range(6))).save_to_disk(tmp_path / "hf")
    return tmp_path


IMAGES = {"name": "hf", "image": "picture", "label": "kind", "channels": 1}


def test_images_of_hugging_face(on_disk):
    splits = {"splits": {"validation": "test"}}
    arrays = load("huggingface", IMAGES | splits, on_disk)
    assert arrays.class_names == ["x", "y", "z"]
    assert np.array_equal(arrays.train_inputs[:, 0].numpy(), BYTES)
    assert arrays.validation_targets.tolist() == LABELS[:6].tolist()
    resized = load("huggingface", IMAGES | splits | {"image_size": 3}, on_disk)
    assert resized.shape == (1, 3, 3)
    assert complaint(load, "huggingface", IMAGES, on_disk) == (
        "hf: no set 'validation'; there are: train, test; set splits"
    )
    message = complaint(load, "huggingface", IMAGES | splits | {"label": "sort"}, on_disk)
    assert message == "hf: train: no column 'sort'; there are: picture, text, kind"


def test_texts_of_hugging_face(on_disk, tiny_language):
    options = {
        "name": str(on_disk / "hf"),
        "columns": ["text"],
        "label": "kind",
        "tokenizer": "bert",
        "max_length": 8,
        "splits": {"validation": "test"},
    }
    arrays = load("huggingface", options, tiny_language)
    assert arrays.class_names == ["x", "y", "z"]
    assert set(arrays.train_inputs) >= {"input_ids", "attention_mask"}
    assert arrays.train_targets.tolist() == LABELS.tolist()


@pytest.mark.parametrize("options", [{}, {"image": "a", "columns": ["b"]}, {"columns": ["b"]}])
def test_hugging_face_is_images_or_texts(options, tmp_path):
    message = complaint(load, "huggingface", {"name": "x", **options}, tmp_path)
    assert "set image, a column, or all of columns, tokenizer and max_length" in message
