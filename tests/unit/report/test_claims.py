"""Every claim on an invented experiment for which it holds, and on one for which it does not."""

import doctest
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.files import write_table, write_tensors
from stiffness.measures.pairs import METRICS, PAIR_MODES
from stiffness.report import claims
from stiffness.report.claims import CLAIMS, CONTRADICTED, SUPPORTED, UNDECIDED, Effect
from stiffness.report.evidence import Evidence, NotTestable
from stiffness.report.verdicts import Judged, claims_page, claims_table, judge, overall_verdict

EPOCHS = np.array([0, 0.1, 1, 2, 3, 4, 5, 6, 7, 8])
ONSET = 3
RATES = ("1e-4", "1e-3", "1e-2")
CLASSES = "abcdef"
R = 120
TIME = EPOCHS / EPOCHS[-1]

# As the paper has it: by quantity, or by (quantity, metric), a curve over EPOCHS.
AS_CLAIMED: dict[Any, Any] = {
    ("within", "sign"): [0.97, 0.97, 1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5],
    ("within", "cosine"): [0.9, 0.9, 0.9, 0.85, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2],
    "between": [-0.4, -0.3, -0.2, -0.2, -0.2, -0.1, -0.08, -0.06, -0.04, -0.02],
    "super_class": np.array([0.1, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.3, 0.2, 0.15]),
    "super_super_class": np.array([0.0, 0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.08]),
    "xi": 2 - TIME,
    "xi_of_rate": [0.3, 0.0, -0.3],
    "accuracy": [0.9, 0.901, 0.902],
    "end_of_rate": [0.2, 0.0, -0.2],
    "slope": -0.5,
    "float32": 0.2,  # lost by the end in float32
    "gap": 0.0,  # between train-train and val-val
    "whole": 0.0,  # subset against the whole set
    "positive": 0.5,  # share of class pairs at initialisation
    "crisp": True,  # sign separates classes better
    "layers": [1.5, 1.0, 0.5],
}
# The opposite of each claim.
REVERSED: dict[str, dict[Any, Any]] = {
    "C1": {("within", "sign"): [0.2] * 10, "positive": 0.0},
    "C2": {"between": -0.2 - TIME / 2},
    "C3": {
        ("within", "sign"): 0.5 + TIME / 3,
        ("within", "cosine"): 0.5 + TIME / 3,
        "between": 0.1 + TIME / 2,
    },
    "C3'": {"float32": -0.2},
    "C4": {"gap": 0.3},
    "C5": {("within", "sign"): [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.5]},
    "C6": {("within", "sign"): 1 - TIME, ("within", "cosine"): [0.5] * 10, "crisp": False},
    "C7": {"super_class": [-0.5] * 10},
    "C8": {"super_class": 0.1 + TIME / 2},
    "C9": {("within", "sign"): 0.1 + TIME / 2, "between": 0.3 - TIME / 3},
    "C10": {"slope": 0.5},
    "C11": {"xi": 1 + TIME},
    "C12": {"xi_of_rate": [-0.3, 0.0, 0.3]},
    "C13": {"xi_of_rate": [-0.3, 0.0, 0.3]},
    "C14": {"accuracy": [0.5, 0.7, 0.9], "end_of_rate": [0, 0, 0]},
    "C15": {"whole": 0.3},
    "C16": {"accuracy": [0.5, 0.5, 0.5]},
    "C17": {"layers": [0.5, 1.0, 1.5]},
    "C18": {},  # what supports C12 contradicts it
}
SUPPORTS_C18 = {"xi_of_rate": [-0.3, 0.0, 0.3]}


