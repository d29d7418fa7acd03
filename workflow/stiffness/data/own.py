"""A user's own arrays: what a function of theirs returns, or what a file of numpy holds."""

import inspect
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.batch import Inputs
from stiffness.errors import StiffnessError
from stiffness.own_code import call_object, load_object

_RETURNS = (
    "must return (train_inputs, train_labels, validation_inputs, validation_labels), and names of "
    "classes if it likes"
)


def load_own(source: str, arguments: Mapping[str, Any], data_dir: str | Path) -> Arrays:
    """Call a user's function for the data. This runs the user's code.

    Args:
        source: its import path.
        arguments: of the function, which gets ``data_dir`` too where it has such an argument.

    Raises:
        StiffnessError: it cannot be imported or called, or what it returns is no data set.
    """
    function = load_object(source, "source")
    given = dict(arguments)
    if "data_dir" in inspect.signature(function).parameters:
        given.setdefault("data_dir", str(data_dir))
    found = call_object(function, source, "source", **given)
    if not isinstance(found, tuple | list) or len(found) not in (4, 5):
        kind = type(found).__name__
        number = f" of {len(found)}" if isinstance(found, tuple | list) else ""
        raise StiffnessError(f"source: {source} {_RETURNS}; it returns a {kind}{number}")
    try:
        return as_arrays(*found)
    except StiffnessError as error:
        raise StiffnessError(f"source: {source}: {error}") from None


def load_npz(
    path: str | Path, names: Sequence[str], class_names: Sequence[str] | None = None
) -> Arrays:
    """Read a file that ``numpy.savez`` wrote.

    Args:
        names: of the training inputs and labels, and of the validation inputs and labels.
        class_names: in the order of their numbers; by default the labels themselves.

    Raises:
        StiffnessError: the file is not there or not readable, lacks an array, or they do not fit.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            absent = [name for name in names if name not in file]
            if absent:
                raise StiffnessError(
                    f"{path}: no array {absent[0]!r}; there are: {', '.join(file)}; set names"
                )
            train, train_labels, validation, validation_labels = (file[name] for name in names)
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such file; put it there, or set path") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise StiffnessError(f"{path}: not a readable npz file ({error})") from None
    try:
        return as_arrays(train, train_labels, validation, validation_labels, class_names)
    except StiffnessError as error:
        raise StiffnessError(f"{path}: {error}") from None


def as_arrays(
    train_inputs: Any,
    train_labels: Any,
    validation_inputs: Any,
    validation_labels: Any,
    class_names: Sequence[str] | None = None,
) -> Arrays:
    """Make a data set of inputs and labels.

    Args:
        train_inputs, validation_inputs: arrays or tensors. Bytes (uint8) [N, C, H, W], [N, H, W, C]
            or [N, H, W] are images; floats [N, ...] reach the network as they are; a mapping holds
            tokens, integers [N, T] by the names that the network has for them.
        train_labels, validation_labels: numbers of classes from 0, or names of classes, [N].
        class_names: in the order of their numbers.

    Raises:
        StiffnessError: types, shapes or lengths do not fit.
    """
    inputs = [_inputs(train_inputs, "training"), _inputs(validation_inputs, "validation")]
    labels = [_labels(train_labels, "training"), _labels(validation_labels, "validation")]
    if labels[0].dtype.kind != labels[1].dtype.kind:
        raise StiffnessError("labels: numbers in one set and names in the other")
    if labels[0].dtype.kind == "U":
        names = [str(name) for name in class_names or np.unique(np.concatenate(labels))]
        numbers = {name: number for number, name in enumerate(names)}
        unknown = sorted({*labels[0].tolist(), *labels[1].tolist()} - {*names})
        if unknown:
            raise StiffnessError(f"labels: {unknown[0]!r} is not one of class_names")
        labels = [np.array([numbers[name] for name in part.tolist()], np.int64) for part in labels]
    elif class_names is None:
        largest = max((int(part.max()) for part in labels if len(part)), default=0)
        names = [str(number) for number in range(largest + 1)]
    else:
        names = [str(name) for name in class_names]
    targets = [torch.from_numpy(part.astype(np.int64)) for part in labels]
    if len(names) < 2:
        raise StiffnessError("labels: one class only; stiffness needs at least two")
    empty = set(range(len(names))) - set(targets[0].tolist())
    if empty:
        raise StiffnessError(f"labels: no training example of class {names[min(empty)]!r}")
    kinds = {_kind(part) for part in inputs}
    if len(kinds) > 1:
        raise StiffnessError(f"inputs: the two sets differ in type ({', '.join(sorted(kinds))})")
    make = {
        "tokens": Arrays.from_tokens,
        "images": Arrays.from_images,
        "floats": Arrays.from_floats,
    }[kinds.pop()]
    return make(inputs[0], targets[0], inputs[1], targets[1], names)  # type: ignore[operator]


def _kind(inputs: Inputs) -> str:
    if isinstance(inputs, Mapping):
        return "tokens"
    return "images" if inputs.dtype == torch.uint8 else "floats"


def _inputs(given: Any, name: str) -> Inputs:
    if isinstance(given, Mapping):
        tokens = {str(key): _tensor(value, name) for key, value in given.items()}
        wrong = [key for key, value in tokens.items() if value.is_floating_point()]
        if wrong or not tokens:
            raise StiffnessError(f"{name} set: tokens must be integers [N, T] by name")
        return tokens
    tensor = _tensor(given, name)
    if tensor.dtype == torch.uint8:
        if tensor.ndim == 3:
            tensor = tensor[:, None]
        if tensor.ndim == 4 and tensor.shape[1] not in (1, 3) and tensor.shape[3] in (1, 3):
            tensor = tensor.permute(0, 3, 1, 2)
        if tensor.ndim != 4:
            raise StiffnessError(
                f"{name} set: bytes are images [N, C, H, W], these are {list(tensor.shape)}; give "
                "other inputs as floats"
            )
    elif not tensor.is_floating_point():
        raise StiffnessError(
            f"{name} set: inputs are {tensor.dtype}; give images as bytes (uint8), other numbers "
            "as floats, and tokens as a mapping of integers"
        )
    return tensor.contiguous()


def _tensor(given: Any, name: str) -> torch.Tensor:
    try:
        return torch.as_tensor(given if isinstance(given, torch.Tensor) else np.asarray(given))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise StiffnessError(f"{name} set: inputs are no array ({reason})") from None


def _labels(given: Any, name: str) -> np.ndarray:
    labels = np.asarray(given.cpu() if isinstance(given, torch.Tensor) else given)
    if labels.dtype.kind == "O":
        labels = np.array([str(label) for label in labels.reshape(-1)]).reshape(labels.shape)
    if labels.ndim == 2 and labels.shape[1] == 1:  # as Keras has them
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise StiffnessError(
            f"{name} set: labels must be numbers or names of classes [N], these are "
            f"{labels.dtype} {list(labels.shape)}"
        )
    return labels
