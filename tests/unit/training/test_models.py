"""The paper's networks: sizes, initialisation, and weights of another network."""

import math

import pytest
import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.training.models import BasicBlock, ModelSpec, build_model, load_weights

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.Linear | nn.Conv2d)]


def conv(fan_in: int, fan_out: int, size: int) -> int:
    """Weights and biases of a convolution."""
    return fan_in * fan_out * size * size + fan_out


# --- sizes ---------------------------------------------------------------------------------------


def test_fc():
    model = build_model(ModelSpec("fc"), GREY, 10, seed=0)
    widths = [784, 500, 300, 100, 10]
    shapes = [tuple(layer.weight.shape) for layer in layers(model)]
    assert shapes == list(zip(widths[1:], widths[:-1], strict=True))
    assert count(model) == 573_910
    assert sum(isinstance(module, nn.ReLU) for module in model) == 3
    assert isinstance(model[-1], nn.Linear)
    assert model(torch.zeros(2, *GREY)).shape == (2, 10)


@pytest.mark.parametrize(
    ("padding", "image", "features", "parameters"),
    [("valid", GREY, 32, 14_378), ("same", GREY, 288, 16_938), ("valid", COLOUR, 128, 15_626)],
)
def test_cnn(padding, image, features, parameters):
    model = build_model(ModelSpec("cnn", padding=padding), image, 10, seed=0)
    *convolutions, linear = layers(model)
    assert [layer.out_channels for layer in convolutions] == [16, 32, 32]
    assert {layer.kernel_size for layer in convolutions} == {(3, 3)}
    assert linear.in_features == features
    assert count(model) == parameters
    assert model(torch.zeros(2, *image)).shape == (2, 10)


def test_cnn_is_convolution_relu_pooling_three_times():
    model = build_model(ModelSpec("cnn"), GREY, 10, seed=0)
    *convolutions, linear = layers(model)
    hidden = inputs = torch.randn(3, *GREY, generator=torch.Generator().manual_seed(0))
    for layer in convolutions:
        hidden = nn.functional.conv2d(hidden, layer.weight, layer.bias)
        hidden = nn.functional.max_pool2d(hidden.relu(), 2)
    assert torch.equal(model(inputs), linear(hidden.flatten(1)))


@pytest.mark.parametrize("classes", [10, 100])
def test_resnet20v1(classes):
    model = build_model(ModelSpec("resnet20v1"), COLOUR, classes, seed=0)
    expected = conv(3, 16, 3) + 6 * conv(16, 16, 3)
    expected += conv(16, 32, 3) + 5 * conv(32, 32, 3) + conv(16, 32, 1)
    expected += conv(32, 64, 3) + 5 * conv(64, 64, 3) + conv(32, 64, 1)
    expected += conv(64, classes, 1)
    assert count(model) == expected
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert not list(model.buffers())
    assert model(torch.zeros(2, *COLOUR)).shape == (2, classes)


def test_resnet20v1_with_batch_norm_has_the_size_that_keras_prints():
    model = build_model(ModelSpec("resnet20v1", batch_norm=True), COLOUR, 10, seed=0)
    # Keras: 273,066 trainable, and 1,376 running means and variances.
    assert count(model) == 273_066
    running = [value.numel() for name, value in model.named_buffers() if "running" in name]
    assert sum(running) == 1_376


def test_resnet20v1_stages_and_projections():
    model = build_model(ModelSpec("resnet20v1"), COLOUR, 10, seed=0)
    shapes = []
    blocks = [module for module in model if hasattr(module, "shortcut")]
    for block in blocks:
        block.register_forward_hook(lambda _, __, output: shapes.append(tuple(output.shape[1:])))
    model(torch.zeros(1, *COLOUR))
    assert shapes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3
    projected = [isinstance(block.shortcut, nn.Conv2d) for block in blocks]
    assert projected == [False] * 3 + [True, False, False] * 2
    assert {b.shortcut.kernel_size for b in blocks if hasattr(b.shortcut, "kernel_size")} == {
        (1, 1)
    }


def test_a_block_adds_its_shortcut_before_the_last_relu():
    block = next(
        module
        for module in build_model(ModelSpec("resnet20v1"), COLOUR, 10, seed=0)
        if hasattr(module, "shortcut")
    )
    inputs = torch.randn(2, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(inputs), (block.body(inputs) + inputs).relu())


@pytest.mark.parametrize(("padding", "edge"), [("valid", 21), ("same", 7)])
def test_an_image_too_small_for_the_cnn(padding, edge):
    spec = ModelSpec("cnn", padding=padding)
    with pytest.raises(StiffnessError) as raised:
        build_model(spec, (1, edge, 28), 10, seed=0)
    assert str(raised.value).startswith(f"model cnn: a {edge} x 28 image is too small")
    assert build_model(spec, (1, edge + 1, edge + 1), 10, seed=0)


