"""What must hold of the numbers, whatever they are."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.files import read_table, read_tensors

TABLES = ("runs", "history", "summary", "distance", "critical_length")
MODES = ("train-train", "train-val", "val-val")
# As in the tiny configuration; holes and bows are one half, lines the other.
SUPER_CLASS = dict(zip("0689235147", ["holes"] * 4 + ["bows"] * 3 + ["lines"] * 3, strict=True))
EXAMPLES = 4  # of each of the 10 classes, in each of the two halves of the subset


@pytest.fixture(scope="module")
def tables(tiny):
    folder = tiny.folder / "results/tiny/tables/exact"
    return {name: read_table(folder / f"{name}.parquet") for name in TABLES}


@pytest.fixture(scope="module")
def classes(tiny):
    """The class matrices of all segments."""
    files = sorted(tiny.folder.glob("results/tiny/*/*/measures/exact/*/classes.parquet"))
    assert len(files) == 4
    return [read_table(file) for file in files]


def test_cosine_matrices_are_correlations(tiny):
    files = sorted(tiny.folder.glob("results/tiny/**/gradients/**/*.safetensors"))
    assert len(files) == 10
    for file in files:
        tensors, _ = read_tensors(file)
        cosines = tensors["cosines"].double()
        assert cosines.shape == (80, 80)
        assert torch.equal(cosines, cosines.T), file
        assert cosines.abs().max() <= 1, file
        assert (cosines.diagonal() - 1).abs().max() < 1e-6, file
        assert torch.linalg.eigvalsh(cosines).min() > -1e-4, file
        assert torch.isfinite(tensors["log_norms"]).all(), file


def test_the_subset_has_equal_classes_and_unit_inputs(tiny):
    file = "results/data/digits/evaluation/train=40_validation=40_seed=0.safetensors"
    subset = Evaluation.load(tiny.folder / file)
    for half in (slice(0, 40), slice(40, 80)):
        assert torch.bincount(subset.targets[half]).tolist() == [EXAMPLES] * 10
        assert len(set(subset.indices[half].tolist())) == 40
    norms = subset.inputs.flatten(1).norm(dim=1)
    assert (norms - 1).abs().max() < 1e-5


@pytest.mark.parametrize("name", TABLES)
def test_every_table_begins_with_the_run_it_is_about(tables, name):
    table = tables[name]
    assert list(table.columns[:4]) == ["experiment", "lr", "seed", "status"]
    assert set(table["experiment"]) == {"tiny"}
    assert set(table["lr"]) == {"1e-3", "3e-3"}
    assert set(table["seed"]) == {0}
    assert set(table["status"]) == {"ok"}


def test_stiffness_is_between_minus_one_and_one(tables, classes):
    for table in (tables["summary"], tables["distance"], *classes):
        assert table["value"].notna().all()
        assert table["value"].abs().max() <= 1


def test_values_lie_in_their_intervals(tables, classes):
    for table in (tables["summary"], tables["distance"], tables["critical_length"], *classes):
        known = table.dropna(subset=["value", "low", "high"])
        assert len(known) > 0
        assert (known["low"] <= known["value"]).all()
        assert (known["value"] <= known["high"]).all()
    assert tables["summary"][["low", "high"]].notna().all(axis=None)
    lines = tables["critical_length"].dropna(subset=["slope_low"])
    assert len(lines) > 0
    assert ((lines["slope_low"] <= lines["slope"]) & (lines["slope"] <= lines["slope_high"])).all()


def test_each_pair_is_counted_once(tables, classes):
    within = {"train-train": 10 * EXAMPLES * (EXAMPLES - 1) / 2, "train-val": 10 * EXAMPLES**2}
    within["val-val"] = within["train-train"]
    summary = tables["summary"]
    assert (summary["n_excluded"] == 0).all()
    counted = summary.groupby(["pair_mode", "quantity"])["n_pairs"].unique()
    for mode in MODES:
        assert counted[mode, "within"].tolist() == [within[mode]]
        between = 40 * 40 - 10 * EXAMPLES**2
        assert counted[mode, "between"].tolist() == [
            between if mode == "train-val" else between / 2
        ]
    for table in classes:
        own = table["class_a"] == table["class_b"]
        expected = np.where(
            own & (table["pair_mode"] != "train-val"), EXAMPLES * (EXAMPLES - 1) / 2, EXAMPLES**2
        )
        assert (table["n_pairs"] == expected).all()


def test_distances_use_each_pair_of_a_class_once(tables):
    pairs = {"train-train": 60, "train-val": 160, "val-val": 60}
    bins = tables["distance"].groupby(["lr", "step", "pair_mode", "metric"])["n_pairs"].sum()
    assert len(bins) == 2 * 5 * 3 * 2
    for table in (bins.reset_index(), tables["critical_length"]):
        assert (table["n_pairs"] == table["pair_mode"].map(pairs)).all()
    assert tables["distance"]["distance"].between(0, 2).all()


def test_a_critical_length_is_positive_or_absent(tables):
    table = tables["critical_length"]
    absent = table["crossing"] == "none"
    assert table.loc[absent, "value"].isna().all()
    beyond = table["crossing"] == "beyond the data"
    assert (table.loc[beyond, "estimator"] == "monotone").all()
    assert table.loc[beyond, "value"].isna().all()
    area = table["estimator"] == "area"  # a mean stiffness up to a distance, and no distance
    assert table.loc[area, "value"].between(-1, 1).all()
    found = table[~absent & ~beyond & ~area]
    assert len(found) > 0
    assert (found["value"] > 0).all()
    within = found["value"] <= found["max_distance"]
    assert (within == found["crossing"].isin(["measured", "misfit"])).all()
    assert (~within == (found["crossing"] == "extrapolated")).all()


def test_summaries_are_means_of_the_class_matrix(tables, classes):
    for table in classes:
        own = table["class_a"] == table["class_b"]
        low_a, low_b = (table[name].map(SUPER_CLASS) for name in ("class_a", "class_b"))
        same_half = (low_a == "lines") == (low_b == "lines")
        for quantity, cells in (
            ("within", table[own]),
            ("between", table[~own]),
            ("super_class", table[~own & (low_a == low_b)]),
            ("super_super_class", table[same_half & (low_a != low_b)]),
        ):
            keys = ["step", "pair_mode", "metric"]
            means = cells.groupby(keys)["value"].mean()
            summary = tables["summary"]
            same = summary[(summary["quantity"] == quantity)].groupby([*keys, "lr"])["value"]
            found = same.first().unstack("lr").loc[means.index]
            nearest = (found.sub(means, axis=0)).abs().min(axis=1)
            assert nearest.max() < 1e-12


def test_histories_go_on_from_segment_to_segment(tables):
    for _, run in tables["history"].groupby("lr"):
        assert run["step"].tolist() == [0, 1, 6, 38, 76]
        assert run["epoch"].iloc[-1] == 2
        assert all(early < late for early, late in pairwise(run["step"]))
        assert run["train_loss"].iloc[-1] < run["train_loss"].iloc[0]
        accuracies = run[["train_accuracy", "validation_accuracy", "chance_accuracy"]]
        assert accuracies.stack().between(0, 1).all()
