"""Resamples read back for a whole experiment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.files import write_tensors
from stiffness.measures.replicates import Replicates

NAME, XI = "within/train-val/sign", "xi/line/input/train-val/cosine"


def segment(path, steps, level):
    values = torch.full((len(steps), 5), float(level)) + torch.arange(5)
    lengths = torch.tensor([[1.0, 2.0, torch.inf, torch.inf, torch.nan]] * len(steps))
    tensors = {NAME: values, XI: lengths, "steps": torch.tensor(steps)}
    write_tensors(path, tensors if steps else {"steps": torch.zeros(0, dtype=torch.int64)}, {})
    return path


@pytest.fixture
def replicates(tmp_path) -> Replicates:
    runs = [("1e-3", 0), ("1e-3", 0), ("1e-3", 1), ("9", 0)]
    files = [
        segment(tmp_path / "a", [0, 10], 0),
        segment(tmp_path / "b", [20, 30], 1),
        segment(tmp_path / "c", [0, 10, 20], 2),
        segment(tmp_path / "d", [], 0),
    ]
    rows, summary = [], []
    for lr, seed in dict.fromkeys(runs):
        for step in (0, 10, 20):  # the experiment ends before step 30
            status = "diverged" if lr == "9" else "ok"
            key = {"lr": lr, "seed": seed, "status": status, "step": step, "epoch": step / 10}
            rows.append(key | {"train_loss": 3 - step / 10})
            about = {"quantity": "within", "pair_mode": "train-val", "metric": "sign"}
            summary.append(key | about | {"value": step + 100 * seed})
    return Replicates.from_files(runs, files, pd.DataFrame(rows), pd.DataFrame(summary))


def test_segments_of_a_run_are_joined_and_cut_at_its_end(replicates):
    first, second = replicates.stiffness("within", "train-val", "sign")
    assert (first.lr, first.seed, second.seed) == ("1e-3", 0, 1)
    assert first.epochs.tolist() == [0, 1, 2]
    assert first.losses.tolist() == [3, 2, 1]
    assert first.estimates.tolist() == [0, 10, 20]
    assert first.replicates[:, 0].tolist() == [0, 0, 1]
    assert second.estimates.tolist() == [100, 110, 120]


def test_a_run_may_have_one_checkpoint(replicates):
    first = replicates.history[replicates.history["step"] == 0]
    run, _ = replace(replicates, history=first).stiffness("within", "train-val", "sign")
    assert run.estimates.tolist() == [0]


def test_dead_runs_are_left_out(replicates):
    assert {run.lr for run in replicates.stiffness("within", "train-val", "sign")} == {"1e-3"}


def test_a_critical_length_is_the_median_of_its_resamples(replicates):
    first, _ = replicates.critical_lengths("line", "input", "train-val", "cosine")
    assert first.estimates.tolist() == [2, 2, 2]  # of 1, 2, inf, inf: the lower of the middle two
    assert np.isnan(first.replicates[0, -1])