def invented(folder: Path, settings: dict[str, Any] | None = None, **changes: Any) -> Evidence:
    """The files of an experiment with these curves, three seeds a rate, and noise of 0.005."""
    shape = AS_CLAIMED | changes.pop("curves", {})
    generator = np.random.default_rng(0)
    wanted = {
        "dataset": "cifar100",
        "model": {"name": "resnet20v1"},
        "learning_rates": list(RATES),
        "reference_learning_rate": "1e-3",
        "arithmetic": ["exact", "float32"],
        "distance_layers": ["input"],
        "bootstrap": {"resamples": R, "seed": 0},
    } | (settings or {})
    arrays = folder / "arrays.safetensors"
    write_tensors(arrays, {"validation_targets": torch.zeros(10000, dtype=torch.int64)}, {})
    tables: dict[str, dict[str, list[dict]]] = {
        arithmetic: {name: [] for name in ("runs", "history", "summary", "critical_length")}
        | {"distance": [], "order": []}
        for arithmetic in wanted["arithmetic"]
    }
    parts: dict[str, list[tuple[str, int, Path]]] = {}
    for place, lr in enumerate(RATES):
        for seed in (0, 1, 2):
            for arithmetic, made in tables.items():
                of_run = folder / f"{lr}-{seed}-{arithmetic}"
                found = run(of_run, made, shape, generator)(lr, seed, place, arithmetic)
                for name, path in found.items():
                    name = f"{name}/{arithmetic}" if name == "replicates" else name
                    if arithmetic == "exact" or name == "replicates/float32":
                        parts.setdefault(name, []).append((lr, seed, path))
    for by in ("epoch", "train_loss"):
        order = -np.sign(shape["xi_of_rate"][0])
        for estimator in ("line", "monotone"):
            row = {"by": by, "quantity": f"xi {estimator}", "pair_mode": "train-val"}
            row |= {"metric": "cosine", "tau": order * 0.8, "levels": 3, "rates": 3}
            tables["exact"]["order"].append(
                row | {"low": order * 0.8 - 0.1, "high": order * 0.8 + 0.1}
            )
    paths: dict[str, dict[str, Path]] = {}
    for arithmetic, made in tables.items():
        paths[arithmetic] = {name: folder / f"{arithmetic}-{name}.parquet" for name in made}
        for name, rows in made.items():
            write_table(paths[arithmetic][name], pd.DataFrame(rows))
    return Evidence(
        "some",
        wanted,
        {"tables": paths, "parts": parts, "arrays": arrays},
        changes.get("source", "text"),
        changes.get("has_hierarchy", True),
    )


def run(folder: Path, made: dict[str, list[dict]], shape: dict, generator: np.random.Generator):
    """Writes one run's files, adds its rows to the tables, and returns the paths by part."""

    def noisy(values: Any) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(values, float) + generator.normal(0, 0.0005, len(EPOCHS))
        return values, values[:, None] + generator.normal(0, 0.005, (len(EPOCHS), R))

    def write(lr: str, seed: int, place: int, arithmetic: str) -> dict[str, Path]:
        key = {"experiment": "some", "lr": lr, "seed": seed, "status": "ok"}
        accuracy = shape["accuracy"][place]
        made["runs"].append(
            key
            | {"onset_epoch": float(ONSET), "onset_reached": True}
            | {"best_validation_accuracy": accuracy + 0.0001 * seed}
        )
        replicates: dict[str, torch.Tensor] = {"steps": torch.arange(len(EPOCHS))}
        cells, whole = [], []
        for step, epoch in enumerate(EPOCHS):
            at = {"step": step, "epoch": epoch}
            made["history"].append(key | at | {"train_loss": 2.0 - 0.2 * step})
        for mode in PAIR_MODES:
            for metric in METRICS:
                about = {"pair_mode": mode, "metric": metric}
                for quantity in ("within", "between", "super_class", "super_super_class"):
                    values = np.array(shape.get((quantity, metric), shape.get(quantity)), float)
                    if quantity == "within":
                        values = values + shape["end_of_rate"][place] * TIME
                        values = values - (arithmetic == "float32") * shape["float32"] * TIME
                        values = values - (mode == "val-val") * shape["gap"]
                    values, drawn = noisy(values)
                    replicates[f"{quantity}/{mode}/{metric}"] = torch.from_numpy(drawn).float()
                    for step, epoch in enumerate(EPOCHS):
                        row = key | about | {"step": step, "epoch": epoch, "quantity": quantity}
                        ends = {"low": values[step] - 0.01, "high": values[step] + 0.01}
                        made["summary"].append(row | {"value": values[step]} | ends)
                for layer in ("input",):
                    values = np.asarray(shape["xi"])
                    for estimator in ("line", "monotone"):
                        values, drawn = noisy(values)
                        name = f"xi/{estimator}/{layer}/{mode}/{metric}"
                        replicates[name] = torch.from_numpy(drawn).float()
                    for step, epoch in enumerate(EPOCHS):
                        row = key | about | {"step": step, "epoch": epoch, "layer": layer}
                        slope = shape["slope"]
                        ends = {"slope_low": slope - 0.1, "slope_high": slope + 0.1}
                        fit = {"estimator": "line", "crossing": "measured", "slope": slope}
                        made["critical_length"].append(row | fit | ends)
                        made["distance"].append(row | {"distance": 1.0, "n_pairs": 10})
        for metric in METRICS:
            cells += matrix(shape, metric)
        for step in (0, 9):
            for a in CLASSES:
                for b in CLASSES:
                    curve = shape[("within", "cosine")] if a == b else shape["between"]
                    value = curve[step] + shape["whole"]
                    whole.append({"step": step, "class_a": a, "class_b": b, "value": value})
        tables = {"classes": cells, "whole_set": whole, "layer_stiffness/critical_length": []}
        paths = {"replicates": folder / "replicates.safetensors"}
        write_tensors(paths["replicates"], replicates, {})
        layers = tables["layer_stiffness/critical_length"]
        for depth, level in enumerate(shape["layers"]):
            row = {"step": 9, "depth": depth, "estimator": "line", "crossing": "measured"}
            row |= {"metric": "cosine", "pair_mode": "train-val", "median_distance": 0.5}
            layers.append(row | {"value": level, "low": level - 0.1, "high": level + 0.1})
        for name, made_rows in tables.items():
            paths[name] = folder / f"{name}.parquet"
            write_table(paths[name], pd.DataFrame(made_rows))
        return paths

    return write


