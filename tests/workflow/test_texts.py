"""Texts and a transformer through the whole workflow; and a user's own, by config alone."""

import shutil
from typing import Any

import pandas as pd
import pytest
from project import Project, figures

from stiffness.data.arrays import Arrays
from stiffness.plan.kinds import KINDS as ALL_KINDS

pytestmark = pytest.mark.slow

TEXTS = "results/texts/"
KINDS = ("training_curves", "class_matrices", "distance", "critical_length")
HISTORY = "results/own/lr=3e-3/seed=0/checkpoints/epochs=0000-0001/history.parquet"
TARGETS = (*[f"{TEXTS}figures/{kind}.pdf" for kind in KINDS], HISTORY)
LAYERS = ["bert.encoder.layer.1", "bert.embeddings"]
SHARED = {
    "learning_rates": ["3e-3"],
    "reference_learning_rate": "3e-3",
    "epochs": 1,
    "early_checkpoints": 1,
    "checkpoint_interval": 0.5,
    "batch_size": 8,
    "stages": [0, 0.5, "last"],
    "evaluation": {"train": 18, "validation": 18},
}
CONFIG: dict[str, Any] = {
    "run": ["texts"],
    "data_dir": "language",
    "datasets": {
        "nli": {
            "source": "text",
            "path": "nli",
            "columns": ["premise", "hypothesis"],
            "label": "label",
            "class_names": ["entailment", "neutral", "contradiction"],
            "tokenizer": "bert",
            "max_length": 32,
        },
        "reviews": {
            "source": "text",
            "path": "reviews",
            "columns": ["review"],
            "label": "verdict",
            "class_names": ["good", "bad"],
            "tokenizer": "own",
            "max_length": 16,
        },
    },
    "experiments": {
        "texts": {
            **SHARED,
            "dataset": "nli",
            "model": {"name": "transformer", "path": "bert"},
            "optimizer": {"name": "adamw", "warmup_epochs": 0.5},
            "distance_layers": LAYERS,
        },
        "own": {
            **SHARED,
            "dataset": "reviews",
            "model": {"name": "transformer", "path": "own"},
            "distance_layers": ["distilbert.embeddings"],
        },
    },
}


@pytest.fixture(scope="module")
def texts(
    source, tmp_path_factory, tiny_language, make_rows, make_tokenizer, make_transformer
) -> Project:
    """Both experiments, built: to be read, not changed."""
    project = Project(shutil.copytree(source, tmp_path_factory.mktemp("texts") / "project"))
    language = shutil.copytree(tiny_language, project.folder / "language")
    # DistilBERT tells no first text from a second, and its tokenizer says nothing of it.
    names = ["input_ids", "attention_mask"]
    make_tokenizer(language / "own", model_input_names=names)
    make_transformer(language / "own", "DistilBert")
    (language / "reviews").mkdir()
    for split, seed in (("train", 3), ("validation", 4)):
        rows = [row for row in make_rows(60, seed) if row["label"] < 2]
        table = pd.DataFrame(
            {
                "review": [row["hypothesis"] for row in rows],
                "verdict": [["good", "bad"][row["label"]] for row in rows],
            }
        )
        table.to_csv(language / "reviews" / f"{split}.csv", index=False)
    project.configure(CONFIG)
    project.build(*TARGETS)
    return project


@pytest.fixture
def changed(texts, tmp_path) -> Project:
    """A copy of it, times of change included."""
    return Project(shutil.copytree(texts.folder, tmp_path / "project"))


ABSENT = ("whole_set", "layers", "arithmetic_axes", "contact_sheet", "equal_loss")


def test_figures(texts):
    for kind in KINDS:
        for suffix in ("pdf", "png"):
            assert (texts.folder / f"{TEXTS}figures/{kind}.{suffix}").stat().st_size > 1000


def test_every_kind_of_figure_is_planned(texts):
    # These texts are no images, have no hierarchy of classes and one learning rate, and nothing
    # asks for the whole set, for layers or for float32.
    one_each = {name for name, kind in ALL_KINDS.items() if not kind.across}
    left = one_each - {*ABSENT, *KINDS, "hierarchy_matrix", "hierarchy_curves"}
    planned = figures(*left)
    assert texts.plan() == dict.fromkeys({*planned, "comparison", "all"}, 1)


@pytest.mark.parametrize("name", ["distance", "critical_length"])
def test_tables_have_both_layers(texts, name):
    table = pd.read_parquet(texts.folder / f"results/texts/tables/exact/{name}.parquet")
    assert set(table["layer"]) == set(LAYERS)
    keys = ["step", "pair_mode", "metric"]
    by_layer = table.groupby("layer")[keys].apply(lambda rows: set(map(tuple, rows.to_numpy())))
    # Initialisation, the first steps, half an epoch and its end; three modes and two metrics.
    steps = set(
        pd.read_parquet(texts.folder / "results/texts/tables/exact/history.parquet")["step"]
    )
    assert {0, 1, 4, 8} <= steps
    assert {len(found) for found in by_layer} == {len(steps) * 3 * 2}
    wide = table[table["metric"] == "cosine"]
    assert wide["value"].notna().any()


def test_a_users_own_texts_and_network(texts):
    history = pd.read_parquet(texts.folder / HISTORY)
    assert history["epoch"].iloc[-1] == 1
    assert history["train_loss"].iloc[0] != history["train_loss"].iloc[-1]
    assert set(history["chance_accuracy"]) == {0.5}
    arrays = Arrays.load(texts.folder / "results/data/reviews/arrays.safetensors")
    assert arrays.class_names == ["good", "bad"]
    assert arrays.train_inputs.keys() == {"input_ids", "attention_mask"}


def test_a_second_run_has_nothing_to_do(texts):
    assert texts.plan(*TARGETS) == {}
    assert texts.half_written() == []


def test_an_edited_label_is_read_though_no_size_changes(changed):
    file = changed.folder / "language" / "nli" / "train.jsonl"
    before = file.stat().st_size
    file.write_text(file.read_text().replace('"label": 0', '"label": 1', 1))
    assert file.stat().st_size == before
    jobs = changed.plan(*TARGETS)
    assert jobs["arrays"] == 1  # and not the reviews'
    assert jobs["training"] == 1


def test_other_pretrained_weights_are_trained_and_no_texts_read(changed, make_transformer):
    make_transformer(changed.folder / "language" / "bert", seed=9)
    jobs = changed.plan(*TARGETS)
    assert jobs["training"] == 1
    assert "arrays" not in jobs


def test_other_layers_need_no_gradients(changed):
    experiments = {"texts": CONFIG["experiments"]["texts"] | {"distance_layers": LAYERS[:1]}}
    changed.configure(CONFIG | {"experiments": CONFIG["experiments"] | experiments})
    jobs = changed.plan("results/texts/tables/exact/distance.parquet")
    assert jobs == {"representations": 1, "measures": 1, "tables": 1}


def test_a_data_dir_that_moved_reruns_nothing(changed):
    shutil.move(changed.folder / "language", changed.folder / "elsewhere")
    changed.configure(CONFIG | {"data_dir": "elsewhere"})
    assert changed.plan(*TARGETS) == {}
