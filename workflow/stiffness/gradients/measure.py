"""Gradient cosines and log-norms of every checkpoint of a training segment, one file a checkpoint.

The files keep what survives rounding: cosines of all pairs (float32) and the natural logarithm of
every gradient's norm (float64). With labels and distances, every number of the paper follows.
"""

import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from stiffness.data.evaluation import Evaluation
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, replacing_directory, write_json, write_tensors
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.models import predicted_classes
from stiffness.inputs import place
from stiffness.training.models import ModelSpec, build_model, load_weights

COSINES = "cosines"
DIGESTS = "digests.json"
PERFORMANCE = "performance.json"


def measure_segment(
    checkpoints: str | Path,
    evaluation: Evaluation,
    model_spec: ModelSpec,
    output: str | Path,
    device: torch.device,
    memory_budget: str,
    precision: str,
    label: str = "",
    data_dir: str | Path = ".",
) -> None:
    """Write ``output``/cosines/step=*.safetensors for every checkpoint in ``checkpoints``.

    Each file holds ``cosines`` [N, N], ``log_norms`` [N], ``predictions`` [N] (classes, int64) and,
    in its metadata, step, epoch, precision and device. Beside their folder, digests.json has the
    SHA-256 of each of a file's tensors and performance.json its seconds and peak memory in MiB,
    which are no results.

    Raises:
        StiffnessError: a checkpoint is unreadable or belongs to another model.
    """
    classes = len(evaluation.class_names)
    model = build_model(model_spec, evaluation.shape, classes, 0, data_dir).to(device)
    inputs, targets = place(evaluation.inputs, device), evaluation.targets.to(device)
    digests: dict[str, dict[str, str]] = {}
    performance: dict[str, dict[str, Any]] = {}
    with replacing_directory(output) as folder:
        (folder / COSINES).mkdir()
        for path in sorted(Path(checkpoints).glob("step=*.safetensors")):
            weights, metadata = read_tensors(path)
            load_weights(model, weights, str(path), str(model_spec))
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            began = time.perf_counter()
            try:
                cosines, log_norms = gradient_cosines(
                    model, inputs, targets, memory_budget=memory_budget, precision=precision
                )
            except StiffnessError as error:
                raise StiffnessError(f"{path}: {error}") from None
            seconds = time.perf_counter() - began
            assert isinstance(cosines, torch.Tensor)
            assert isinstance(log_norms, torch.Tensor)
            about = {
                "step": metadata["step"],
                "epoch": metadata["epoch"],
                "precision": precision,
                "device": _device_name(device),
            }
            predictions = predicted_classes(model, inputs)
            tensors = {"cosines": cosines, "log_norms": log_norms, "predictions": predictions}
            digests[path.name] = write_tensors(folder / COSINES / path.name, tensors, about)
            performance[path.name] = {
                "examples": len(targets),
                "device": _device_name(device),
                "seconds": round(seconds, 3),
                "peak_memory_mib": round(_peak_memory(device) / 2**20),
            }
        write_json(folder / DIGESTS, digests)
        write_json(folder / PERFORMANCE, performance)
    total = sum(one["seconds"] for one in performance.values())
    print(
        f"{label}: {len(digests)} times {len(targets)} x {len(targets)} gradient cosines in "
        f"{total:.1f} s, peak {_peak_memory(device) / 2**20:.0f} MiB on {_device_name(device)}",
        file=sys.stderr,
        flush=True,
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
