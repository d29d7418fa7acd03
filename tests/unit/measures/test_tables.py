"""Tidy tables of one training segment."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.data.hierarchy import Hierarchy
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.measures import siblings
from stiffness.measures.bootstrap import draw_weights, percentile_interval
from stiffness.measures.classes import ClassStiffness, class_stiffness
from stiffness.measures.distance import (
    ESTIMATORS,
    ClassPairs,
    ResampledPairs,
    distances_from_matrix,
    same_class_pairs,
)
from stiffness.measures.lengths import DistanceStiffness, distance_stiffness
from stiffness.measures.pairs import METRICS, PAIR_MODES, select_pairs
from stiffness.measures.tables import COLUMNS, Measured, measure_segment

NAMES = ["zebra", "ant", "bee"]
NUM_TRAIN = 13
STEPS = {0: 0.0, 5: 0.05, 100: 1.0}
BINS = 4
RESAMPLES, SEED = 50, 3
HIERARCHY = Hierarchy({"insects": ["ant", "bee"], "others": ["zebra"]}, {})
ZERO = (5, 14)  # at the last step, one training and one validation example


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    targets = torch.tensor([0] * 4 + [1] * 5 + [2] * 4 + [0] * 4 + [1] * 4 + [2] * 3)
    inputs = torch.randn(len(targets), 1, 2, 2, generator=torch.Generator().manual_seed(0))
    inputs /= inputs.flatten(1).norm(dim=1)[:, None, None, None]
    return Evaluation(inputs, targets, torch.arange(len(targets)), NUM_TRAIN, NAMES)


def measurement(step: int, number: int) -> tuple[torch.Tensor, torch.Tensor]:
    gradients = torch.randn(number, 6, generator=torch.Generator().manual_seed(step + 1))
    unit = torch.nn.functional.normalize(gradients)
    cosines = unit @ unit.T
    log_norms = gradients.norm(dim=1).double().log()
    if step == max(STEPS):
        zero = list(ZERO)
        cosines[zero] = cosines[:, zero] = torch.nan
        log_norms[zero] = -torch.inf
    return cosines, log_norms


def write(folder, step: int, number: int):
    cosines, log_norms = measurement(step, number)
    path = folder / f"step={step:08d}.safetensors"
    about = {"step": step, "epoch": STEPS[step]}
    write_tensors(path, {"cosines": cosines, "log_norms": log_norms}, about)
    return path


def measure(folder, evaluation: Evaluation, hierarchy: Hierarchy | None = None) -> Measured:
    return measure_segment([folder], evaluation, BINS, RESAMPLES, SEED, hierarchy)


@pytest.fixture(scope="module")
def measured(evaluation, tmp_path_factory) -> Measured:
    folder = tmp_path_factory.mktemp("gradients")
    for step in reversed(STEPS):
        write(folder, step, len(evaluation.targets))
    return measure(folder, evaluation, HIERARCHY)


@pytest.fixture(scope="module")
def tables(measured) -> dict[str, pd.DataFrame]:
    return measured.tables


@pytest.fixture(
    scope="module",
    params=[(step, mode, metric) for step in STEPS for mode in PAIR_MODES for metric in METRICS],
    ids=str,
)
def key(request) -> tuple[int, str, str]:
    return request.param


def at(table: pd.DataFrame, key: tuple[int, str, str]) -> pd.DataFrame:
    step, mode, metric = key
    rows = table[
        (table["step"] == step) & (table["pair_mode"] == mode) & (table["metric"] == metric)
    ]
    assert (rows["epoch"] == STEPS[step]).all()
    return rows


def selected(evaluation: Evaluation, key: tuple[int, str, str]):
    step, mode, metric = key
    cosines, log_norms = measurement(step, len(evaluation.targets))
    classes = evaluation.targets.numpy()
    return select_pairs(cosines.numpy(), log_norms.numpy(), classes, NUM_TRAIN, mode, metric)


def weights_of(evaluation: Evaluation) -> np.ndarray:
    classes = evaluation.targets.numpy()
    return draw_weights(2 * classes + (np.arange(len(classes)) < NUM_TRAIN), RESAMPLES, SEED)


def directly(evaluation: Evaluation, key: tuple[int, str, str], groups=None) -> ClassStiffness:
    weights = weights_of(evaluation)
    sides = {"train": weights[:NUM_TRAIN], "val": weights[NUM_TRAIN:]}
    row, column = key[1].split("-")
    return class_stiffness(selected(evaluation, key), 3, sides[row], sides[column], groups)


def distance_directly(evaluation: Evaluation, key: tuple[int, str, str]) -> DistanceStiffness:
    """The same bins for every checkpoint, mode and metric: they reach to the farthest of all."""
    pairs, values = close_pairs(evaluation, key)
    edges = np.linspace(0, farthest(evaluation), BINS + 1)
    weights = weights_of(evaluation)
    return distance_stiffness(ResampledPairs(pairs, edges, weights, radius(evaluation)), values)


def radius(evaluation: Evaluation) -> float:
    """The least of the pair modes' 90 % quantiles: one for all modes and checkpoints."""
    distances = distances_from_matrix(evaluation.distances().numpy())
    classes = evaluation.targets.numpy()
    return min(
        float(np.quantile(same_class_pairs(distances, classes, NUM_TRAIN, mode).distances, 0.9))
        for mode in PAIR_MODES
    )


