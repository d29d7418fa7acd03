"""Data, networks and losses, those of other people too: what fits together and what does not."""

import pytest
from config_cases import check_config, complaint, drop, put

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
