"""Which checkpoints stand for the stages of training, of which run, and their matrices."""

import pandas as pd
import pytest

from stiffness.files import write_table
from stiffness.training.stages import (
    Stage,
    choose_stages,
    read_matrices,
    reference_run,
    reference_stages,
)

# Rows of one run in a longer table: labels that do not begin at 0. The accuracy dips and peaks.
HISTORY = pd.DataFrame(
    {
        "step": [0, 1, 10, 100, 200, 300],
        "epoch": [0, 0.01, 0.1, 1, 2, 3],
        "validation_accuracy": [0.1, 0.3, 0.2, 0.5, 0.5, 0.4],
        "lr": "1e-3",
        "seed": 1,
    },
    index=range(7, 13),
)


def test_by_epoch_the_nearest_checkpoint():
    chosen = choose_stages(HISTORY, [0, 0.012, "1", 1.4, 50, "last"])
    assert [stage.step for stage in chosen] == [0, 1, 100, 100, 300, 300]
    assert all(stage.reached for stage in chosen)
    assert chosen[-1] == Stage(300, 3.0, 0.4, None)


def test_by_accuracy_the_first_checkpoint_at_or_above_it():
    chosen = choose_stages(HISTORY, [{"accuracy": value} for value in (0.05, 0.2, 0.3, 0.31, 0.5)])
    assert [stage.step for stage in chosen] == [0, 1, 1, 100, 100]
    assert all(stage.reached for stage in chosen)


def test_an_accuracy_never_reached_is_the_first_of_the_best_and_says_so():
    (stage,) = choose_stages(HISTORY, [{"accuracy": 0.6}])
    assert stage == Stage(100, 1.0, 0.5, 0.6)
    assert not stage.reached


def runs(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["lr", "seed", "status"])


def test_the_reference_run_is_the_first_that_is_alive():
    table = runs(("1e-3", 2, "ok"), ("1e-3", 0, "collapsed"), ("1e-3", 1, "ok"), ("1", 0, "ok"))
    assert reference_run(table, "1e-3") == (1, "ok")


def test_without_a_living_run_the_first_says_what_became_of_it():
    table = runs(("1e-3", 1, "collapsed"), ("1e-3", 0, "diverged"), ("1", 0, "ok"))
    assert reference_run(table, "1e-3") == (0, "diverged")


def test_reference_stages_are_those_of_the_reference_run():
    other = HISTORY.assign(seed=2, validation_accuracy=0.9)
    history = pd.concat([other, HISTORY.assign(lr="1"), HISTORY], ignore_index=True)
    table = runs(("1e-3", 2, "ok"), ("1e-3", 1, "ok"), ("1", 0, "ok"))
    (stage,) = reference_stages(table, history, "1e-3", [{"accuracy": 0.45}])
    assert stage == Stage(100, 1.0, 0.5, 0.45)


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = []
    for number in range(2):
        keys = [
            (step, metric, mode)
            for step in (0, 100)
            for metric in ("sign", "cosine")
            for mode in ("train-train", "val-val")
        ]
        table = pd.DataFrame(keys, columns=["step", "metric", "pair_mode"])
        paths.append(str(tmp_path / f"{number}.parquet"))
        write_table(paths[-1], table.assign(value=float(number)))
    return paths


def test_only_what_is_shown_is_read(files):
    stages = [Stage(100, 1.0, 0.5)]
    table = read_matrices(files, [3, 5], stages, ["sign"], ["val-val", "train-val"])
    assert table.to_dict("records") == [
        {"step": 100, "metric": "sign", "pair_mode": "val-val", "value": value, "seed": seed}
        for value, seed in ((0.0, 3), (1.0, 5))
    ]


def test_no_such_step_is_an_empty_table(files):
    table = read_matrices(files, [3, 5], [Stage(7, 0.1, 0.2)], ["sign"], ["val-val"])
    assert len(table) == 0
    assert list(table) == ["step", "metric", "pair_mode", "value", "seed"]