def close_pairs(evaluation: Evaluation, key: tuple[int, str, str]):
    """Same-class pairs and their values, pair by pair."""
    step, mode, metric = key
    cosines, log_norms = (part.numpy() for part in measurement(step, len(evaluation.targets)))
    pairs = same_class_pairs(
        distances_from_matrix(evaluation.distances().numpy()),
        evaluation.targets.numpy(),
        NUM_TRAIN,
        mode,
    )
    values, keep = [], []
    for number, (i, j) in enumerate(zip(pairs.first, pairs.second, strict=True)):
        zero = np.isinf(log_norms[i]) or np.isinf(log_norms[j])
        if metric == "sign":
            keep.append(number)
            values.append(0.0 if zero else np.sign(cosines[i, j]))
        elif not zero:
            keep.append(number)
            values.append(cosines[i, j])
    parts = (part[keep] for part in (pairs.first, pairs.second, pairs.distances, pairs.classes))
    return ClassPairs(*parts), np.array(values, np.float64)


def farthest(evaluation: Evaluation) -> float:
    distances, classes = evaluation.distances().numpy(), evaluation.targets.numpy()
    same = classes[:, None] == classes[None, :]
    return float(distances[same].max())


FURTHER = ("extremes", *siblings.COLUMNS)


def test_columns(tables):
    assert list(tables) == list(COLUMNS)
    for name, table in tables.items():
        assert list(table) == COLUMNS[name]
    estimates = [table for name, table in tables.items() if name not in FURTHER]
    for name in ("step", "epoch", "value", "low", "high", "n_pairs", "n_excluded"):
        assert all(pd.api.types.is_numeric_dtype(table[name]) for table in estimates)


@pytest.mark.parametrize(
    ("name", "extra", "rows_a_key"),
    [
        ("summary", ["quantity"], 4),
        ("classes", ["class_a", "class_b"], 9),
        ("critical_length", ["estimator"], len(ESTIMATORS)),
        ("distance", ["distance"], None),
    ],
)
def test_one_row_a_key(tables, name, extra, rows_a_key):
    table = tables[name]
    key = ["step", "pair_mode", "metric"]
    assert not table.duplicated([*key, *extra]).any()
    sizes = table.groupby(key).size()
    assert len(sizes) == len(STEPS) * len(PAIR_MODES) * len(METRICS)
    if rows_a_key:
        assert (sizes == rows_a_key).all()
    else:
        assert sizes.between(1, BINS).all()


def test_checkpoints_in_order(tables):
    for table in tables.values():
        assert table["step"].is_monotonic_increasing
        assert table["step"].unique().tolist() == list(STEPS)


def test_summary_agrees_with_a_direct_call(tables, evaluation, key):
    insects = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]], bool)
    stiffness = directly(evaluation, key, {"super_class": insects})
    rows = at(tables["summary"], key).set_index("quantity")
    assert list(rows.index) == ["within", "between", "positive_share", "super_class"]
    estimates = {"within": stiffness.within, "between": stiffness.between}
    estimates |= {"positive_share": stiffness.positive} | stiffness.groups
    for quantity, estimate in estimates.items():
        row = rows.loc[quantity]
        expected = [estimate.value, estimate.low, estimate.high]
        np.testing.assert_array_equal(
            row[["value", "low", "high"]].astype(float), np.array(expected)
        )
        assert row["n_pairs"] == estimate.num_pairs


