"""What became of each run, and an experiment's tables put together."""

import numpy as np
import pandas as pd
import pytest

from stiffness.files import write_table
from stiffness.training.runs import collect_tables, describe_run, run_status

CHANCE = float(np.log(10))
HISTORY_COLUMNS = [
    "step",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "chance_loss",
    "chance_accuracy",
]


def make_history(train_loss, validation_loss=None, first_epoch: int = 0) -> pd.DataFrame:
    """One row per epoch of ten steps; accuracies rise to 0.9 and 0.8."""
    number = len(train_loss)
    epochs = np.arange(first_epoch, first_epoch + number)
    return pd.DataFrame(
        {
            "step": 10 * epochs,
            "epoch": epochs.astype(float),
            "train_loss": np.array(train_loss, float),
            "train_accuracy": np.linspace(0.1, 0.9, number),
            "validation_loss": np.array(validation_loss or train_loss, float),
            "validation_accuracy": np.linspace(0.1, 0.8, number),
            "chance_loss": CHANCE,
            "chance_accuracy": 0.1,
        }
    )


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        ([2.4, 1.0, 0.3], "ok"),
        ([2.4, 2.31, 0.98 * CHANCE], "ok"),
        ([2.4, 2.3, CHANCE, CHANCE], "at chance"),
        ([2.4, 2.303, 0.995 * CHANCE], "at chance"),
        ([2.4, 1.0, CHANCE], "collapsed"),
        ([2.4, 0.2, 5.0], "collapsed"),
        ([2.4, 1.0, np.nan], "diverged"),
        ([2.4, 1.0, np.inf], "diverged"),
        ([2.4, np.nan, 1.0], "diverged"),
        ([np.nan], "diverged"),
    ],
)
def test_status(losses, status):
    assert run_status(make_history(losses)) == status


def test_the_onset_is_the_lowest_validation_loss():
    history = make_history([2.4, 1.0, 0.5, 0.2, 0.1], [2.4, 1.1, 0.8, 0.9, 1.0])
    row = describe_run(history)
    assert row["status"] == "ok"
    assert row["onset_epoch"] == 2.0
    assert row["lowest_validation_loss"] == 0.8
    assert row["onset_reached"] is True
    assert row["epochs"] == 4.0
    assert row["final_train_loss"] == 0.1
    assert row["final_validation_loss"] == 1.0
    assert row["final_train_accuracy"] == 0.9
    assert row["final_validation_accuracy"] == 0.8


@pytest.mark.parametrize(
    ("last", "reached"), [(0.5, False), (0.8, False), (0.804, False), (0.81, True)]
)
def test_the_onset_is_reached_when_the_loss_has_risen_by_one_percent(last, reached):
    row = describe_run(make_history([2.4, 1.0, 0.5], [2.4, 0.8, last]))
    assert row["onset_reached"] is reached
    assert row["onset_epoch"] == (2.0 if last < 0.8 else 1.0)


def test_the_best_accuracy_need_not_be_the_last():
    history = make_history([2.4, 1.0, 0.5])
    history["validation_accuracy"] = [0.1, 0.9, 0.7]
    row = describe_run(history)
    assert row["best_validation_accuracy"] == 0.9
    assert row["final_validation_accuracy"] == 0.7


def test_a_diverged_run_has_an_onset_among_its_finite_losses():
    row = describe_run(make_history([2.4, 1.0, np.nan], [2.4, 1.2, np.nan]))
    assert row["status"] == "diverged"
    assert row["onset_epoch"] == 1.0
    assert row["onset_reached"] is False
    assert np.isnan(row["final_train_loss"])


def test_without_a_finite_loss_there_is_no_onset():
    row = describe_run(make_history([np.nan, np.nan]))
    assert np.isnan([row["onset_epoch"], row["lowest_validation_loss"]]).all()
    assert row["onset_reached"] is False


# --- putting together ----------------------------------------------------------------------------

KEY = ["experiment", "lr", "seed", "status"]
RUNS = [("1e-3", 0), ("1e-3", 1), ("1e-1", 0)]
LOSSES = {
    ("1e-3", 0): [2.4, 1.0, 0.5, 0.3, 0.2],
    ("1e-3", 1): [2.4, 1.1, 0.6, 0.4, 0.3],
    ("1e-1", 0): [2.4, 2.31, 2.31, 2.31, 2.31],
}


def write(folder, name: str, table: pd.DataFrame) -> str:
    path = folder / f"{name}.parquet"
    write_table(path, table)
    return str(path)


