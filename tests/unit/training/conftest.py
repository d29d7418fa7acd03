"""A run that others are compared with, and the epochs that are trained."""

from pathlib import Path

import pytest
import torch
from training_cases import FC, ON, segment

from stiffness.training import train


@pytest.fixture(scope="module")
def on(device: torch.device) -> None:
    ON["device"] = device


@pytest.fixture(scope="module")
def whole(few_digits, tmp_path_factory, on) -> Path:
    """Three epochs of FC without interruption."""
    output = tmp_path_factory.mktemp("whole") / "epochs=0000-0003"
    return segment(few_digits, FC, 0, 3, None, output)


@pytest.fixture
def trained_epochs(monkeypatch) -> list[int]:
    """Filled with the epochs (from 0) that are trained."""
    epochs = []
    original = train.Run.train_epoch

    def count(run, work):
        epochs.append(run.epoch)
        original(run, work)

    monkeypatch.setattr(train.Run, "train_epoch", count)
    return epochs