def test_without_a_hierarchy_there_are_three_quantities(evaluation, tmp_path):
    write(tmp_path, 0, len(evaluation.targets))
    summary = measure(tmp_path, evaluation).tables["summary"]
    assert set(summary["quantity"]) == {"within", "between", "positive_share"}


# --- wrong labels --------------------------------------------------------------------------------

PARTS = {"clean": [0, 1, 3, 4, 6, 8, 10, 11, 12], "mislabelled": [2, 5, 7, 9]}


@pytest.fixture(scope="module")
def mislabelled(evaluation) -> Evaluation:
    """One, two and one wrong labels in the classes of the training subset."""
    clean = evaluation.targets[:NUM_TRAIN].clone()
    wrong = PARTS["mislabelled"]
    clean[wrong] = (clean[wrong] + 1) % 3
    return replace(evaluation, clean_targets=clean)


def literal_cells(cosines, log_norms, classes, rows, columns, metric) -> np.ndarray:
    """[3, 3]: the mean over the pairs of every two classes; an example may be there twice."""
    values: dict[tuple[int, int], list[float]] = {}
    for i in rows:
        for j in columns:
            zero = np.isinf(log_norms[[i, j]]).any()
            if i != j and not (zero and metric == "cosine"):
                value = 0.0 if zero else float(cosines[i, j])
                value = float(np.sign(value)) if metric == "sign" else value
                values.setdefault((classes[i], classes[j]), []).append(value)
    cells = np.full((3, 3), np.nan)
    for cell, found in values.items():
        cells[cell] = sum(found) / len(found)
    return cells


def nanmean(values: np.ndarray) -> float:
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else np.nan


def test_clean_and_mislabelled_examples_apart(mislabelled, tmp_path):
    step = max(STEPS)  # example 5, mislabelled, has no gradient there
    write(tmp_path, step, len(mislabelled.targets))
    made = measure(tmp_path, mislabelled, HIERARCHY)
    cosines, log_norms = (part.numpy() for part in measurement(step, len(mislabelled.targets)))
    classes, validation = mislabelled.targets.numpy(), range(NUM_TRAIN, len(mislabelled.targets))
    drawn = weights_of(mislabelled).astype(int)
    own = np.eye(3, dtype=bool)
    for mode, columns in (("train-train", None), ("train-val", validation)):
        for metric in METRICS:
            table = at(made.tables["summary"], (step, mode, metric)).set_index("quantity")
            for part, rows in PARTS.items():
                sides = np.array(rows), np.array(rows if columns is None else columns)
                matrix = literal_cells(cosines, log_norms, classes, *sides, metric)
                resampled = [
                    literal_cells(
                        cosines,
                        log_norms,
                        classes,
                        *(np.repeat(side, drawn[side, r]) for side in sides),
                        metric,
                    )
                    for r in range(RESAMPLES)
                ]
                for quantity, cells in ((f"within_{part}", own), (f"between_{part}", ~own)):
                    row = table.loc[quantity]
                    assert row["value"] == pytest.approx(nanmean(matrix[cells]), nan_ok=True)
                    expected = np.array([nanmean(one[cells]) for one in resampled])
                    found = made.replicates[f"{quantity}/{mode}/{metric}"][0].numpy()
                    known = np.isfinite(found)
                    np.testing.assert_allclose(found[known], expected[known], atol=1e-6)
                    ends = percentile_interval(found)
                    np.testing.assert_allclose([row["low"], row["high"]], ends, rtol=1e-5)
                excluded = {"clean": 0, "mislabelled": 1}[part] + (columns is not None)
                expected = excluded if metric == "cosine" else 0
                assert table.loc[f"within_{part}", "n_excluded"] == expected
    within = at(made.tables["summary"], (step, "train-val", "sign")).set_index("quantity")
    assert within.loc["within_clean", "n_pairs"] == 3 * 4 + 3 * 4 + 3 * 3
    assert within.loc["within_mislabelled", "n_pairs"] == 1 * 4 + 2 * 4 + 1 * 3
    assert np.isfinite(within[["value", "low", "high"]].astype(float)).all(axis=None)


