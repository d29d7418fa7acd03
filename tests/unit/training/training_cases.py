"""Runs of a small network, and what makes two of them the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from stiffness.files import read_table, read_tensors
from stiffness.training import train
from stiffness.training.models import ModelSpec
from stiffness.training.specs import TrainingSpec
from stiffness.training.train import (
    HISTORY,
    STATE,
    train_segment,
)

FC = TrainingSpec(ModelSpec("fc"), "1e-3", seed=0, batch_size=32, early_checkpoints=2)
CNN = replace(FC, model=ModelSpec("cnn", padding="same"), learning_rate="3e-3")
NORM = replace(FC, model=ModelSpec("resnet20v1", batch_norm=True))
STEPS = 5  # an epoch of 150 examples

ON: dict[str, torch.device] = {}  # the device, for all tests of a file


def segment(arrays, spec, start, end, previous, output) -> Path:
    train_segment(arrays, spec, start, end, previous, output, ON["device"])
    return Path(output)


def history(*folders: Path) -> pd.DataFrame:
    return pd.concat([read_table(folder / HISTORY) for folder in folders], ignore_index=True)


def checkpoints(*folders: Path) -> dict[str, Path]:
    return {path.name: path for folder in folders for path in folder.glob("step=*")}


def assert_same_tensors(first: Path, second: Path) -> None:
    ours, theirs = read_tensors(first)[0], read_tensors(second)[0]
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_same_run(ours: list[Path], theirs: list[Path]) -> None:
    """Same checkpoints, last state and history, bit for bit."""
    first, second = checkpoints(*ours), checkpoints(*theirs)
    assert first.keys() == second.keys()
    for name, path in first.items():
        assert_same_tensors(path, second[name])
    assert_same_tensors(ours[-1] / STATE, theirs[-1] / STATE)
    pd.testing.assert_frame_equal(history(*ours), history(*theirs), check_exact=True)


@contextmanager
def interrupted(monkeypatch, name: str, call: int, error: BaseException) -> Iterator[None]:
    """Make the ``call``-th call of a name in train.py raise, and expect that it does."""
    calls = 0
    original = getattr(train, name)

    def interrupt(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, name, interrupt)
        with pytest.raises(type(error)):
            yield
    assert calls == call
