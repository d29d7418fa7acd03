"""Checkpoints of a training that was done elsewhere, in the place of one of the workflow's own.

The files become a segment's folder, with the same history of losses and accuracies, so that every
later room reads them as it reads checkpoints of ``train_segment``.
"""

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from stiffness.data.arrays import Arrays
from stiffness.device import full_float32
from stiffness.digests import json_digest
from stiffness.errors import StiffnessError
from stiffness.files import atomic_directory
from stiffness.training.models import ModelSpec
from stiffness.training.specs import TrainingSpec
from stiffness.training.train import Run

logger = logging.getLogger(__name__)

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Keys under which a file may hold the weights beside other things."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DataParallel, ``torch.compile`` and Lightning put before the names of parameters."""


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint; no code in the file is run.

    Args:
        path: a ``.safetensors`` file, or one of ``torch.save``: tensors by name, or those under one
            of the keys ``WRAPPERS``.

    Raises:
        StiffnessError: the file cannot be read, or holds no named tensors.
    """
    try:
        if Path(path).suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise StiffnessError(f"checkpoints: {path}: not readable ({reason})") from None
    except pickle.UnpicklingError:
        raise StiffnessError(
            f"checkpoints: {path}: holds more than tensors and plain values, which is not loaded "
            "as it may run code; save model.state_dict() alone"
        ) from None
    for key in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {
        str(name): value
        for name, value in (found.items() if isinstance(found, Mapping) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise StiffnessError(
            f"checkpoints: {path}: holds no named tensors, neither by themselves nor under the key "
            f"{' or '.join(WRAPPERS)}; save model.state_dict()"
        )
    return tensors


def fit_weights(
    weights: Mapping[str, torch.Tensor], model: nn.Module, path: str | Path, inner: str = ""
) -> dict[str, torch.Tensor]:
    """Give a checkpoint's tensors the names that a model has for them.

    Prefixes of wrappers are stripped from names that the model does not have. Missing are allowed a
    tensor that the model shares with one that is there (tied weights), and the number of batches
    that a batch normalisation has seen, which no measurement uses.

    Args:
        weights: as ``read_weights`` gives them.
        path: of the checkpoint, for messages.
        inner: what stands before the names in ``model`` alone.

    Raises:
        StiffnessError: parameters are missing, surplus or of another shape; they are named.
    """
    own = model.state_dict()
    found: dict[str, torch.Tensor] = {}
    surplus = []
    for name, value in weights.items():
        place = _own_name(name, own, inner)
        if place is None:
            surplus.append(name)
        else:
            found[place] = value
    places = {value.data_ptr(): name for name, value in own.items() if name in found}
    missing = []
    for name, value in own.items():
        if name not in found:
            twin = places.get(value.data_ptr()) if value.numel() else None
            if twin is not None and own[twin].shape == value.shape:
                found[name] = found[twin]
            elif name.endswith("num_batches_tracked"):
                found[name] = value
            else:
                missing.append(name.removeprefix(inner))
    shapes = [
        f"{name.removeprefix(inner)} is {list(found[name].shape)} there and "
        f"{list(own[name].shape)} in the network"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    wrong = [
        f"it lacks {_some(missing)}" if missing else "",
        f"it has also {_some(surplus)}" if surplus else "",
        _some(shapes),
    ]
    if any(wrong):
        raise StiffnessError(
            f"checkpoints: {path}: does not fit the network: {'; '.join(filter(None, wrong))}"
        )
    return found


def import_checkpoints(
    arrays: Arrays,
    spec: TrainingSpec,
    files: Sequence[str | Path],
    points: Sequence[tuple[int | None, float | None]],
    output: str | Path,
    device: torch.device,
    data_dir: str | Path = ".",
) -> None:
    """Write the folder ``output`` as ``train_segment`` does, from checkpoints made elsewhere.

    Args:
        spec: the model, the loss and what the history is measured on; ``batch_size`` turns steps
            into epochs, and epochs into steps.
        files: in the order of training.
        points: the step and the epoch of each file, as far as its name tells them.
        device: where losses and accuracies are computed.
        data_dir: where a pretrained model's folder is looked for.

    Raises:
        StiffnessError: a file cannot be read, or does not fit the network.
    """
    run = Run(arrays, spec, device, data_dir)
    run.fingerprint = json_digest([list(map(str, files)), [list(point) for point in points]])
    with atomic_directory(output) as folder, full_float32():
        for file, (step, epoch) in zip(files, points, strict=True):
            run.step = round((epoch or 0) * run.steps_per_epoch) if step is None else step
            weights = fit_weights(read_weights(file), run.model, file, inner_prefix(spec.model))
            run.model.load_state_dict(weights)
            run.record(folder, epoch)
            row: dict[Any, Any] = run.history[-1]
            logger.info(
                f"{file}: epoch {row['epoch']:g}: loss {row['train_loss']:.4f} accuracy "
                f"{row['train_accuracy']:.4f}, validation loss {row['validation_loss']:.4f} "
                f"accuracy {row['validation_accuracy']:.4f}"
            )
            if run.diverged:
                break
        run.save(folder)


def inner_prefix(spec: ModelSpec) -> str:
    """What stands before a network's own names where the workflow scales its inputs."""
    return "1." if spec.scales_another else ""


def _own_name(name: str, own: Mapping[str, torch.Tensor], inner: str) -> str | None:
    """The model's name for a tensor; None where it has none."""
    while inner + name not in own:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        if not prefix:
            plain = name.replace("_orig_mod.", "")
            return inner + plain if inner + plain in own else None
        name = name.removeprefix(prefix)
    return inner + name


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + rest