def test_the_other_quantities_are_as_without_wrong_labels(mislabelled, evaluation, tmp_path):
    write(tmp_path, 0, len(evaluation.targets))
    plain = measure(tmp_path, evaluation).tables["summary"]
    noisy = measure(tmp_path, mislabelled).tables["summary"]
    extra = noisy["quantity"].isin([f"{q}_{part}" for q in ("within", "between") for part in PARTS])
    pd.testing.assert_frame_equal(noisy[~extra].reset_index(drop=True), plain)
    counts = noisy[extra].groupby("pair_mode").size()
    assert counts.to_dict() == {"train-train": 8, "train-val": 8}


def test_all_labels_of_the_subset_clean_or_all_wrong(evaluation, tmp_path):
    write(tmp_path, 0, len(evaluation.targets))
    own = evaluation.targets[:NUM_TRAIN]
    clean = measure(tmp_path, replace(evaluation, clean_targets=own.clone())).tables["summary"]
    assert set(clean["quantity"]) == {"within", "between", "positive_share"}
    summary = measure(tmp_path, replace(evaluation, clean_targets=(own + 1) % 3)).tables["summary"]
    wide = summary.pivot_table(
        index=["pair_mode", "metric"], columns="quantity", values="value", dropna=False
    ).loc[["train-train", "train-val"]]
    np.testing.assert_array_equal(wide["within_mislabelled"], wide["within"])
    assert wide[["within_clean", "between_clean"]].isna().all(axis=None)


def test_classes_agree_with_a_direct_call(tables, evaluation, key):
    stiffness = directly(evaluation, key)
    rows = at(tables["classes"], key)
    assert rows["class_a"].drop_duplicates().tolist() == NAMES
    expected = {
        "value": stiffness.matrix,
        "low": stiffness.low,
        "high": stiffness.high,
        "n_pairs": stiffness.num_pairs,
    }
    for name, matrix in expected.items():
        wide = rows.pivot(index="class_a", columns="class_b", values=name).loc[NAMES, NAMES]
        np.testing.assert_array_equal(wide.to_numpy(), matrix)


def test_distance_agrees_with_a_direct_call(tables, evaluation, key):
    bins = distance_directly(evaluation, key).bins
    rows = at(tables["distance"], key)
    expected = np.stack([bins.distance, bins.value, bins.low, bins.high, bins.num_pairs], axis=1)
    found = rows[["distance", "value", "low", "high", "n_pairs"]].to_numpy(float)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)
    assert rows["n_pairs"].sum() == len(close_pairs(evaluation, key)[1])


def test_critical_lengths_agree_with_a_direct_call(tables, evaluation, key):
    lengths = distance_directly(evaluation, key).lengths
    rows = at(tables["critical_length"], key)
    assert rows["estimator"].tolist() == list(ESTIMATORS)
    names = ["value", "low", "high", "slope", "slope_low", "slope_high", "intercept"]
    names += ["at_crossing", "at_crossing_low", "at_crossing_high"]
    names += ["floor", "floor_low", "floor_high", "radius", "max_distance"]
    for row, fit in zip(rows.to_dict("records"), lengths, strict=True):
        assert row["crossing"] == fit.crossing
        assert row["n_pairs"] == fit.num_pairs
        np.testing.assert_allclose(
            [row[name] for name in names], [getattr(fit, name) for name in names], rtol=1e-5
        )


def test_replicates_are_those_behind_the_intervals(measured, evaluation, key):
    step, mode, metric = key
    replicates = {name: values.numpy() for name, values in measured.replicates.items()}
    assert replicates.pop("steps").tolist() == list(STEPS)
    quantities = ["within", "between", "positive_share", "super_class", "floor/decay/input"]
    quantities += [f"xi/{estimator}/input" for estimator in ESTIMATORS]
    assert set(replicates) == {
        f"{quantity}/{one}/{other}"
        for quantity in quantities
        for one in PAIR_MODES
        for other in METRICS
    }
    number, end = list(STEPS).index(step), f"{mode}/{metric}"
    assert {values.shape for values in replicates.values()} == {(len(STEPS), RESAMPLES)}
    stiffness, lengths = directly(evaluation, key), distance_directly(evaluation, key).lengths
    expected = {"within": stiffness.within.replicates, "between": stiffness.between.replicates} | {
        f"xi/{length.estimator}/input": length.replicates for length in lengths
    }
    expected["positive_share"] = stiffness.positive.replicates
    (expected["floor/decay/input"],) = (one.floors for one in lengths if len(one.floors))
    for name, values in expected.items():
        np.testing.assert_allclose(
            replicates[f"{name}/{end}"][number], values, rtol=1e-5, atol=1e-6
        )
    summary = at(measured.tables["summary"], key).set_index("quantity")
    for quantity in ("within", "between", "super_class"):
        if abs(summary.loc[quantity, "value"]) == 1:
            continue  # pairs that all agree have an interval of Wilson's type
        ends = percentile_interval(replicates[f"{quantity}/{end}"][number])
        np.testing.assert_allclose(
            summary.loc[quantity, ["low", "high"]].astype(float), ends, rtol=1e-5
        )