def matrix(shape: dict, metric: str) -> list[dict]:
    generator = np.random.default_rng(len(metric))
    spread = 0.02 if (metric == "sign") == shape["crisp"] else 0.4
    rows = []
    for step, epoch in enumerate(EPOCHS):
        for i, a in enumerate(CLASSES):
            for j, b in enumerate(CLASSES):
                value = 0.5 if a == b else -0.1
                value += generator.normal(0, spread)
                if step == 0 and a != b:
                    value = 0.3 if (i + j) % 6 < 6 * shape["positive"] else -0.3
                row = {"step": step, "epoch": epoch, "pair_mode": "train-val", "metric": metric}
                ends = {"value": value, "low": value - 0.1, "high": value + 0.1}
                rows.append(row | {"class_a": a, "class_b": b} | ends)
    return rows


def verdict(evidence: Evidence, name: str) -> str:
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    (judged,) = judge([evidence], ["some"], [claim])
    assert judged.effects, judged.reason
    return judged.verdict


@pytest.fixture(scope="module")
def as_claimed(tmp_path_factory) -> Evidence:
    return invented(tmp_path_factory.mktemp("claimed"))


NAMES = [claim.name for claim in CLAIMS]


def test_all_claims_of_the_paper_are_there():
    assert ["C1", "C2", "C3", "C3'", *(f"C{number}" for number in range(4, 19))] == NAMES
    assert all(claim.rule and claim.text for claim in CLAIMS)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "C18"])
def test_a_claim_that_holds_is_supported(as_claimed, name):
    assert verdict(as_claimed, name) == SUPPORTED


def test_what_supports_c12_and_c13_contradicts_c18(as_claimed):
    assert verdict(as_claimed, "C18") == CONTRADICTED


def test_c18_can_be_supported(tmp_path):
    assert verdict(invented(tmp_path, curves=SUPPORTS_C18), "C18") == SUPPORTED


@pytest.mark.parametrize("name", [name for name in NAMES if name != "C18"])
def test_a_claim_that_does_not_hold_is_contradicted(tmp_path, name):
    assert verdict(invented(tmp_path, curves=REVERSED[name]), name) == CONTRADICTED


