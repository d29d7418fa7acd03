"""config.yaml: the shipped one passes, and every complaint names its key in one line."""

import copy
import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from schemas import generate
from stiffness.errors import StiffnessError
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
REFERENCE = "experiments.digits_fc.reference_learning_rate"


@pytest.fixture(scope="module")
def shipped():
    return yaml.safe_load(SHIPPED.read_text())


@pytest.fixture
def config(shipped):
    return copy.deepcopy(shipped)


def put(config, key: str, value) -> None:
    """Set a key given as "a.b.c"."""
    *folders, last = key.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    config[last] = value


def check_config(config):
    """The experiments, checked, with defaults filled in."""
    return read_settings(config)["experiments"]


def drop(config, key: str) -> None:
    *folders, last = key.split(".")
    for folder in folders:
        config = config[folder]
    del config[last]


def complaint(config) -> str:
    with pytest.raises(StiffnessError) as raised:
        read_settings(config)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message


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


# --- texts ---------------------------------------------------------------------------------------


def test_an_own_text_data_set_and_encoder(config):
    texts = {
        "source": "text",
        "path": "reviews",
        "columns": ["review"],
        "label": "verdict",
        "class_names": ["bad", "good"],
        "tokenizer": "encoder",
        "max_length": 64,
    }
    put(config, "datasets.reviews", texts)
    experiment = {
        "dataset": "reviews",
        "model": {"name": "transformer", "path": "encoder"},
        "epochs": 1,
        "distance_layers": ["classifier"],
    }
    put(config, "experiments.reviews", experiment)
    assert check_config(config)["reviews"]["model"]["path"] == "encoder"


@pytest.mark.parametrize(
    ("experiment", "key", "value", "rest"),
    [
        ("mnli_bert", "model.name", "fc", "'fc' does not take texts; take transformer"),
        ("mnli_bert", "model.path", "", "a transformer needs one: a folder below data_dir, or "),
        ("mnli_bert", "augmentation", "crop_flip", "is for images; set it to none"),
        ("mnli_bert", "distance_layers", ["input"], "tokens have no distance; name layers of "),
        ("mnli_bert", "distance_layers", ["bert.embeddings", "input"], "tokens have no distance"),
        ("mnli_bert", "distance_layers", [], ""),
        ("mnli_bert", "distance_layers", ["a", "a"], ""),
        ("mnli_bert", "model.path", None, ""),
        ("mnli_bert", "checkpoint_interval", 0, ""),
        ("mnli_bert", "optimizer.name", "adan", "unknown 'adan'; did you mean 'adam'?"),
        ("mnli_bert", "optimizer.warmup_epochs", -1, ""),
        ("mnli_bert", "optimizer.momentum", 1, ""),
        ("mnli_bert", "optimizer", "adam", ""),
        ("mnli_bert", "history_examples", 0.5, ""),
        ("mnli_bert", "mixed_precision", "bfloat16", ""),
    ],
    ids=str,
)
def test_what_does_not_fit_a_network_or_its_inputs(config, experiment, key, value, rest):
    put(config, f"experiments.{experiment}.{key}", value)
    assert complaint(config).startswith(f"experiments.{experiment}.{key}: {rest}")


def test_tokens_need_layers_for_their_distances_in_the_defaults_too(config):
    put(config, "defaults.distance_layers", ["input"])
    drop(config, "experiments.mnli_bert.distance_layers")
    message = complaint(config)
    assert message.startswith("experiments.mnli_bert.distance_layers: tokens have no distance")


def test_texts_from_nowhere(config):
    drop(config, "datasets.mnli.hub")
    check_config(config)
    drop(config, "datasets.mnli.path")
    assert complaint(config) == (
        "datasets.mnli: set path, a folder below data_dir, or hub, a name on the Hugging Face hub"
    )


@pytest.mark.parametrize("key", ["columns", "label", "class_names", "tokenizer", "max_length"])
def test_texts_lack_a_key(config, key):
    drop(config, f"datasets.mnli.{key}")
    assert complaint(config) == f"datasets.mnli: the key {key!r} is missing"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("columns", "premise"),
        ("columns", []),
        ("columns", ["a", "b", "c"]),
        ("columns", ["a", "a"]),
        ("label", 3),
        ("class_names", ["one"]),
        ("class_names", ["a", "a"]),
        ("tokenizer", ""),
        ("max_length", 0),
        ("max_length", "128"),
        ("hub", ""),
        ("subset", ""),
        ("splits", "train"),
    ],
    ids=str,
)
def test_a_value_that_texts_cannot_have(config, key, value):
    put(config, f"datasets.mnli.{key}", value)
    assert complaint(config).startswith(f"datasets.mnli.{key}: ")


def test_class_names_that_yaml_reads_as_something_else_than_text(config):
    put(config, "datasets.mnli.class_names", [False, True])
    assert complaint(config).startswith(
        "datasets.mnli.class_names.0: False is not of type 'string'"
    )