def test_all_checkpoints_have_the_same_draws(evaluation, tmp_path, monkeypatch):
    # The same measurement at two steps: every replicate is the same, in any company.
    monkeypatch.setitem(STEPS, 7, 0.5)
    number = len(evaluation.targets)
    cosines, log_norms = measurement(0, number)
    for step in (0, 7):
        about = {"step": step, "epoch": STEPS[step]}
        path = tmp_path / f"step={step:08d}.safetensors"
        write_tensors(path, {"cosines": cosines, "log_norms": log_norms}, about)
    made = measure(tmp_path, evaluation)
    for name, values in made.replicates.items():
        if name != "steps":
            np.testing.assert_array_equal(values[0], values[1])
    again = measure(tmp_path, evaluation).replicates
    for name, values in made.replicates.items():
        np.testing.assert_array_equal(values, again[name])
    other = measure_segment([tmp_path], evaluation, BINS, RESAMPLES, SEED + 1).replicates
    assert (other["within/train-val/cosine"] != made.replicates["within/train-val/cosine"]).any()


def test_examples_without_a_gradient_are_reported(tables, key):
    step, mode, metric = key
    expected = 0
    if step == max(STEPS) and metric == "cosine":
        expected = {"train-train": 1, "train-val": 2, "val-val": 1}[mode]
    for name in tables.keys() - {*FURTHER}:
        assert (at(tables[name], key)["n_excluded"] == expected).all()


def test_every_checkpoint_has_its_extremes(tables, evaluation):
    for step, epoch in STEPS.items():
        rows = tables["extremes"][tables["extremes"]["step"] == step]
        assert set(rows["epoch"]) == {epoch}
        cosines = measurement(step, len(evaluation.targets))[0].numpy()
        pairs = rows[rows["second"] >= 0]
        assert ((pairs["first"] < NUM_TRAIN) != (pairs["second"] < NUM_TRAIN)).all()
        np.testing.assert_array_equal(pairs["value"], cosines[pairs["first"], pairs["second"]])
        gone = set(ZERO) if step == max(STEPS) else set()
        assert not gone & (set(rows["first"]) | set(rows["second"]))


def test_a_class_with_one_example_is_undefined_in_the_tables(tmp_path):
    targets = torch.tensor([0, 0, 0, 1, 0, 0, 0, 1])
    inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    inputs = torch.nn.functional.normalize(inputs).reshape(8, 1, 2, 2)
    write(tmp_path, 0, 8)
    tables = measure(tmp_path, Evaluation(inputs, targets, torch.arange(8), 4, ["a", "b"])).tables
    classes = tables["classes"].set_index(["metric", "pair_mode", "class_a", "class_b"])
    for metric in METRICS:
        alone = classes.loc[(metric, "train-train", "b", "b")]
        assert np.isnan(alone["value"])
        assert alone["n_pairs"] == 0
        both = classes.loc[(metric, "train-val", "b", "b")]
        assert np.isfinite(both["value"])
        assert np.isnan([both["low"], both["high"]]).all()


@pytest.mark.parametrize("number", [23, 25])
def test_another_subset_is_an_error_that_names_the_file(evaluation, tmp_path, number):
    write(tmp_path, 0, len(evaluation.targets))
    path = write(tmp_path, 5, number)
    with pytest.raises(StiffnessError) as raised:
        measure(tmp_path, evaluation)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1


def test_a_broken_file_is_an_error_that_names_the_file(evaluation, tmp_path):
    path = write(tmp_path, 0, len(evaluation.targets))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StiffnessError, match=path.name):
        measure(tmp_path, evaluation)


def test_an_empty_folder_gives_empty_tables(evaluation, tmp_path):
    made = measure(tmp_path, evaluation)
    assert {name: len(values) for name, values in made.replicates.items()} == {"steps": 0}
    tables = made.tables
    assert list(tables) == list(COLUMNS)
    for name, table in tables.items():
        assert list(table) == COLUMNS[name]
        assert len(table) == 0