@pytest.mark.parametrize(
    ("name", "settings", "reason"),
    [
        ("C3'", {"arithmetic": ["exact"]}, "float32"),
        ("C16", {"dataset": "mnist"}, "not a ResNet"),
    ],
)
def test_an_experiment_that_cannot_speak_says_why(tmp_path, name, settings, reason):
    evidence = invented(tmp_path, settings)
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    with pytest.raises(NotTestable, match=reason):
        claim.measure(evidence)


def test_a_run_that_ends_at_its_onset_says_nothing_of_c3(tmp_path):
    evidence = invented(tmp_path)
    evidence.runs["onset_epoch"] = 7.0
    claim = next(claim for claim in CLAIMS if claim.name == "C3")
    with pytest.raises(NotTestable, match="ends too soon"):
        claim.measure(evidence)


def test_layers_with_overlapping_intervals_decide_nothing(tmp_path):
    evidence = invented(tmp_path, curves={"layers": [1.05, 1.0, 0.95]})
    assert verdict(evidence, "C17") == UNDECIDED


def test_too_few_layers_say_so(tmp_path):
    claim = next(claim for claim in CLAIMS if claim.name == "C17")
    evidence = invented(tmp_path, curves={"layers": [1.0, 0.5]})
    with pytest.raises(NotTestable, match="fewer than 3"):
        claim.measure(evidence)


def test_claims_on_hierarchies_and_texts_need_them(tmp_path):
    evidence = invented(tmp_path, source="torchvision", has_hierarchy=False)
    judged = judge([evidence], ["some"])
    silent = {one.claim.name for one in judged if not one.effects}
    assert silent == {"C7", "C8", "C9"}


def test_a_study_of_the_question_counts_beside_the_papers_experiments(as_claimed):
    unmeasured = [replace(claim, measure=lambda evidence: []) for claim in CLAIMS]

    def counting(paper, studies):
        judged = judge([as_claimed], paper, unmeasured, studies)
        return {one.claim.name for one in judged if one.counts}

    assert counting(["other"], {"arithmetic": ["some"], "layers": ["other"]}) == {"C3'"}
    assert counting(["some"], {}) == set(NAMES)
    assert counting([], {}) == set()


def test_without_the_arrays_c16_says_so(tmp_path):
    (claim,) = [claim for claim in CLAIMS if claim.name == "C16"]
    evidence = invented(tmp_path)
    evidence.files = evidence.files | {"arrays": None}
    with pytest.raises(NotTestable, match=r"arrays\.safetensors is not there"):
        claim.measure(evidence)


@pytest.mark.parametrize(
    ("part", "name", "reason"),
    [
        ("classes", "C1", "class stiffness is not measured"),
        ("whole_set", "C15", "the whole training set is not measured"),
        ("layer_stiffness/critical_length", "C17", "stiffness by layer is not measured"),
        ("replicates/float32", "C3'", "arithmetic float32 is not measured"),
    ],
)
def test_a_part_that_is_absent_is_not_measured(as_claimed, part, name, reason):
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    parts = {key: rows for key, rows in as_claimed.files["parts"].items() if key != part}
    files = as_claimed.files | {"parts": parts}
    evidence = Evidence("some", as_claimed.settings, files, "text", True)
    with pytest.raises(NotTestable, match=reason):
        claim.measure(evidence)


def test_a_table_that_is_absent_is_not_measured(as_claimed):
    files = as_claimed.files | {"tables": {"exact": {}}}
    evidence = Evidence("some", as_claimed.settings, files, "text", True)
    with pytest.raises(NotTestable, match="table summary of arithmetic float32"):
        evidence.table("summary", "float32")


def test_a_claim_is_registered_as_documented():
    before = list(CLAIMS)
    tests = doctest.DocTestFinder(recurse=False).find(claims, "claims")
    assert [doctest.DocTestRunner().run(test) for test in tests] == [(0, 2)]
    assert before == CLAIMS


# --- verdicts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, SUPPORTED),
        (-0.2, -0.1, CONTRADICTED),
        (-0.1, 0.1, UNDECIDED),
        (np.nan, np.nan, UNDECIDED),
    ],
)
def test_the_whole_interval_decides(low, high, expected):
    assert Effect("x", 0.0, low, high, (0.0, np.inf)).verdict == expected
    assert Effect("x", 0.0, low, high).verdict == ""