def test_images_have_no_tokenizer(config):
    put(config, "datasets.mnist.tokenizer", "encoder")
    assert complaint(config).startswith("datasets.mnist: unknown key 'tokenizer'")


@pytest.mark.parametrize("config", [None, [], "text"], ids=repr)
def test_a_file_that_is_not_a_mapping(config):
    assert complaint(config).startswith("config: ")


# --- stages and hierarchies ----------------------------------------------------------------------

STAGES = [0, 0.5, "last", {"accuracy": 0.35}]


@pytest.mark.parametrize("stages", [STAGES, [{"accuracy": 1}], ["last"]], ids=str)
def test_stages_by_epoch_and_by_accuracy(config, stages):
    put(config, "experiments.digits_fc.stages", stages)
    assert check_config(config)["digits_fc"]["stages"] == stages


@pytest.mark.parametrize(
    "stage", [-1, "first", {"accuracy": 0}, {"accuracy": 1.1}, {"accuracy": "0.5"}, {}], ids=repr
)
def test_what_is_no_stage(config, stage):
    put(config, "experiments.digits_fc.stages", [0, stage])
    message = complaint(config)
    assert message.startswith("experiments.digits_fc.stages.1")
    assert "accuracy" in message or "epoch" in message


def figure(kind: str, experiment: str, **keys) -> dict:
    return {"kind": kind, "experiments": [experiment], **keys}


@pytest.mark.parametrize(
    "entry",
    [
        figure("class_matrix", "digits_fc"),
        figure("class_matrix", "digits_fc", stage="last"),
        figure("class_matrix", "digits_fc", stage=4),
        figure("hierarchy_matrix", "cifar100_resnet", stage=2),
        figure("hierarchy_curves", "cifar100_cnn"),
    ],
    ids=str,
)
def test_figures_that_exist(config, entry):
    put(config, "paper.fig1", entry)
    check_config(config)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            figure("hierarchy_curves", "digits_fc"),
            "hierarchy_curves needs a hierarchy of classes, which the data set of digits_fc has "
            "not; set datasets.digits.hierarchy",
        ),
        (
            figure("hierarchy_matrix", "digits_cnn", stage=1),
            "hierarchy_matrix needs a hierarchy of classes, which the data set of digits_cnn has "
            "not; set datasets.digits.hierarchy",
        ),
        (
            figure("distance", "digits_fc", stage=1),
            "distance has no single stage; the kinds that do: class_matrix, hierarchy_matrix, "
            "contact_sheet",
        ),
        (
            figure("layers", "mnist_cnn"),
            "layers needs stiffness by layer, which mnist_cnn does not measure; "
            "set experiments.mnist_cnn.layer_stiffness to stages",
        ),
        (
            figure("contact_sheet", "mnli_bert", stage=1),
            "contact_sheet shows images, and the examples of mnli_bert are texts; "
            "take another kind",
        ),
        (
            figure("class_matrix", "digits_fc", stage=5),
            "digits_fc has no stage 5; take 1 to 4, or last",
        ),
    ],
    ids=str,
)
def test_figures_that_do_not_exist(config, entry, message):
    put(config, "paper.fig1", entry)
    assert complaint(config) == f"paper.fig1: {message}"


def test_a_stage_of_a_figure_is_a_number_or_last(config):
    put(config, "paper.fig6.stage", "first")
    assert complaint(config) == "paper.fig6.stage: 'first' is no stage; give 1, 2, ... or \"last\""


# --- fewer examples and wrong labels -------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["digits", "mnist", "mnli", "pets"])
def test_any_source_can_have_fewer_examples_and_wrong_labels(config, dataset):
    put(config, "datasets.pets", {"source": "image_folder", "path": "pets"})
    keys = {"train_examples": 100, "seed": 1, "label_noise": {"share": 0.5, "seed": 0}}
    config["datasets"][dataset] |= keys
    check_config(config)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train_examples", 0),
        ("train_examples", 0.5),
        ("label_noise", 0.5),
        ("label_noise", {"share": 1, "seed": 0}),
        ("label_noise", {"share": -0.1, "seed": 0}),
        ("label_noise", {"share": 0.5}),
        ("label_noise", {"share": 0.5, "seed": 0, "kind": "symmetric"}),
    ],
    ids=str,
)
def test_a_draw_or_a_noise_that_cannot_be(config, key, value):
    put(config, f"datasets.mnist.{key}", value)
    assert complaint(config).startswith(f"datasets.mnist.{key}")


def test_a_seed_of_no_draw(config):
    put(config, "datasets.mnist.seed", 1)
    assert complaint(config) == (
        "datasets.mnist: seed is that of train_examples; set that too, or leave seed out"
    )


# --- studies -------------------------------------------------------------------------------------


def study(*experiments: str, kind: str = "label_noise") -> dict:
    return {"kind": kind, "experiments": list(experiments)}


