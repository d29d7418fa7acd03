"""Gradient cosines and log-norms of every checkpoint of a segment, one file per checkpoint.

The files keep what survives rounding: cosines of all pairs (float32) and the natural logarithm of
every gradient's norm (float64). With labels and distances, every number of the paper follows.
"""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, place, take
from stiffness.data.evaluation import Evaluation
from stiffness.data.shards import Block
from stiffness.files import atomic_directory, write_json, write_tensors
from stiffness.gradients.arithmetic import Loss
from stiffness.gradients.gram import cosine_tile, gradient_cosines
from stiffness.gradients.models import network_outputs
from stiffness.gradients.plan import Plans
from stiffness.process import peak_memory
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec, build_model

COSINES = "cosines"
DIGESTS = "digests.json"
PERFORMANCE = "performance.json"
logger = logging.getLogger(__name__)

Examples = tuple[Inputs, torch.Tensor]


def measure_segment(
    checkpoints: str | Path,
    evaluation: Evaluation,
    model_spec: ModelSpec,
    output: str | Path,
    device: torch.device,
    memory_budget: str,
    arithmetic: str,
    data_dir: str | Path = ".",
    tile: Block | None = None,
    loss: Loss = "cross_entropy",
) -> None:
    """Write ``output``/cosines/step=*.safetensors for every checkpoint in ``checkpoints``.

    Each file holds ``cosines`` [N, N], ``log_norms`` [N], the network's ``outputs`` [N, C] and
    ``predictions`` [N] (classes, int64) and, in its metadata, step, epoch, arithmetic and device.
    Beside their folder, digests.json has the SHA-256 of each tensor of a file, and performance.json
    the seconds and the peak memory in MiB of each checkpoint, which are no results.

    Args:
        tile: measure this block of the matrix alone. Its files hold ``cosines`` [n, m], on the
            diagonal also ``log_norms``, ``outputs`` and ``predictions`` of its n examples, and in
            their metadata also ``rows`` and ``columns`` (first example, and one past the last) and
            the number of all ``examples``.
        loss: as ``gradient_cosines`` takes it.

    Raises:
        StiffnessError: a checkpoint is unreadable or belongs to another model.
    """
    classes, total = len(evaluation.class_names), len(evaluation.targets)
    model = build_model(model_spec, evaluation.shape, classes, 0, data_dir).to(device)
    rows, columns = tile or (slice(0, total), slice(0, total))
    sides = [
        (place(take(evaluation.inputs, side), device), evaluation.targets[side].to(device))
        for side in ([rows] if rows == columns else [rows, columns])
    ]
    where = {
        "rows": [rows.start, rows.stop],
        "columns": [columns.start, columns.stop],
        "examples": total,
    }
    digests: dict[str, dict[str, str]] = {}
    performance: dict[str, dict[str, Any]] = {}
    with atomic_directory(output) as folder:
        (folder / COSINES).mkdir()
        plans = Plans()
        for checkpoint in checkpoints_of(checkpoints, model, model_spec):
            name = checkpoint.path.name
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            began = time.perf_counter()
            with checkpoint.named_in_errors():
                tensors = _measured(model, sides, memory_budget, arithmetic, plans, loss)
            seconds = time.perf_counter() - began
            about: dict[str, Any] = {"arithmetic": arithmetic, "device": _device_name(device)}
            about |= where if tile else {}
            if len(sides) == 1:
                tensors["outputs"] = network_outputs(model, sides[0][0])
                tensors["predictions"] = tensors["outputs"].argmax(1)
            metadata = checkpoint.metadata | about
            digests[name] = write_tensors(folder / COSINES / name, tensors, metadata)
            performance[name] = {
                "examples": sum(len(targets) for _, targets in sides),
                "device": _device_name(device),
                "seconds": round(seconds, 3),
                "peak_memory_mib": round(_peak_memory(device) / 2**20),
            }
        write_json(folder / DIGESTS, digests)
        write_json(folder / PERFORMANCE, performance)
    spent = sum(one["seconds"] for one in performance.values())
    size = " x ".join(str(side.stop - side.start) for side in (rows, columns))
    logger.info(
        f"{len(digests)} times {size} gradient cosines in {spent:.1f} s, "
        f"peak {_peak_memory(device) / 2**20:.0f} MiB on {_device_name(device)}"
    )


def _measured(
    model: nn.Module,
    sides: list[Examples],
    memory_budget: str,
    arithmetic: str,
    plans: Plans,
    loss: Loss,
) -> dict[str, torch.Tensor]:
    """Cosines of one side with itself, or of two sides with one another."""
    if len(sides) == 1:
        cosines, log_norms = gradient_cosines(
            model,
            *sides[0],
            loss=loss,
            memory_budget=memory_budget,
            arithmetic=arithmetic,
            plans=plans,
        )
        assert isinstance(cosines, torch.Tensor)
        assert isinstance(log_norms, torch.Tensor)
        return {"cosines": cosines, "log_norms": log_norms}
    tile, *_ = cosine_tile(
        model,
        *sides[0],
        *sides[1],
        loss=loss,
        memory_budget=memory_budget,
        arithmetic=arithmetic,
        plans=plans,
    )
    return {"cosines": tile}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_memory()
