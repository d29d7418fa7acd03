"""Values at equal loss and at equal epoch, of one experiment's runs and of several tables."""

import numpy as np
import pandas as pd
import pytest

from stiffness.errors import StiffnessError
from stiffness.measures.equal_loss import (
    EPOCH,
    LOSS,
    add_losses,
    epoch_grid,
    loss_grid,
    round_losses,
    run_at_levels,
    tables_at_losses,
)
from stiffness.measures.replicates import RunValues


def run(lr="1e-3", seed=0, epochs=(0, 1, 2, 4), losses=(2.0, 1.0, 0.5, 0.25), values=None, **rest):
    values = np.array(epochs if values is None else values, float)
    replicates = rest.get("replicates", np.repeat(values[:, None], 3, 1))
    return RunValues(
        lr, seed, np.array(epochs, float), np.array(losses, float), values, np.array(replicates)
    )


# --- levels --------------------------------------------------------------------------------------


def test_losses_are_those_that_all_runs_go_through_after_epoch_1():
    runs = [run(losses=(2, 1, 0.5, 0.25)), run(losses=(2, 0.8, 0.3, 0.1))]
    levels = loss_grid(runs, 3)
    np.testing.assert_allclose(levels, np.geomspace(0.8, 0.25, 3))


def test_runs_without_a_common_range_have_no_level():
    # Whatever the fast one went through before the end of its first epoch.
    runs = [run(losses=(2.4, 1, 0.9, 0.8)), run(losses=(2.2, 0.5, 0.4, 0.3))]
    assert len(loss_grid(runs)) == 0
    assert len(loss_grid([run(losses=(2, 1, 0.9, 0.5)), runs[1]])) == 0
    assert len(loss_grid([run(losses=(2, 1, 0.9, 0.49)), runs[1]])) > 0
    assert len(loss_grid([run(losses=(2, 1, 0.5, 0.0))])) == 0  # no logarithm


def test_epochs_are_shared_by_all_runs_and_evenly_spread():
    runs = [run(epochs=(0, 0.5, 1, 2, 3, 4), losses=range(6, 0, -1)), run(epochs=(0, 1, 2, 4))]
    assert epoch_grid(runs, 8).tolist() == [1, 2, 4]
    assert epoch_grid([], 8).tolist() == []


# --- interpolation -------------------------------------------------------------------------------


def test_values_at_a_loss_are_interpolated_in_its_logarithm():
    one = run(values=(10, 20, 30, 70))
    values, replicates = run_at_levels(one, LOSS, np.array([1.0, np.sqrt(0.5), 0.25 * 2**0.25]))
    np.testing.assert_allclose(values, [20, 25, 30 + 40 * 0.75])
    np.testing.assert_allclose(replicates[:, 0], values)


def test_a_loss_counts_where_it_is_first_reached():
    one = run(losses=(2.0, 0.5, 1.0, 0.4), values=(0, 1, 2, 3))
    values, _ = run_at_levels(one, LOSS, np.array([0.5]))
    np.testing.assert_allclose(values, [1])


def test_between_a_crossing_and_none_the_nearer_checkpoint_counts():
    one = run(losses=(4.0, 2.0, 1.0, 0.5), values=(1, 1, np.inf, np.inf))
    near, far = np.array([2 ** (1 - 0.2)]), np.array([2 ** (1 - 0.8)])
    assert run_at_levels(one, LOSS, near)[0].tolist() == [1]
    assert run_at_levels(one, LOSS, far)[0].tolist() == [np.inf]


def test_levels_that_a_run_never_reaches_are_refused():
    with pytest.raises(StiffnessError, match="never falls so far"):
        run_at_levels(run(), LOSS, np.array([0.1]))
    with pytest.raises(StiffnessError, match="no checkpoint"):
        run_at_levels(run(), EPOCH, np.array([3.0]))


# --- tables at a few round losses ----------------------------------------------------------------


