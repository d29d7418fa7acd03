"""Runs whose loss is no longer finite."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from training_cases import FC, checkpoints, history, interrupted, segment

from stiffness.files import read_metadata, read_tensors
from stiffness.training import train
from stiffness.training.train import (
    HISTORY_COLUMNS,
    STATE,
    checkpoint_name,
)

pytestmark = pytest.mark.usefixtures("on")


def assert_diverged(folder: Path) -> None:
    table = history(folder)
    assert not np.isfinite(table["train_loss"].iloc[-1])
    assert np.isfinite(table["train_loss"].iloc[:-1]).all()
    assert sorted(checkpoints(folder)) == [checkpoint_name(step) for step in table["step"][:-1]]
    for path in checkpoints(folder).values():
        for name, tensor in read_tensors(path)[0].items():
            assert torch.isfinite(tensor).all(), f"{path}: {name}"
    assert read_metadata(folder / STATE)["diverged"] is True


@pytest.mark.parametrize("early_checkpoints", [0, 3])
def test_a_rate_that_is_far_too_large(few_digits, tmp_path, early_checkpoints):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=early_checkpoints)
    assert_diverged(segment(few_digits, spec, 0, 3, None, tmp_path / "run"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(
    few_digits, whole, tmp_path, monkeypatch, trained_epochs, value
):
    original = train._evaluate
    calls = 0

    def evaluate(*args):
        nonlocal calls
        calls += 1
        loss, accuracy = original(*args)
        # Two a record: from the end of the second epoch on
        return (loss if calls <= 2 * len(history(whole)) - 4 else value), accuracy

    monkeypatch.setattr(train, "_evaluate", evaluate)
    first = segment(few_digits, FC, 0, 3, None, tmp_path / "first")
    assert_diverged(first)
    assert history(first)["epoch"].iloc[-1] == 2
    assert trained_epochs == [0, 1]


def test_the_segment_after_a_divergence_is_empty(few_digits, tmp_path, trained_epochs):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=0)
    first = segment(few_digits, spec, 0, 1, None, tmp_path / "first")
    trained_epochs.clear()
    chain = [first]
    for start in (1, 2):
        chain.append(segment(few_digits, spec, start, start + 1, chain[-1], tmp_path / str(start)))
    assert trained_epochs == []
    for folder in chain[1:]:
        assert checkpoints(folder) == {}
        assert len(history(folder)) == 0
        assert history(folder).columns.tolist() == HISTORY_COLUMNS
        assert read_metadata(folder / STATE)["diverged"] is True
    assert len(history(*chain)) == len(history(first))


def test_an_interrupted_divergence_stays_one(few_digits, tmp_path, monkeypatch, trained_epochs):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=0)
    expected = segment(few_digits, spec, 0, 3, None, tmp_path / "expected")
    trained_epochs.clear()
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    output = segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    assert trained_epochs == [0]
    assert_diverged(output)
    pd.testing.assert_frame_equal(history(output), history(expected))
