"""Networks of other people: built by their own code from the run's seed, or refused in one line."""

from pathlib import Path

import pytest
import torch

from stiffness.errors import StiffnessError
from stiffness.training.models import ModelSpec, build_model
from stiffness.training.specs import TrainingSpec
from stiffness.training.train import train_segment

COLOUR = (3, 32, 32)
CODE = """
import math
import torch
from torch import nn

def build(input_shape, num_classes, width=8):
    size = math.prod(input_shape)
    first = [nn.Flatten(), nn.Linear(size, width), nn.BatchNorm1d(width)]
    return nn.Sequential(*first, nn.Dropout(0.5), nn.Linear(width, num_classes))

class Net(nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.body = nn.LazyLinear(num_classes)
    def forward(self, inputs):
        return self.body(inputs.flatten(1))

def wide(input_shape, num_classes):
    return build(input_shape, num_classes + 1)

def text(input_shape, num_classes):
    return "net"

def grey(input_shape, num_classes):
    return nn.Conv2d(1, 3, 3)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_nets.py").write_text(CODE)


def same(first: torch.nn.Module, other: torch.nn.Module) -> bool:
    ours, theirs = first.state_dict(), other.state_dict()
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    "spec",
    [
        ModelSpec("own_nets.py:build", arguments={"width": 4}),
        ModelSpec("own_nets.py:Net"),
        ModelSpec("torchvision:squeezenet1_1"),
    ],
    ids=lambda spec: spec.name,
)
def test_weights_follow_from_the_seed_alone(spec):
    state = torch.random.get_rng_state()
    model, again, other = (build_model(spec, COLOUR, 10, seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(model, again)
    assert not same(model, other)
    assert not any(module.training for module in model.modules())
    with torch.no_grad():
        assert model(torch.zeros(2, *COLOUR)).shape == (2, 10)


def test_initialization_is_the_networks_own_unless_another_is_asked_for():
    torch.manual_seed(3)
    from torch import nn

    built = build_model(ModelSpec("own_nets.py:build"), (1, 4, 4), 3, seed=3)
    assert built[1].bias.abs().min() > 0
    glorot = ModelSpec("own_nets.py:build", initialization="glorot_uniform")
    found = build_model(glorot, (1, 4, 4), 3, seed=3)
    assert isinstance(found[1], nn.Linear)
    assert (found[1].bias == 0).all()


def test_inputs_are_scaled_before_it():
    plain = build_model(ModelSpec("own_nets.py:Net"), (1, 4, 4), 3, seed=0)
    spec = ModelSpec("own_nets.py:Net", input_scale="unit_variance")
    scaled = build_model(spec, (1, 4, 4), 3, seed=0)
    inputs = torch.randn(2, 1, 4, 4)
    with torch.no_grad():
        # The square root of 16 values, exactly.
        assert torch.equal(scaled(inputs), plain(4 * inputs))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("own_nets.py:wide"), "model.name: own_nets.py:wide gives [2, 11] for 2 inputs "),
        (ModelSpec("own_nets.py:text"), "model.name: own_nets.py:text returns str, not a torch.nn"),
        (
            ModelSpec("own_nets.py:grey"),
            "model.name: own_nets.py:grey does not take inputs of shape",
        ),
        (
            ModelSpec("own_nets.py:build", arguments={"widht": 4}),
            "model.arguments: own_nets.py:build does not take them (got an unexpected keyword",
        ),
        (ModelSpec("own_nets.py:none"), "model.name: own_nets.py has no 'none'; it has Net, build"),
        (ModelSpec("torchvision:resnet19"), "model.name: torchvision "),
        (ModelSpec("torchvision:fasterrcnn_resnet50_fpn"), "model.name: torchvision "),
        (
            ModelSpec("torchvision:squeezenet1_1", arguments={"widht": 4}),
            "model.name: torchvision:squeezenet1_1: the call failed (TypeError: ",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, ModelSpec) else "",
)
def test_what_cannot_be_built_is_refused_in_one_line(spec, message):
    with pytest.raises(StiffnessError) as caught:
        build_model(spec, COLOUR, 10, 0)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_without_timm_the_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(StiffnessError, match="timm is not installed; pip install timm"):
        build_model(ModelSpec("timm:vit_tiny_patch16_224"), COLOUR, 10, 0)


def test_an_unfinished_training_starts_over_when_the_file_is_edited(few_digits, tmp_path):
    spec = TrainingSpec(
        ModelSpec("own_nets.py:build"), "1e-3", 0, batch_size=50, early_checkpoints=0
    )
    before = spec.model.digest()
    output = tmp_path / "epochs=0000-0001"
    train_segment(few_digits, spec, 0, 1, None, output, torch.device("cpu"))
    assert (output / "history.parquet").is_file()
    with Path("own_nets.py").open("a") as stream:
        stream.write("# edited\n")
    assert spec.model.digest() != before != ""


def test_a_pretrained_network_of_transformers_for_images(tmp_path):
    from stiffness.data.hub import import_transformers

    transformers = import_transformers()
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.ViTConfig(
        **sizes, intermediate_size=8, image_size=8, patch_size=4, num_labels=3
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    spec = ModelSpec("transformer", path="vit")
    model, again = (build_model(spec, (3, 8, 8), 5, 0, tmp_path) for _ in range(2))
    assert same(model, again)
    with torch.no_grad():
        assert model(torch.zeros(2, 3, 8, 8)).logits.shape == (2, 5)
    with pytest.raises(StiffnessError, match=r"vit does not take inputs of shape \[3, 9, 9\]"):
        build_model(spec, (3, 9, 9), 5, 0, tmp_path)
