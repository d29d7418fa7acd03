"""Numbers across experiments: gaps, when stiffnesses part, and values at equal training loss."""

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.pairs import METRICS
from stiffness.measures.studies import (
    describe_gap,
    rows_of_columns,
    stiffness_gaps,
)

# --- gaps ----------------------------------------------------------------------------------------

STEPS = {0: 0.0, 10: 1.0, 20: 2.0}


def replicates_of(experiment: int) -> dict[str, torch.Tensor]:
    """Two quantities that move together, so that their difference is known better than either."""
    generator = torch.Generator().manual_seed(experiment)
    made = {"steps": torch.tensor(list(STEPS))}
    for mode in ("train-train", "train-val"):
        for metric in METRICS:
            common = torch.randn(len(STEPS), 200, generator=generator)
            noise = torch.randn(len(STEPS), 200, generator=generator) * 0.1
            made[f"within/{mode}/{metric}"] = common + noise + 0.5
            made[f"between/{mode}/{metric}"] = common
    return made


def summary_of(experiment: str) -> pd.DataFrame:
    rows = [
        {
            "experiment": experiment,
            "seed": 0,
            "step": step,
            "epoch": epoch,
            "pair_mode": mode,
            "metric": metric,
            "quantity": quantity,
            "value": value + 0.01 * step + 0.001 * len(experiment) + (metric == "sign") * 0.2,
        }
        for step, epoch in STEPS.items()
        for mode in ("train-train", "train-val")
        for metric in METRICS
        for quantity, value in (("within", 0.7 + 0.002 * step), ("between", 0.1), ("x", 9.0))
    ]
    return pd.DataFrame(rows)


def test_gaps_have_the_interval_of_the_differences(tmp_path):
    files = []
    for number, name in enumerate(("a", "bb")):
        files.append(tmp_path / f"{name}.safetensors")
        write_tensors(files[-1], replicates_of(number), {})
    summary = pd.concat([summary_of("a"), summary_of("bb")])
    found = stiffness_gaps(summary, files, [("a", 0), ("bb", 0)], "train-val")
    assert len(found) == 2 * len(STEPS) * len(METRICS)
    for number, name in enumerate(("a", "bb")):
        made = replicates_of(number)
        for metric in METRICS:
            rows = found[(found["experiment"] == name) & (found["metric"] == metric)]
            rows = rows.sort_values("step")
            assert rows["epoch"].tolist() == list(STEPS.values())
            np.testing.assert_allclose(rows["value"], [0.6, 0.62, 0.64])
            parts = [made[f"{q}/train-val/{metric}"].double() for q in ("within", "between")]
            ends = percentile_interval((parts[0] - parts[1]).numpy())
            np.testing.assert_allclose(rows[["low", "high"]].T, ends)
            assert (rows["high"] - rows["low"] < 0.6).all()  # 4 of either alone


def test_gaps_of_later_epochs_than_the_experiments_are_left_out(tmp_path):
    write_tensors(tmp_path / "a.safetensors", replicates_of(0), {})
    summary = summary_of("a")
    short = summary[summary["epoch"] < 2]
    found = stiffness_gaps(short, [tmp_path / "a.safetensors"], [("a", 0)], "train-val")
    assert sorted(found["step"].unique()) == [0, 10]


def test_a_segment_without_checkpoints_and_one_without_the_quantities(tmp_path):
    files = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    write_tensors(files[0], replicates_of(0), {})
    write_tensors(files[1], {"steps": torch.zeros(0, dtype=torch.int64)}, {})
    found = stiffness_gaps(summary_of("a"), files, [("a", 0)] * 2, "train-val")
    assert len(found) == len(STEPS) * len(METRICS)
    write_tensors(files[1], {"steps": torch.tensor([5])}, {})
    with pytest.raises(StiffnessError, match=r"b\.safetensors"):
        stiffness_gaps(summary_of("a"), files, [("a", 0)] * 2, "train-val")


# --- parting -------------------------------------------------------------------------------------


def gap(*rows: tuple[float, float, float]) -> pd.DataFrame:
    """(epoch, value, low) in any order."""
    return pd.DataFrame(rows, columns=["epoch", "value", "low"]).assign(high=1.0)


@pytest.mark.parametrize(
    ("lows", "is_apart", "since"),
    [
        ([0.1, 0.2, 0.1, 0.3], True, 0.0),
        ([0.1, -0.2, 0.1, 0.3], True, 2.0),
        ([-0.1, 0.2, -0.1, 0.3], True, 4.0),
        ([0.1, 0.2, -0.1, -0.3], False, 2.0),
        ([-0.1, 0.0, -0.1, -0.3], False, 0.0),
        ([0.1, 0.2, np.nan, np.nan], False, 2.0),
    ],
)
def test_apart_since_the_last_change(lows, is_apart, since):
    rows = [(epoch, 0.5, low) for epoch, low in zip((0.0, 1.0, 2.0, 4.0), lows, strict=True)]
    found = describe_gap(gap(*reversed(rows)))
    assert (found["apart"], found["since_epoch"]) == (is_apart, since)


def test_the_widest_gap_is_looked_for_after_the_first_epoch():
    found = describe_gap(
        gap((0.0, 0.9, 0.8), (0.5, 0.8, 0.7), (1, 0.3, 0.2), (2, 0.4, 0.3), (3, 0.1, 0))
    )
    assert (found["widest_gap"], found["widest_epoch"]) == (0.4, 2)
    found = describe_gap(gap((0.0, 0.9, 0.8), (0.2, 0.85, 0.8), (0.5, 0.8, 0.7)))
    assert (found["widest_gap"], found["widest_epoch"]) == (0.8, 0.5)


# --- rows -----------------------------------------------------------------------------------------


def test_columns_choose_experiment_and_rate_together():
    table = pd.DataFrame({"experiment": ["a", "a", "b", "b"], "lr": ["1", "2", "1", "2"]})
    chosen = rows_of_columns(
        table, [{"experiment": "a", "lr": "2"}, {"experiment": "b", "lr": "1"}]
    )
    assert chosen.index.tolist() == [1, 2]
