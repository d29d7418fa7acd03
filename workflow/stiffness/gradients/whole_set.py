"""Cosine class stiffness over all pairs of the whole training set, in time linear in its size."""

import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.batch import Inputs, length
from stiffness.gradients.arithmetic import Loss
from stiffness.gradients.gram import whole_set_cosines
from stiffness.gradients.plan import Plans
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec, build_model

COLUMNS = ["step", "epoch", "class_a", "class_b", "value", "n_examples", "n_excluded"]
logger = logging.getLogger(__name__)


class _Prepared:
    """Training inputs that are preprocessed when they are taken: 60,000 images stay bytes."""

    def __init__(self, arrays: Arrays, device: torch.device) -> None:
        self.arrays, self.device = arrays, device

    def __len__(self) -> int:
        return length(self.arrays.train_inputs)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        images = self.arrays.train_inputs
        assert isinstance(images, torch.Tensor)
        rows = rows.to(images.device) if isinstance(rows, torch.Tensor) else rows
        prepared = self.arrays.preprocess(images[rows].to(self.device))
        assert isinstance(prepared, torch.Tensor)
        return prepared

    def to(self, device: torch.device) -> "_Prepared":
        return _Prepared(self.arrays, device)


def measure_whole_set(
    checkpoints: str | Path,
    arrays: Arrays,
    model_spec: ModelSpec,
    device: torch.device,
    memory_budget: str,
    steps: Collection[int] | None = None,
    data_dir: str | Path = ".",
    loss: Loss = "cross_entropy",
) -> pd.DataFrame:
    """The class stiffness matrix of every checkpoint in the folder ``checkpoints``.

    Args:
        steps: of the checkpoints to measure; None for all of them.
        loss: as ``gradient_cosines`` takes it.

    Returns:
        One row per pair of classes: step, epoch, class_a, class_b, value, the number of examples
        n_examples, and n_excluded, the number of examples left out as their gradient is 0.

    Raises:
        StiffnessError: a checkpoint is unreadable, belongs to another model or has diverged.
    """
    names = arrays.class_names
    model = build_model(model_spec, arrays.shape, len(names), 0, data_dir).to(device)
    images = isinstance(arrays.train_inputs, torch.Tensor)
    inputs: Inputs = _Prepared(arrays, device) if images else arrays.train_inputs  # type: ignore[assignment]
    rows: list[dict[str, Any]] = []
    plans = Plans()
    for checkpoint in checkpoints_of(checkpoints, model, model_spec, steps):
        began = time.perf_counter()
        with checkpoint.named_in_errors():
            matrix, excluded = whole_set_cosines(
                model,
                inputs,
                arrays.train_targets,
                loss,
                num_classes=len(names),
                memory_budget=memory_budget,
                plans=plans,
            )
        count = len(arrays.train_targets)
        rows += [
            checkpoint.metadata
            | {
                "class_a": a,
                "class_b": b,
                "value": float(matrix[i, j]),
                "n_examples": count,
                "n_excluded": excluded,
            }
            for i, a in enumerate(names)
            for j, b in enumerate(names)
        ]
        logger.info(
            f"step {checkpoint.step}: class stiffness over all pairs of {count} examples "
            f"in {time.perf_counter() - began:.1f} s"
        )
    return pd.DataFrame(rows, columns=COLUMNS)
