"""Every complaint about a name or a value names its key in one line."""

import pytest
from config_cases import check_config, complaint, put

RATES = "experiments.digits_fc.learning_rates"
REFERENCE = "experiments.digits_fc.reference_learning_rate"


# --- unknown names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "where", "suggestion"),
    [
        ("devic", "cpu", "config", "device"),
        ("experiments.digits_fc.epoch", 3, "experiments.digits_fc", "epochs"),
        ("defaults.batchsize", 3, "defaults", "batch_size"),
        ("experiments.digits_fc.model.paddin", "same", "experiments.digits_fc.model", "padding"),
        ("figures.distance.colour", "red", "figures.distance", "color"),
        ("figures.class_matrixes", {}, "figures", "class_matrices"),
        ("paper.fig3.experiment", [], "paper.fig3", "experiments"),
    ],
)
def test_unknown_key(config, key, value, where, suggestion):
    put(config, key, value)
    unknown = key.rpartition(".")[2]
    assert complaint(config) == f"{where}: unknown key {unknown!r}; did you mean {suggestion!r}?"


def test_unknown_key_unlike_any_other(config):
    put(config, "experiments.digits_fc.zzz", 3)
    message = complaint(config)
    assert message.startswith("experiments.digits_fc: unknown key 'zzz'; known: dataset, model,")


def test_unknown_key_that_yaml_reads_as_something_else_than_text(config):
    config["experiments"]["digits_fc"][5] = "x"
    message = complaint(config)
    assert message.startswith("experiments.digits_fc: unknown key")
    assert "5" in message


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "experiments.digits_fc.dataset",
            "digts",
            "experiments.digits_fc.dataset: unknown data set 'digts'; did you mean 'digits'?",
        ),
        (
            "experiments.digits_fc.model.name",
            "fcc",
            "experiments.digits_fc.model.name: unknown 'fcc'; did you mean 'fc'?",
        ),
        (
            "paper.fig3.kind",
            "training_curve",
            "paper.fig3.kind: unknown 'training_curve'; did you mean 'training_curves'?",
        ),
        (
            "datasets.mnist.source",
            "torchvisio",
            "datasets.mnist.source: unknown 'torchvisio'; did you mean 'torchvision'?",
        ),
        (
            "datasets.mnist.name",
            "CIFAR-10",
            "datasets.mnist.name: unknown 'CIFAR-10'; did you mean 'CIFAR10'?",
        ),
        ("device", "mps", "device: unknown 'mps'; known: auto, cpu, cuda"),
        ("run", ["digits_f"], "run: unknown experiment 'digits_f'; did you mean 'digits_fc'?"),
        (
            "paper.fig3.experiments",
            ["mnist_cn"],
            "paper.fig3.experiments: unknown experiment 'mnist_cn'; did you mean 'mnist_cnn'?",
        ),
    ],
)
def test_unknown_name(config, key, value, message):
    put(config, key, value)
    assert complaint(config) == message


def test_a_figure_needs_a_name_that_snakemake_can_build(config):
    put(config, "paper.my figure", {"kind": "distance", "experiments": ["digits_fc"]})
    message = complaint(config)
    assert message.startswith("paper: ")
    assert "'my figure'" in message


@pytest.mark.parametrize("name", ["data", "my-experiment", "a/b", ""])
def test_an_experiment_needs_a_name_that_is_a_folder_of_its_own(config, name):
    config["experiments"][name] = config["experiments"]["digits_fc"]
    message = complaint(config)
    assert message.startswith("experiments: ")
    assert repr(name) in message


# --- learning rates ------------------------------------------------------------------------------

NOT_POSITIVE = ["0", "0.0", "-1e-3", "abc", "", "nan", "inf", 0.001, 1, None, True]
# Text that looks positive: a digit other than 0 in the exponent alone, and what floats cannot hold.
NOT_POSITIVE += ["0e-3", "0.0e5", "1e-400", "1e400"]