@pytest.fixture
def collected(tmp_path) -> dict[str, pd.DataFrame]:
    """Two segments a run, trained to epoch 4, of which 3 are wanted."""
    histories, parts = [], {"summary": [], "distance": []}
    for number, run in enumerate(RUNS):
        history = make_history(LOSSES[run])
        halves = history[:3], history[3:]
        # The later segment first: rows are put in order.
        histories.append([write(tmp_path, f"h{number}{half}", halves[half]) for half in (1, 0)])
        for name, files in parts.items():
            tables = [
                half[["step", "epoch"]].assign(value=half["step"] + number, of=name)
                for half in halves
            ]
            files.append(
                [write(tmp_path, f"{name}{number}{i}", table) for i, table in enumerate(tables)]
            )
    return collect_tables("some_net", 3, RUNS, histories, parts)


def test_the_key_stands_first(collected):
    assert set(collected) == {"runs", "history", "summary", "distance"}
    for table in collected.values():
        assert list(table)[:4] == KEY
        assert (table["experiment"] == "some_net").all()
    assert list(collected["summary"]) == [*KEY, "arithmetic", "step", "epoch", "value", "of"]
    assert set(collected["summary"]["arithmetic"]) == {"exact"}
    assert list(collected["history"]) == [*KEY, *HISTORY_COLUMNS]


def test_one_row_a_run(collected):
    runs = collected["runs"]
    assert list(zip(runs["lr"], runs["seed"], strict=True)) == RUNS
    assert runs["status"].tolist() == ["ok", "ok", "at chance"]
    assert runs["epochs"].tolist() == [3.0] * 3
    assert runs["final_train_loss"].tolist() == [0.3, 0.4, 2.31]
    assert list(runs.columns).count("status") == 1


def test_later_epochs_are_dropped(collected):
    for name in ("history", "summary", "distance"):
        assert collected[name]["epoch"].max() == 3.0
        assert len(collected[name]) == 4 * len(RUNS)


def test_runs_are_kept_apart(collected):
    for name in ("summary", "distance"):
        table = collected[name]
        assert (table["of"] == name).all()
        for number, (lr, seed) in enumerate(RUNS):
            rows = table[(table["lr"] == lr) & (table["seed"] == seed)]
            assert rows["value"].tolist() == [number, 10 + number, 20 + number, 30 + number]
            assert (rows["status"] == collected["runs"]["status"][number]).all()


def test_histories_are_in_order_of_steps(collected):
    for (lr, seed), losses in LOSSES.items():
        history = collected["history"]
        rows = history[(history["lr"] == lr) & (history["seed"] == seed)]
        assert rows["train_loss"].tolist() == losses[:4]


def test_the_index_is_unbroken(collected):
    # Figures look rows up by label.
    for table in collected.values():
        assert table.index.tolist() == list(range(len(table)))


def test_the_status_is_that_of_the_epochs_asked_for(tmp_path):
    history = write(tmp_path, "history", make_history([2.4, 1.0, 0.5, 2.4]))
    status = {
        epochs: collect_tables("e", epochs, [("1", 0)], [[history]], {})["runs"]["status"].item()
        for epochs in (2, 3)
    }
    assert status == {2: "ok", 3: "collapsed"}


def test_a_run_that_diverged_before_its_last_segment(tmp_path):
    # Segments after the divergence have no checkpoint: their tables are empty, without dtypes.
    histories = [
        write(tmp_path, "h0", make_history([2.4, np.nan])),
        write(tmp_path, "h1", pd.DataFrame([], columns=HISTORY_COLUMNS)),
    ]
    alive = write(tmp_path, "alive", make_history([2.4, 0.5]))
    columns = ["step", "epoch", "value"]
    full = write(tmp_path, "s0", pd.DataFrame([[0, 0.0, 0.5]], columns=columns))
    empty = write(tmp_path, "s1", pd.DataFrame([], columns=columns))
    tables = collect_tables(
        "e",
        5,
        [("1", 0), ("1e-3", 0)],
        [histories, [alive]],
        {"summary": [[full, empty], [full]]},
    )
    assert tables["runs"]["status"].tolist() == ["diverged", "ok"]
    assert tables["summary"]["value"].tolist() == [0.5, 0.5]
    assert len(tables["history"]) == 4
    for name, column in (
        ("summary", "step"),
        ("summary", "value"),
        ("history", "epoch"),
        ("history", "train_loss"),
        ("runs", "final_train_loss"),
    ):
        assert pd.api.types.is_numeric_dtype(tables[name][column]), (name, column)
