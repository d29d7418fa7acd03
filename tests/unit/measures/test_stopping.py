"""Early stopping by stiffness."""

import numpy as np
import pandas as pd
import pytest

from stiffness.measures.replicates import RunValues
from stiffness.measures.stopping import LAST_EPOCH, VALIDATION_LOSS, find_fall, stopping_table

EPOCHS = np.array([0, 0.5, 1, 2, 3, 4, 5, 6])


def run(values, noise=0.01, lr="1e-3", seed=0) -> RunValues:
    values = np.array(values, float)
    shared = np.random.default_rng(0).normal(0, 0.3, 100)  # of the examples: cancels
    own = np.random.default_rng(1).normal(0, noise, (len(values), 100))
    return RunValues(lr, seed, EPOCHS, EPOCHS[::-1], values, values[:, None] + shared + own)


def test_the_checkpoint_before_a_lasting_fall():
    assert find_fall(run([0.2, 0.1, 0.9, 1, 1, 0.8, 0.7, 0.6])) == 4


def test_what_happens_before_epoch_1_does_not_count():
    assert find_fall(run([1, 1, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])) is None


def test_one_dip_is_no_fall():
    assert find_fall(run([0, 0, 1, 1, 0.5, 1, 1, 1])) is None


def test_a_fall_within_the_noise_is_none():
    assert find_fall(run([0, 0, 1, 1, 0.99, 0.99, 0.98, 0.99], noise=0.2)) is None


def test_a_small_fall_shows_where_examples_agree():
    """The level's own error of 0.3 is far larger than the fall."""
    assert find_fall(run([0, 0, 1, 1, 0.9, 0.9, 0.9, 0.9])) == 3


@pytest.fixture
def history() -> pd.DataFrame:
    losses = [2, 1, 0.6, 0.5, 0.4, 0.45, 0.5, 0.6]
    return pd.DataFrame(
        {
            "lr": "1e-3",
            "seed": 0,
            "step": range(8),
            "epoch": EPOCHS,
            "validation_loss": losses,
            "validation_accuracy": np.linspace(0.1, 0.8, 8),
        }
    )


def test_every_rule_has_a_row(history):
    runs = {"sign": [run([0, 0, 1, 1, 0.5, 0.5, 0.5, 0.5])], "cosine": [run([1.0] * 8)]}
    found = stopping_table(runs, history).set_index("rule")
    assert found["epoch"].to_dict() == {VALIDATION_LOSS: 3, "sign": 2, "cosine": 6, LAST_EPOCH: 6}
    assert found["reached"].to_dict() == {
        VALIDATION_LOSS: True,
        "sign": True,
        "cosine": False,
        LAST_EPOCH: True,
    }
    assert found.loc["sign", "validation_loss"] == 0.5


def test_a_loss_that_still_falls_has_not_stopped(history):
    history["validation_loss"] = np.linspace(2, 1, 8)
    found = stopping_table({"sign": [run([1.0] * 8)]}, history).set_index("rule")
    assert not found.loc[VALIDATION_LOSS, "reached"]


def test_dead_runs_are_left_out(history):
    dead = history.assign(lr="9")
    found = stopping_table({"sign": [run([1.0] * 8)]}, pd.concat([history, dead]))
    assert set(found["lr"]) == {"1e-3"}
