"""Gradient cosines of every layer's own parameters, and distances in what each layer reads.

A layer's block of the gradient is made of what it reads, a, and of the loss gradient d of what it
returns: for a linear layer without a bias, <block_i, block_j> = (a_i . a_j) (d_i . d_j). The
distance 1 - cos(a_i, a_j) is therefore the natural one beside the cosine of its block, and for the
first layer it is the paper's input distance.
"""

import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, length, place
from stiffness.data.evaluation import Evaluation
from stiffness.files import atomic_directory, write_json, write_tensors
from stiffness.gradients.arithmetic import Loss
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.memory import packed, parse_bytes
from stiffness.gradients.plan import Plans
from stiffness.gradients.representations import input_widths, layer_inputs
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec, build_model

COSINES, LOG_NORMS, DISTANCES = "cosines", "log_norms", "distances"
logger = logging.getLogger(__name__)


def measure_layers(
    checkpoints: str | Path,
    evaluation: Evaluation,
    model_spec: ModelSpec,
    output: str | Path,
    device: torch.device,
    memory_budget: str,
    arithmetic: str,
    steps: Collection[int] | None = None,
    data_dir: str | Path = ".",
    loss: Loss = "cross_entropy",
) -> None:
    """Write ``output``/step=*.safetensors for checkpoints in the folder ``checkpoints``.

    Each file holds for every layer that owns trained parameters ``cosines/<layer>`` [N, N] and
    ``log_norms/<layer>`` [N] of its block of the gradient, and ``distances/<layer>`` [N, N] between
    what the layer reads, where that is a vector per example. Metadata: step, epoch, arithmetic,
    device, and ``layers``, in the order in which they are called: name, kind (its type), and limit,
    the largest distance there can be (1 where nothing it reads is negative, else 2; 0 where it has
    no distances).

    Args:
        steps: of the checkpoints to measure; None for all of them.
        loss: as ``gradient_cosines`` takes it.

    Raises:
        StiffnessError: a checkpoint is unreadable, belongs to another model or has diverged.
    """
    classes = len(evaluation.class_names)
    model = build_model(model_spec, evaluation.shape, classes, 0, data_dir).to(device)
    inputs, targets = place(evaluation.inputs, device), evaluation.targets.to(device)
    measured = []
    with atomic_directory(output) as folder:
        plans = Plans()
        for checkpoint in checkpoints_of(checkpoints, model, model_spec, steps):
            began = time.perf_counter()
            with checkpoint.named_in_errors():
                cosines, log_norms = gradient_cosines(
                    model,
                    inputs,
                    targets,
                    loss=loss,
                    per_layer=True,
                    memory_budget=memory_budget,
                    arithmetic=arithmetic,
                    plans=plans,
                )
                assert isinstance(cosines, dict)
                assert isinstance(log_norms, dict)
                distances, layers = _distances(model, inputs, list(cosines), device, memory_budget)
            about = {"arithmetic": arithmetic, "device": str(device.type), "layers": layers}
            found = {COSINES: cosines, LOG_NORMS: log_norms, DISTANCES: distances}
            tensors = {
                f"{prefix}/{name}": value
                for prefix, values in found.items()
                for name, value in values.items()
            }
            write_tensors(folder / checkpoint.path.name, tensors, checkpoint.metadata | about)
            measured.append(checkpoint.step)
            logger.info(
                f"step {checkpoint.step}: gradient cosines of {len(layers)} layers in "
                f"{time.perf_counter() - began:.1f} s"
            )
        write_json(folder / "steps.json", measured)


def _distances(
    model: nn.Module,
    inputs: Inputs,
    layers: list[str],
    device: torch.device,
    memory_budget: str,
) -> tuple[Mapping[str, torch.Tensor], list[dict[str, Any]]]:
    """Distances by layer, and the file's entry for each layer, in the order of their calls."""
    widths = input_widths(model, inputs, layers)
    sizes = {layer: 4 * width for layer, width in widths.items() if width}
    distances: dict[str, torch.Tensor] = {}
    limits: dict[str, float] = {}
    # As many layers per pass as half of the budget holds.
    budget = parse_bytes(memory_budget)
    for group in packed(sizes, length(inputs), budget // 2):
        vectors = layer_inputs(model, inputs, group)
        for layer in group:
            read = vectors.pop(layer)
            distances[layer] = _cosine_distances(read, device, budget // 4)
            limits[layer] = 1.0 if bool((read >= 0).all()) else 2.0
    modules = dict(model.named_modules())
    about = [
        {"name": name, "kind": type(modules[name]).__name__, "limit": limits.get(name, 0.0)}
        for name in widths
    ]
    return distances, about


def _cosine_distances(vectors: torch.Tensor, device: torch.device, room: int) -> torch.Tensor:
    """``stiffness.data.evaluation.cosine_distances`` of [N, D], computed on ``device``.

    They are N^2 D multiplications, which one core of a CPU would take long for while a GPU waits.

    Args:
        room: bytes for the float64 columns that are multiplied at once.
    """
    count = len(vectors)
    products = torch.zeros(count, count, dtype=torch.float64, device=device)
    for columns in vectors.split(max(1, room // (8 * count)), 1):
        part = columns.to(device).double()
        products.addmm_(part, part.T)
    norms = products.diagonal().sqrt()
    norms = torch.where(norms > 0, norms, 1)  # a vector that is 0 has distance 1 from all
    cosines = products.div_(norms).div_(norms[:, None])
    return (1 - cosines).clamp_(0, 2).float().cpu()