def history(losses: list[float], lr: str = "1e-3", status: str = "ok", **columns) -> pd.DataFrame:
    key = {"experiment": "net", "lr": lr, "seed": 0, "status": status}
    return pd.DataFrame({"train_loss": losses, **columns}).assign(step=range(len(losses)), **key)


def test_common_losses_are_passed_by_every_living_run():
    runs = pd.concat(
        [
            history([2.3, 1.0, 0.2]),
            history([2.2, 0.7, 0.4123, 0.43], lr="3e-3"),
            history([2.3, 2.3], lr="1", status="at chance"),
        ]
    )
    assert round_losses(runs) == pytest.approx([0.945, 0.63, 0.42])
    assert round_losses(runs, [1, 5, 6]) == pytest.approx([2.1, 0.42])
    assert round_losses(runs.iloc[:0]) == []
    # Already of two digits: not rounded up once more.
    assert round_losses(history([2.3, 0.42]), [1]) == [0.42]


def measured(values, crossings=None) -> dict:
    ends = {"value": values, "low": [v - 0.1 for v in values], "high": [v + 0.2 for v in values]}
    return ends | ({"crossing": crossings} if crossings else {})


def test_values_between_checkpoints_are_linear_in_the_logarithm_of_the_loss():
    table = history([2.0, 1.0, 0.25, 0.5, 0.1], **measured([1.0, 2.0, 4.0, 9.0, 8.0]))
    found = tables_at_losses(table.iloc[::-1], [0.5, 0.25, 0.05])
    assert found["train_loss"].tolist() == [0.5, 0.25]  # 0.05 is not reached
    # Half-way from 1 to 0.25, the first time; and at a checkpoint.
    assert found["value"].tolist() == pytest.approx([3.0, 4.0])
    assert found["low"].tolist() == pytest.approx([2.9, 3.9])
    assert found["high"].tolist() == pytest.approx([3.2, 4.2])
    assert "crossing" not in found


def test_runs_are_kept_apart():
    table = pd.concat(
        [
            history([2.0, 0.5], **measured([1.0, 3.0])),
            history([4.0, 0.25], "3e-3", **measured([5.0, 9.0])),
        ]
    )
    found = tables_at_losses(table, [1.0]).set_index("lr")["value"]
    assert found.to_dict() == pytest.approx({"1e-3": 2.0, "3e-3": 7.0})


@pytest.mark.parametrize(
    ("crossings", "expected"),
    [
        (["measured", "measured"], "measured"),
        (["extrapolated", "measured"], "extrapolated"),
        (["measured", "beyond the data"], "beyond the data"),
        (["none", "measured"], "none"),
    ],
)
def test_the_worse_crossing_counts(crossings, expected):
    table = history([2.0, 0.5], **measured([1.0, 3.0], crossings))
    assert tables_at_losses(table, [1.0])["crossing"].tolist() == [expected]


def test_what_is_undefined_or_open_on_one_side_stays_so():
    table = history([2.0, 0.5], value=[1.0, np.nan], low=[0.5, 1.5], high=[np.inf, 2.0])
    (row,) = tables_at_losses(table, [1.0]).to_dict("records")
    assert np.isnan(row["value"])
    assert row["low"] == pytest.approx(1.0)
    assert row["high"] == np.inf
    table = history([2.0, 0.5], value=[1.0, 2.0], low=[0.5, 1.5], high=[2.0, np.inf])
    assert tables_at_losses(table, [1.0])["high"].tolist() == [np.inf]


def test_losses_are_those_of_the_same_checkpoint_of_the_same_run():
    runs = pd.concat(
        [history([2.0, 0.5]), history([3.0, 0.7], "3e-3"), history([9.0, 9.0], "1", "diverged")]
    )
    table = runs.drop(columns="train_loss").assign(value=1.0).iloc[[3, 0, 4]]
    assert add_losses(table, runs)["train_loss"].tolist() == [0.7, 2.0]