def test_a_study_of_any_experiments(config):
    put(config, "studies.mine", study("digits_cnn", "digits_fc", "mnli_bert"))
    put(config, "studies.other", study("digits_cnn", "digits_fc", kind="critical_lengths"))
    check_config(config)


@pytest.mark.parametrize("name", ["all", "paper", "studies", "training", "study_figure"])
def test_a_study_with_the_name_of_a_rule(config, name):
    put(config, f"studies.{name}", study("digits_fc"))
    assert complaint(config) == f"studies.{name}: a rule has this name; take another"


@pytest.mark.parametrize("name", ["fig3", "figure", "a-b", "3"])
def test_a_study_with_the_name_of_a_figure_or_none(config, name):
    put(config, f"studies.{name}", study("digits_fc"))
    assert complaint(config).startswith("studies: ")


def test_a_study_of_what_there_is_not(config):
    put(config, "studies.mine", study("digits_fc", "digit_cnn"))
    assert complaint(config) == (
        "studies.mine.experiments: unknown experiment 'digit_cnn'; did you mean 'digits_cnn'?"
    )
    put(config, "studies.mine", study("digits_fc", kind="label_noises"))
    assert complaint(config) == (
        "studies.mine.kind: unknown 'label_noises'; did you mean 'label_noise'?"
    )


def test_critical_lengths_in_different_spaces(config):
    put(config, "studies.mine", study("digits_fc", "mnli_bert", kind="critical_lengths"))
    assert complaint(config) == (
        "studies.mine: the experiments measure distance in different layers "
        "(bert.encoder.layer.11, input); set the same first of distance_layers"
    )


def test_no_experiment_hides_the_studies(config):
    put(config, "experiments.studies", {"dataset": "digits", "model": {"name": "fc"}})
    assert complaint(config).startswith("experiments: ")


# --- networks, losses and data of other people ---------------------------------------------------


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(): pass\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/encoder").mkdir()


@pytest.mark.parametrize("name", ["org/net", "encoder"])
def test_a_transformer_by_its_own_name(config, own_files, name):
    put(config, "experiments.mnli_bert.model", {"name": name})
    model = check_config(config)["mnli_bert"]["model"]
    assert (model["name"], model["path"]) == ("transformer", name)


@pytest.mark.parametrize("name", ["mine.py:f", "torchvision:resnet18", "timm:vit", "json:loads"])
def test_networks_of_other_people_draw_their_own_weights(config, own_files, name):
    put(config, "experiments.mnist_fc.model", {"name": name, "arguments": {"width": 3}})
    model = check_config(config)["mnist_fc"]["model"]
    assert model["initialization"] == "pytorch"
    assert model["arguments"] == {"width": 3}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.name", "fcc", "model.name: unknown 'fcc'; did you mean 'fc'?"),
        ("model.name", "mine.py:g", "model.name: mine.py has no 'g'; it has f"),
        ("model.name", "mine:", "model.name: 'mine:' is no import path, such as nets.py:build"),
        ("model.arguments", {"width": 3}, "model.arguments: fc takes none; see its own keys"),
        ("loss", "squares", "loss: unknown 'squares'; take cross_entropy, or an import path"),
        ("loss", "mine.py:g", "loss: mine.py has no 'g'; it has f"),
        ("loss", {"name": "mine.py:f", "label_smoothing": 0.1}, "loss.label_smoothing: is of "),
        ("loss.label_smoothing", 1, "loss.label_smoothing: 1 cannot be; take less than 1"),
    ],
)
def test_what_is_not_there_of_other_people(config, own_files, key, value, message):
    if key == "loss.label_smoothing":
        put(config, "experiments.mnist_fc.loss", {})
    put(config, f"experiments.mnist_fc.{key}", value)
    assert complaint(config).startswith(f"experiments.mnist_fc.{message}")


def test_a_loss_by_its_path_alone(config, own_files):
    put(config, "experiments.mnist_fc.loss", "mine.py:f")
    assert check_config(config)["mnist_fc"]["loss"]["name"] == "mine.py:f"


def test_options_of_our_networks_are_not_those_of_another(config, own_files):
    put(config, "experiments.mnist_fc.model", {"name": "mine.py:f", "padding": "same"})
    assert complaint(config) == (
        "experiments.mnist_fc.model.padding: is of the paper's networks; give yours "
        "experiments.mnist_fc.model.arguments"
    )


def test_data_of_other_people(config, own_files):
    put(config, "datasets.mnist", {"source": "mine.py:f", "arguments": {"a": 1}})
    assert check_config(config)["mnist_fc"]["distance_layers"] == ["input"]
    put(config, "datasets.mnist", {"source": "mine.py:g"})
    assert complaint(config) == "datasets.mnist.source: mine.py has no 'g'; it has f"
    put(config, "datasets.mnist", {"source": "mine"})
    assert complaint(config).startswith("datasets.mnist.source: unknown 'mine'; known: digits, ")