def one(experiment: str, *verdicts: str, counts: bool = True) -> Judged:
    ends = {SUPPORTED: (1, 2), CONTRADICTED: (-2, -1), UNDECIDED: (-1, 1)}
    effects = [Effect("x", 0.0, *ends[verdict], (0.0, np.inf)) for verdict in verdicts]
    return Judged(CLAIMS[0], experiment, counts, effects, "" if effects else "no reason")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((SUPPORTED, SUPPORTED), SUPPORTED),
        ((SUPPORTED, CONTRADICTED), CONTRADICTED),
        ((SUPPORTED, UNDECIDED), UNDECIDED),
    ],
)
def test_all_effects_must_support_and_one_contradicts(verdicts, expected):
    assert one("a", *verdicts).verdict == expected


def test_experiments_that_disagree_decide_nothing():
    verdict, why = overall_verdict([one("a", SUPPORTED), one("b", CONTRADICTED)])
    assert verdict == UNDECIDED
    assert "supported by a" in why
    assert "contradicted by b" in why


def test_an_undecided_experiment_does_not_spoil_the_others():
    assert overall_verdict([one("a", SUPPORTED), one("b", UNDECIDED)])[0] == SUPPORTED


def test_experiments_that_do_not_count_settle_nothing():
    verdict, why = overall_verdict([one("a", SUPPORTED, counts=False), one("b")])
    assert verdict == "not run"
    assert "none of the experiments" in why


def test_the_page_and_the_table_have_every_number(as_claimed):
    judged = judge([as_claimed], ["some"])
    rows = claims_table(judged)
    text = claims_page(judged, {"some": {"layers": "some/figures/layers.png"}})
    assert list(dict.fromkeys(rows["claim"])) == NAMES
    assert set(rows["verdict"]) <= {SUPPORTED, CONTRADICTED, UNDECIDED, "not run"}
    for claim in CLAIMS:
        assert f"## {claim.name}: " in text
        assert claim.rule in text
    assert "some/figures/layers.png" in text
    decided = rows[rows["effect_verdict"] != ""]
    assert decided[["value", "low", "high"]].notna().all(axis=None)


def test_where_nothing_of_the_paper_has_run_the_page_says_so_once():
    judged = [one("small_net", SUPPORTED, counts=False), one("other", counts=False)]
    text = claims_page(judged, {})
    assert "not run" not in text
    assert text.count("None of the paper's experiments has been run") == 1
    first, second = text.split("## What other experiments show: no evidence for the paper")
    assert "small_net" not in first
    assert "| small_net |\n" in second  # "other" cannot speak to any claim
    assert "| supported |\n" in second
    assert "What the paper's experiments show" not in text


def test_the_papers_experiments_come_first_and_the_others_are_told_apart():
    judged = [one("small_net", CONTRADICTED, counts=False), one("big_net", SUPPORTED)]
    text = claims_page(judged, {})
    places = [
        text.index("## What the paper's experiments show"),
        text.index("| **supported** | supported by big_net |"),
        text.index("no evidence for the paper"),
        text.index("| small_net |\n"),
        text.index("Verdict: **supported**"),
        text.index("| big_net | x"),
        text.index("| small_net (no evidence) | x"),
    ]
    assert places == sorted(places)


def test_an_estimate_outside_its_interval_is_marked():
    inside, outside = Effect("in", 0.5, 0, 1), Effect("out", 2.0, 0, 1)
    text = claims_page([Judged(CLAIMS[0], "a", True, [inside, outside])], {})
    assert "| in | 0.5 |" in text
    assert "| out | 2 † |" in text


def test_a_claim_without_an_experiment_that_counts_is_listed_beside_the_decided_ones():
    undecidable = Judged(CLAIMS[1], "a", True, [], "no reason")
    text = claims_page([one("a", SUPPORTED), undecidable], {})
    assert f"has been run: [{CLAIMS[1].name}](#" in text
