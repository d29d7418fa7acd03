"""config.yaml: the shipped one passes, defaults are filled in, and what is generated fits it."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from config_cases import check_config, complaint, drop, put
from jsonschema import Draft202012Validator

from schemas import generate
from stiffness.plan.config import Figures, read_settings
from stiffness.plan.kinds import KINDS

REPOSITORY = Path(__file__).parents[3]
SHIPPED = REPOSITORY / "config.yaml"
MODEL = {
    "initialization": "glorot_uniform",
    "padding": "valid",
    "blocks": 3,
    "batch_norm": False,
    "input_scale": "unit_norm",
    "zero_init_residual": False,
    "path": "",
}
EVALUATION = {"train": 500, "validation": 500, "seed": 0, "shards": 1, "all": "none"}
RATES = "experiments.digits_fc.learning_rates"


# --- good ----------------------------------------------------------------------------------------


def test_the_shipped_file_is_valid_and_left_alone(config):
    before = copy.deepcopy(config)
    experiments = check_config(config)
    assert list(experiments) == list(config["experiments"])
    assert config == before


def test_defaults_are_filled_in_key_by_key(config):
    experiments = check_config(config)
    merged = experiments["digits_cnn"]
    assert merged["model"] == MODEL | {"name": "cnn", "padding": "same"}
    assert merged["learning_rates"] == ["1e-3", "3e-3", "1e-2"]
    assert merged["batch_size"] == 32
    assert experiments["cifar100_cnn"]["evaluation"] == {
        "train": 3000,
        "validation": 3000,
        "seed": 0,
        "shards": 1,
        "all": "none",
    }
    assert experiments["mnist_cnn"]["model"]["padding"] == "valid"


def test_one_experiment_does_not_change_another(config):
    experiments = check_config(config)
    assert experiments["mnist_fc"]["evaluation"] == EVALUATION


def test_settings_are_plain_and_complete(config):
    """Rules give parts of them to jobs, and provenance.yaml holds whole experiments."""
    settings = read_settings(config)
    assert json.loads(json.dumps(settings)) == settings
    assert settings["experiments"]["mnist_fc"] == {
        "dataset": "mnist",
        "model": MODEL | {"name": "fc"},
        "epochs": 40,
        "learning_rates": ["1e-4", "3e-4", "1e-3", "2e-3", "3e-3"],
        "reference_learning_rate": "1e-3",
        "seeds": [0],
        "epochs_per_job": 20,
        "early_checkpoints": 8,
        "checkpoint_interval": 1,
        "batch_size": 32,
        "optimizer": {"name": "adam", "momentum": 0, "weight_decay": 0, "warmup_epochs": 0},
        "mixed_precision": False,
        "training_arithmetic": "float32",
        "history_examples": 0,
        "augmentation": "none",
        "evaluation": EVALUATION,
        "arithmetic": ["exact"],
        "loss": {"name": "cross_entropy", "label_smoothing": 0},
        "distance_bins": 16,
        "bootstrap": {"resamples": 1000, "seed": 0},
        "distance_layers": ["input"],
        "layer_stiffness": "none",
        "stages": [0, 0.03, 1, "last"],
    }
    assert settings["figures"] == Figures().model_dump()
    assert {*settings["figures"]} == {*KINDS, "claims"}


def test_numbers_stay_as_they_are_written(config):
    """Otherwise the parameters of a job would be spelled anew, and it would run again."""
    put(config, "experiments.digits_fc.checkpoint_interval", 2)
    found = check_config(config)["digits_fc"]
    written = [found["checkpoint_interval"], found["stages"][0], found["optimizer"]["momentum"]]
    assert [repr(number) for number in written] == ["2", "0", "0"]


@pytest.mark.parametrize(
    "key", ["data_dir", "device", "defaults", "figures", "paper", "studies", "figures.distance"]
)
def test_what_may_be_left_out(config, key):
    put(config, key, read_settings(config)[key] if "." not in key else {})
    before = read_settings(config)
    drop(config, key)
    after = read_settings(config)
    assert {*after} == {*before}
    assert after["figures"] == before["figures"]
    assert after["experiments"] == before["experiments"]


def test_defaults_of_ones_own_lie_under_every_experiment(config):
    put(config, "defaults", {"batch_size": 64, "model": {"initialization": "pytorch"}})
    put(config, "defaults.dataset", "mnist")
    drop(config, "experiments.mnist_fc.dataset")
    put(config, "experiments.mnist_cnn.batch_size", 8)
    experiments = check_config(config)
    assert experiments["mnist_fc"]["batch_size"] == 64
    assert experiments["mnist_fc"]["dataset"] == "mnist"
    assert experiments["mnist_fc"]["model"] == MODEL | {"name": "fc", "initialization": "pytorch"}
    assert experiments["mnist_cnn"]["batch_size"] == 8
    assert experiments["mnist_cnn"]["model"]["initialization"] == "pytorch"


# --- defaults that adapt -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rates", "middle"),
    [
        (["2e-5"], "2e-5"),
        (["1e-2", "1e-3"], "1e-3"),
        (["3e-3", "1e-2", "1e-3"], "3e-3"),
        ([".1", "1", "0.01", "1e-3"], "0.01"),
    ],
)
def test_the_reference_rate_is_the_middle_one(config, rates, middle):
    put(config, RATES, rates)
    assert check_config(config)["digits_fc"]["reference_learning_rate"] == middle


def test_texts_measure_distance_in_the_last_hidden_layer(config):
    drop(config, "experiments.mnli_bert.distance_layers")
    assert check_config(config)["mnli_bert"]["distance_layers"] == ["last_hidden"]


@pytest.mark.parametrize(
    ("train", "validation", "bins"), [(500, 500, 16), (3000, 3000, 16), (60, 60, 6), (30, 10, 4)]
)
def test_small_subsets_have_fewer_bins(config, train, validation, bins):
    put(config, "experiments.digits_fc.evaluation", {"train": train, "validation": validation})
    assert check_config(config)["digits_fc"]["distance_bins"] == bins
    put(config, "experiments.digits_fc.distance_bins", 9)
    assert check_config(config)["digits_fc"]["distance_bins"] == 9


def test_a_draw_of_examples_has_a_seed(config):
    put(config, "datasets.mnist.train_examples", 100)
    assert read_settings(config)["datasets"]["mnist"]["seed"] == 0
    assert "seed" not in read_settings(config)["datasets"]["cifar10"]


OWN_IMAGES = """
run: [pets]
datasets: {pets: {source: image_folder, path: pets}}
experiments: {pets: {dataset: pets, model: {name: fc}, epochs: 3, learning_rates: ["1e-3"]}}
"""
OWN_TEXTS = """
run: [reviews]
datasets:
  reviews:
    source: text
    path: reviews
    columns: [first, second]
    label: verdict
    class_names: [bad, good]
    tokenizer: bert
    max_length: 64