# --- initialisation ------------------------------------------------------------------------------

SPECS = [ModelSpec("fc"), ModelSpec("cnn"), ModelSpec("resnet20v1", batch_norm=True)]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_glorot_uniform_with_zero_biases(spec):
    model = build_model(spec, COLOUR, 10, seed=0)
    for layer in layers(model):
        field = math.prod(layer.weight.shape[2:])
        fans = field * (layer.weight.shape[0] + layer.weight.shape[1])
        bound = math.sqrt(6 / fans)
        largest = float(layer.weight.detach().abs().max())
        assert largest <= bound * (1 + 1e-6)
        # A uniform draw of n values leaves a gap of about bound / n to its bound.
        assert largest > bound * (1 - 20 / layer.weight.numel())
        assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_pytorch_initialisation_is_left_as_it_is():
    model = build_model(ModelSpec("fc", initialization="pytorch"), GREY, 10, seed=0)
    for layer in layers(model):
        bound = 1 / math.sqrt(layer.in_features)
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound * (1 + 1e-6)
        assert float(layer.bias.detach().abs().max()) > 0


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("initialization", ["glorot_uniform", "pytorch"])
@pytest.mark.parametrize("name", ["fc", "cnn", "resnet20v1"])
def test_the_seed_decides(name, initialization):
    spec = ModelSpec(name, initialization=initialization)
    model = build_model(spec, COLOUR, 10, seed=3)
    torch.rand(1)
    assert same(build_model(spec, COLOUR, 10, seed=3), model)
    assert not same(build_model(spec, COLOUR, 10, seed=4), model)


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    build_model(ModelSpec("cnn"), GREY, 10, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_built_in_evaluation_mode():
    model = build_model(ModelSpec("resnet20v1", batch_norm=True), COLOUR, 10, seed=0)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (ModelSpec("vgg"), "model: unknown 'vgg'; known: fc, cnn, resnet20v1"),
        (ModelSpec("fc", initialization="he"), "model: unknown initialization 'he'"),
    ],
)
def test_unknown_names(spec, message):
    with pytest.raises(StiffnessError, match=f"^{message}"):
        build_model(spec, GREY, 10, seed=0)


# --- weights -------------------------------------------------------------------------------------


def test_weights_are_loaded():
    spec = ModelSpec("resnet20v1", batch_norm=True)
    model, other = (build_model(spec, COLOUR, 10, seed=seed) for seed in (0, 1))
    load_weights(model, other.state_dict(), "a.safetensors", str(spec))
    assert same(model, other)


@pytest.mark.parametrize(
    ("other", "shape", "classes", "difference"),
    [
        (ModelSpec("fc"), GREY, 100, "7.bias is (100,) there and (10,) here"),
        (ModelSpec("fc"), COLOUR, 10, "1.weight is (500, 3072) there and (500, 784) here"),
        (ModelSpec("cnn"), GREY, 10, "0.bias is (16,) there and absent here"),
    ],
)
def test_weights_of_another_model(other, shape, classes, difference):
    spec = ModelSpec("fc")
    model = build_model(spec, GREY, 10, seed=0)
    before = [parameter.clone() for parameter in model.parameters()]
    weights = build_model(other, shape, classes, seed=0).state_dict()
    with pytest.raises(StiffnessError) as raised:
        load_weights(model, weights, "run/step=00000005.safetensors", str(spec))
    message = str(raised.value)
    assert message.startswith("run/step=00000005.safetensors: a checkpoint of another model than")
    assert message.endswith(difference)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


# --- the ResNet without batch normalisation ------------------------------------------------------


def test_unit_variance_multiplies_the_input_by_the_root_of_its_size():
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for name in ("fc", "cnn", "resnet20v1"):
        plain = build_model(ModelSpec(name), (3, 32, 32), 10, 0)
        scaled = build_model(ModelSpec(name, input_scale="unit_variance"), (3, 32, 32), 10, 0)
        torch.testing.assert_close(scaled(inputs), plain(inputs * 3072**0.5))


def test_zero_residual_branches_leave_the_shortcuts():
    spec = ModelSpec("resnet20v1", zero_init_residual=True)
    model = build_model(spec, (3, 32, 32), 10, 0)
    blocks = [module for module in model.modules() if isinstance(module, BasicBlock)]
    assert len(blocks) == 9
    inputs = torch.rand(2, 16, 8, 8)
    assert torch.equal(blocks[0](inputs), inputs)
    assert all(
        (block.body(torch.rand(2, block.body[0].in_channels, 8, 8)) == 0).all() for block in blocks
    )
    other = build_model(ModelSpec("resnet20v1"), (3, 32, 32), 10, 0)
    assert not torch.equal(other[2](inputs), inputs)
