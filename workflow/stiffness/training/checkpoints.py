"""Going through the checkpoints of a training."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from stiffness.errors import StiffnessError
from stiffness.files import read_tensors
from stiffness.training.models import ModelSpec, load_weights


class Checkpoint(NamedTuple):
    """A checkpoint, without its weights.

    Attributes:
        step: optimiser steps so far.
        epoch: epochs so far; a fraction within an epoch.
        path: the file.
    """

    step: int
    epoch: float
    path: Path

    @property
    def metadata(self) -> dict[str, Any]:
        return {"step": self.step, "epoch": self.epoch}

    @contextmanager
    def named_in_errors(self) -> Iterator[None]:
        """Let the message of a StiffnessError begin with the checkpoint's path."""
        try:
            yield
        except StiffnessError as error:
            raise StiffnessError(f"{self.path}: {error}") from None


def checkpoints_of(
    folder: str | Path,
    model: nn.Module,
    spec: ModelSpec,
    steps: Collection[int] | None = None,
) -> Iterator[Checkpoint]:
    """The checkpoints in a folder in the order of their steps, each with its weights in ``model``.

    Args:
        folder: of files step=*.safetensors; others are left alone.
        model: the weights are loaded in place, where they stay until the next checkpoint.
        spec: describes the model in errors.
        steps: of the checkpoints to go through; None for all of them.

    Raises:
        StiffnessError: a checkpoint is unreadable or belongs to another model.
    """
    for path in sorted(Path(folder).glob("step=*.safetensors")):
        if steps is None or int(path.stem.removeprefix("step=")) in steps:
            weights, metadata = read_tensors(path)
            load_weights(model, weights, str(path), str(spec))
            yield Checkpoint(metadata["step"], metadata["epoch"], path)