@pytest.mark.parametrize("rate", NOT_POSITIVE, ids=repr)
def test_a_rate_that_is_not_a_positive_number_in_quotes(config, rate):
    put(config, RATES, ["1e-3", rate])
    message = complaint(config)
    assert message.startswith(RATES)
    assert repr(rate) in message


@pytest.mark.parametrize("rate", NOT_POSITIVE, ids=repr)
def test_a_reference_rate_that_is_not_a_positive_number_in_quotes(config, rate):
    put(config, REFERENCE, rate)
    message = complaint(config)
    assert message.startswith(REFERENCE)
    assert repr(rate) in message


@pytest.mark.parametrize(
    "rates",
    [["1e-3", "0.001"], ["3e-4", "1e-3", "1E-3"], ["1e-3", "1e-3"], ["1", "1"], ["1", "1.0"]],
    ids=str,
)
def test_two_spellings_of_one_rate(config, rates):
    put(config, RATES, rates)
    put(config, REFERENCE, rates[0])
    message = complaint(config)
    assert message.startswith(f"{RATES}: ")
    assert repr(rates[-2]) in message
    assert repr(rates[-1]) in message


@pytest.mark.parametrize("rate", ["5e-3", "0.001"])
def test_a_reference_rate_that_is_not_in_the_list(config, rate):
    put(config, REFERENCE, rate)
    message = complaint(config)
    assert message.startswith(f"{REFERENCE}: {rate!r} is not one of learning_rates")
    assert "3e-4, 1e-3, 3e-3" in message


def test_a_reference_rate_from_the_defaults_must_be_in_the_list_too(config):
    put(config, "defaults.reference_learning_rate", "1e-3")
    put(config, RATES, ["3e-4"])
    assert complaint(config).startswith(f"{REFERENCE}: '1e-3' is not one of")


def test_no_rates(config):
    put(config, RATES, [])
    assert complaint(config).startswith(f"{RATES}: ")


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("datasets.digits.name", "MNIST"),
        ("datasets.digits.path", "images"),
        ("datasets.mnist.channels", 1),
        ("datasets.mnist.splits", {}),
        ("datasets.mnist.validation_examples", 10),
    ],
)
def test_keys_of_another_source(config, key, value):
    put(config, key, value)
    where, _, unknown = key.rpartition(".")
    message = complaint(config)
    assert message.startswith(f"{where}: unknown key {unknown!r}")
    assert "; known: source, " in message or "; did you mean 'train_examples'?" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data_dir", ""),
        ("memory_budget", "much"),
        ("run", []),
        ("experiments.digits_fc", None),
        ("experiments.digits_fc.model", None),
        ("experiments.digits_fc.epochs", 0),
        ("experiments.digits_fc.epochs", "30"),
        ("experiments.digits_fc.epochs_per_job", 0),
        ("experiments.digits_fc.early_checkpoints", -1),
        ("experiments.digits_fc.seeds", []),
        ("experiments.digits_fc.seeds", [0, 0]),
        ("keep_gradients", "no"),
        ("experiments.digits_fc.stages", []),
        ("experiments.digits_fc.evaluation.shards", 0),
        ("experiments.digits_fc.evaluation.shards", 2.5),
        ("defaults.evaluation.shards", "4"),
        ("datasets.cifar100.hierarchy", ""),
        ("paper.fig6.stage", 0),
        ("experiments.digits_fc.augmentation", "flip"),
        ("figures.distance.width", 0),
    ],
)
def test_a_value_out_of_range_names_its_key(config, key, value):
    put(config, key, value)
    assert complaint(config).startswith(f"{key}: ")


def test_more_shards_than_examples(config):
    subset = {"train": 10, "validation": 20, "shards": 30}
    put(config, "experiments.digits_fc.evaluation", subset)
    assert check_config(config)["digits_fc"]["evaluation"]["shards"] == 30
    subset["shards"] = 31
    assert complaint(config) == (
        "experiments.digits_fc.evaluation.shards: 31 of 30 examples; take 30 at most"
    )
