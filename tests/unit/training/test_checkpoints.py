from pathlib import Path

import pytest
import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec

SPEC = ModelSpec("fc")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for step in (20, 0, 7):
        weights = {"weight": torch.full((1, 2), float(step)), "bias": torch.zeros(1)}
        about = {"step": step, "epoch": step / 10}
        write_tensors(tmp_path / f"step={step:08d}.safetensors", weights, about)
    (tmp_path / "state.safetensors").write_bytes(b"of the optimiser")
    return tmp_path


def test_checkpoints_come_in_order_with_their_weights_loaded(folder: Path) -> None:
    model, found = nn.Linear(2, 1), []
    for checkpoint in checkpoints_of(folder, model, SPEC):
        assert (model.weight == checkpoint.step).all()
        assert checkpoint.metadata == {"step": checkpoint.step, "epoch": checkpoint.epoch}
        found.append(tuple(checkpoint))
    names = [(step, step / 10, folder / f"step={step:08d}.safetensors") for step in (0, 7, 20)]
    assert found == names


def test_only_the_steps_asked_for(folder: Path) -> None:
    found = checkpoints_of(folder, nn.Linear(2, 1), SPEC, steps={20, 5})
    assert [checkpoint.step for checkpoint in found] == [20]


def test_errors_name_the_checkpoint(folder: Path) -> None:
    with pytest.raises(StiffnessError, match=r"step=00000000.*another model"):
        next(checkpoints_of(folder, nn.Linear(3, 1), SPEC))
    checkpoint = next(checkpoints_of(folder, nn.Linear(2, 1), SPEC))
    with (
        pytest.raises(StiffnessError, match=r"/step=00000000\.safetensors: it diverged$"),
        checkpoint.named_in_errors(),
    ):
        raise StiffnessError("it diverged")
