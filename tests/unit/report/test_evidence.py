"""What is read of an experiment's files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.files import write_table, write_tensors
from stiffness.report.evidence import Evidence, NotTestable, TooShort

EPOCHS = np.array([0.0, 1.0, 2.0])
RATES, SEEDS, R = ("1e-3", "1e-2"), (0, 1, 2), 50


def value(lr: str, seed: int, step: int, quantity: str, arithmetic: str) -> float:
    shift = {"within": 0.5, "between": -0.1}[quantity]
    return shift - 0.1 * step + 0.01 * seed + (0.2 if lr == "1e-2" else 0) - len(arithmetic) / 100


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("evidence")
    parts: dict[str, list] = {}
    tables: dict[str, dict[str, Path]] = {}
    for arithmetic in ("exact", "float32"):
        made: dict[str, list] = {"runs": [], "history": [], "summary": []}
        for lr in RATES:
            for seed in SEEDS:
                dead = (lr, seed) == ("1e-3", 2)
                key = {"experiment": "some", "lr": lr, "seed": seed}
                key |= {"status": "diverged" if dead else "ok"}
                row = {"onset_epoch": 1.0 + seed, "onset_reached": True}
                made["runs"].append(key | row | {"best_validation_accuracy": 0.9})
                tensors = {"steps": torch.arange(3)}
                for step, epoch in enumerate(EPOCHS):
                    at = key | {"step": step, "epoch": epoch}
                    made["history"].append(at | {"train_loss": 2.0 - step + 0.1 * seed})
                    for quantity in ("within", "between"):
                        about = {"pair_mode": "train-val", "metric": "sign"}
                        about |= {"quantity": quantity}
                        found = value(lr, seed, step, quantity, arithmetic)
                        made["summary"].append(at | about | {"value": found})
                for quantity in ("within", "between"):
                    drawn = [
                        [value(lr, seed, step, quantity, arithmetic) + 0.001 * r for r in range(R)]
                        for step in range(3)
                    ]
                    tensors[f"{quantity}/train-val/sign"] = torch.tensor(drawn)
                for estimator in ("line", "area"):
                    shift = {"line": 1.0, "area": 0.5}[estimator]
                    name = f"xi/{estimator}/input/train-val/cosine"
                    tensors[name] = torch.full((3, R), shift + 0.1 * seed)
                path = folder / f"{arithmetic}-{lr}-{seed}.safetensors"
                write_tensors(path, tensors, {})
                parts.setdefault(f"replicates/{arithmetic}", []).append((lr, seed, path))
                if arithmetic == "exact" and lr == "1e-3":
                    path = folder / f"classes-{seed}.parquet"
                    cells = [{"class_a": a, "class_b": b} for a in "abc" for b in "abc"]
                    write_table(path, pd.DataFrame(cells))
                    for name in ("classes", "whole_set", "layer_stiffness/summary"):
                        parts.setdefault(name, []).append((lr, seed, path))
                    parts["whole_set"] = [*parts["whole_set"], ("1e-2", seed, path)]
        tables[arithmetic] = {}
        for name, rows in made.items():
            tables[arithmetic][name] = folder / f"{arithmetic}-{name}.parquet"
            write_table(tables[arithmetic][name], pd.DataFrame(rows))
    arrays = folder / "arrays.safetensors"
    write_tensors(arrays, {"validation_targets": torch.zeros(77, dtype=torch.int64)}, {})
    return {"tables": tables, "parts": parts, "arrays": arrays}


def evidence(files: dict[str, Any], **changes: Any) -> Evidence:
    settings = {
        "reference_learning_rate": "1e-3",
        "distance_layers": ["input"],
        "bootstrap": {"resamples": R, "seed": 0},
    }
    return Evidence("some", settings, files | changes, "text", True)


def test_a_curve_is_the_mean_over_living_seeds_of_a_rate(files):
    one = evidence(files)
    curve = one.curve("within")
    assert curve.epochs.tolist() == [0, 1, 2]
    expected = [np.mean([value("1e-3", s, k, "within", "exact") for s in (0, 1)]) for k in range(3)]
    np.testing.assert_allclose(curve.estimates, expected)
    np.testing.assert_allclose(curve.losses, [2.05, 1.05, 0.05])
    assert curve.replicates.shape == (3, R)
    other = one.curve("between", arithmetic="float32", lr="1e-2")
    expected = [
        np.mean([value("1e-2", s, k, "between", "float32") for s in SEEDS]) for k in range(3)
    ]
    np.testing.assert_allclose(other.estimates, expected)


def test_replicates_of_a_curve_vary_with_examples_and_seeds(files):
    one = evidence(files)
    runs = one.runs_of("within")
    assert [(run.lr, run.seed) for run in runs] == [("1e-3", 0), ("1e-3", 1)]
    weights = one.weights(runs)
    np.testing.assert_allclose(weights.sum(0), 1)
    expected = sum(run.replicates * weights[place] for place, run in enumerate(runs))
    np.testing.assert_allclose(one.curve("within").replicates, expected)


def test_places_of_a_curve_are_those_of_its_checkpoints(files):
    curve = evidence(files).curve("within")
    assert [curve.near(epoch) for epoch in (-1, 0.4, 0.6, 1.4, 1.6, 9)] == [0, 0, 1, 1, 2, 2]
    assert curve.epochs[curve.late].tolist() == [1, 2]


def test_lengths_are_those_of_the_reference_rate(files):
    one = evidence(files)
    assert [run.seed for run in one.lengths("line")] == [0, 1]
    assert [run.estimates[0] for run in one.lengths("area")] == pytest.approx([0.5, 0.6])
    assert {run.lr for run in one.lengths("line")} == {"1e-3"}


def test_living_runs_and_seeds(files):
    one = evidence(files)
    assert one.alive()["seed"].tolist() == [0, 1]
    assert one.alive("1e-2")["seed"].tolist() == [0, 1, 2]
    assert (one.seeds(), one.seeds(all_rates=True)) == (2, 2)
    one.runs["status"] = "diverged"
    assert one.seeds() == 0
    with pytest.raises(NotTestable, match="no run at learning rate 1e-3 is alive"):
        one.alive()


def test_the_onset_is_the_median_of_runs_that_over_fit(files):
    one = evidence(files)
    assert one.onset() == 1.5
    one.runs.loc[one.runs["seed"] == 2, "onset_reached"] = False
    assert one.onset() == 1.5  # that run is dead
    one.runs.loc[one.runs["seed"] == 1, "onset_reached"] = False
    with pytest.raises(TooShort, match="over-fitting has not set in"):
        one.onset()


def test_parts_are_those_of_living_runs_of_the_reference_rate(files):
    one = evidence(files)
    assert one.classes == 3
    assert one.whole_set()["seed"].value_counts().to_dict() == {0: 9, 1: 9}
    assert len(one.layers("summary")) == 18
    assert one.validation_examples() == 77


@pytest.mark.parametrize(
    ("part", "ask", "reason"),
    [
        ("classes", lambda one: one.classes, "class stiffness is not measured"),
        ("whole_set", lambda one: one.whole_set(), "the whole training set is not measured"),
        ("layer_stiffness/summary", lambda one: one.layers("summary"), "by layer is not measured"),
        (
            "replicates/float32",
            lambda one: one.curve("within", arithmetic="float32"),
            "arithmetic float32 is not measured",
        ),
    ],
)
def test_a_part_that_is_absent_is_not_measured(files, part, ask, reason):
    parts = {key: rows for key, rows in files["parts"].items() if key != part}
    with pytest.raises(NotTestable, match=reason):
        ask(evidence(files, parts=parts))


def test_a_table_or_arrays_that_are_absent_are_not_measured(files):
    one = evidence(files, tables={"exact": {}}, arrays=None)
    with pytest.raises(NotTestable, match="table summary of arithmetic float32"):
        one.table("summary", "float32")
    with pytest.raises(NotTestable, match=r"arrays\.safetensors is not there"):
        one.validation_examples()