experiments:
  reviews:
    dataset: reviews
    model: {name: transformer, path: bert}
    learning_rates: ["2e-5"]
    epochs: 2
"""


@pytest.mark.parametrize("text", [OWN_IMAGES, OWN_TEXTS], ids=["images", "texts"])
def test_a_users_own_file_needs_no_more_than_this(text):
    settings = read_settings(yaml.safe_load(text))
    (experiment,) = settings["experiments"].values()
    assert experiment["reference_learning_rate"] in experiment["learning_rates"]
    assert settings["data_dir"] == "data"


# --- bounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "rest"),
    [
        ("evaluation.shards", 1000, "1000 cannot be; take 100 at most"),
        ("epochs_per_job", 10**9, "1000000000 cannot be; take 100000 at most"),
        ("epochs", 10**9, "1000000000 cannot be; take 100000 at most"),
        ("early_checkpoints", 10**6, "1000000 cannot be; take 1000 at most"),
        ("checkpoint_interval", 1e-9, "1e-09 cannot be; take 0.0001 or more"),
        ("bootstrap.resamples", 10**7, "10000000 cannot be; take 100000 at most"),
        ("bootstrap.resamples", 39, "39 cannot be; take 40 or more"),
        ("distance_bins", 10**6, "1000000 cannot be; take 1000 at most"),
        (
            "checkpoint_interval",
            0.001,
            "0.001 makes 30000 checkpoints of 30 epochs; take 0.003 or more, for 10000 at most",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_bound(config, key, value, rest):
    put(config, f"experiments.digits_fc.{key}", value)
    assert complaint(config) == f"experiments.digits_fc.{key}: {rest}"


def test_more_jobs_than_can_be_planned(config):
    config["experiments"]["digits_fc"] |= {"epochs": 10_000, "epochs_per_job": 1}
    assert complaint(config) == (
        "experiments.digits_fc: 30000 jobs of gradients (3 trainings in 10000 parts, each 1); the "
        "most is 20000: raise epochs_per_job, or lower evaluation.shards"
    )
    put(config, "experiments.digits_fc.epochs_per_job", 20)
    put(config, "experiments.digits_fc.evaluation.shards", 10)
    put(config, "experiments.digits_fc.arithmetic", ["exact", "float32"])
    assert "165000 jobs of gradients (3 trainings in 500 parts, each 110)" in complaint(config)


# --- what is generated ---------------------------------------------------------------------------


def test_the_shipped_file_fits_the_schema_of_editors(config):
    schema = json.loads((REPOSITORY / "workflow/schemas/config.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    editor = Draft202012Validator(schema)
    assert list(editor.iter_errors(config)) == []
    put(config, "defaults", {"batch_size": 64, "model": {"initialization": "pytorch"}})
    assert list(editor.iter_errors(config)) == []
    for key in ("experiments.digits_fc.epoch", "defaults.batchsize", "figures.distance.colour"):
        wrong = copy.deepcopy(config)
        put(wrong, key, 3)
        assert list(editor.iter_errors(wrong)) != []
    assert SHIPPED.read_text().startswith(
        "# yaml-language-server: $schema=workflow/schemas/config.schema.json\n"
    )


@pytest.mark.parametrize("path", generate.FILES, ids=str)
def test_generated_files_are_up_to_date(path):
    said = f"{path} is not what the models say: run `make docs-generated`"
    assert (REPOSITORY / path).read_text() == generate.FILES[path](), said


def test_every_key_is_described_in_the_documentation():
    page = (REPOSITORY / "docs/configuration.md").read_text()
    for section in generate.SECTIONS.values():
        for row in generate.table(section).splitlines()[2:]:
            assert row in page
            assert not row.endswith("|  |"), f"{section.__name__}: {row}"


# --- missing keys --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "where"),
    [
        ("run", "config"),
        ("datasets", "config"),
        ("experiments", "config"),
        ("paper.fig3.experiments", "paper.fig3"),
        ("studies.by_layer.kind", "studies.by_layer"),
        ("paper.fig3.kind", "paper.fig3"),
        ("datasets.mnist.source", "datasets.mnist"),
        ("datasets.mnist.name", "datasets.mnist"),
        ("datasets.digits.seed", "datasets.digits"),
    ],
)
def test_missing_key(config, key, where):
    drop(config, key)
    assert complaint(config) == f"{where}: the key {key.rpartition('.')[2]!r} is missing"


@pytest.mark.parametrize(
    ("dropped", "where"),
    [
        ("experiments.digits_fc.epochs", "experiments.digits_fc"),
        ("experiments.digits_fc.dataset", "experiments.digits_fc"),
        ("experiments.digits_fc.model.name", "experiments.digits_fc.model"),
        ("experiments.digits_fc.model", "experiments.digits_fc"),
    ],
)
def test_key_missing_in_an_experiment_and_in_defaults(config, dropped, where):
    drop(config, dropped)
    key = dropped.rpartition(".")[2]
    assert complaint(config) == f"{where}: the key {key!r} is missing, here and in defaults"
