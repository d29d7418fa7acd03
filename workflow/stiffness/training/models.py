"""The paper's networks (Section 3.1), other people's networks, and their initialisation.

The paper names Keras for its networks but neither initialisation nor padding; Keras's defaults
(Glorot uniform with zero biases, "valid" padding) are ours, PyTorch's are options.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import MASK, Inputs, call, length, take, trim_padding
from stiffness.data.hub import load_pretrained, reason
from stiffness.data.vision import import_torchvision
from stiffness.errors import StiffnessError
from stiffness.own_code import call_object, is_import_path, load_object, source_digest


@dataclass(frozen=True)
class ModelSpec:
    """A network as config.yaml describes it.

    Attributes:
        name: "fc", "cnn", "resnet20v1", or "transformer" (a pretrained one of ``transformers``
            with a new classification head, unless it has one for as many classes); or
            "torchvision:<name>", "timm:<name>", or the import path of a function or class that is
            called with (input_shape, num_classes, **arguments).
        arguments: of a network that is not one of the paper's.
        path: the transformer's local folder, or its name on the Hugging Face hub.
        initialization: "glorot_uniform" (Keras's default) or "pytorch" (as the network's own code
            draws its weights); None takes the first for the paper's networks, else the second.
        padding: of the CNN's convolutions, "valid" (Keras's default) or "same".
        blocks: of each of the three stages of the ResNet; 3 make ResNet20v1.
        batch_norm: whether the ResNet normalises batches; the paper's does not.
        input_scale: "unit_norm" (|X| = 1, Section 3.1), or "unit_variance": the network first
            multiplies X by the square root of its number of values. A deep network without batch
            normalisation needs it: its signal would be 55 times too small on 32 x 32 x 3.
        zero_init_residual: whether the last convolution of every residual branch starts at 0. The
            ResNet is then shallow at first; without batch normalisation it learns much faster.
    """

    name: str
    initialization: str | None = None
    padding: str = "valid"
    blocks: int = 3
    batch_norm: bool = False
    input_scale: str = "unit_norm"
    zero_init_residual: bool = False
    path: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """Of the user's code; "" where there is none."""
        return source_digest(self.name)

    @property
    def scales_another(self) -> bool:
        """Whether inputs are scaled before a network that is not one of the paper's."""
        return self.input_scale == "unit_variance" and self.name not in _BUILDERS


Builder = Callable[[tuple[int, int, int], int, ModelSpec], nn.Sequential]
_BUILDERS: dict[str, Builder] = {}


def network(build: Builder) -> Builder:
    """Register ``build_<name>`` as the network ``name`` of images, for config.yaml too."""
    _BUILDERS[build.__name__.removeprefix("build_")] = build
    return build


class Scale(nn.Module):
    """Multiplication by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs * self.factor


@network
def build_fc(input_shape: tuple[int, int, int], num_classes: int, spec: ModelSpec) -> nn.Sequential:
    """The fully connected network X -> 500 -> 300 -> 100 -> y with ReLU (Section 3.1)."""
    del spec
    widths = [math.prod(input_shape), 500, 300, 100, num_classes]
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@network
def build_cnn(
    input_shape: tuple[int, int, int], num_classes: int, spec: ModelSpec
) -> nn.Sequential:
    """Three 3x3 convolutions (16, 32, 32 channels), each with 2x2 max pooling, and a linear layer.

    Section 3.1. ReLU comes after the pooling, on a quarter of the values: it makes no difference.

    Raises:
        StiffnessError: the image is too small for three poolings.
    """
    channels, *size = input_shape
    layers: list[nn.Module] = []
    for width in (16, 32, 32):
        shrink = 2 if spec.padding == "valid" else 0
        size = [(edge - shrink) // 2 for edge in size]
        if min(size) < 1:
            raise StiffnessError(
                f"model cnn: a {input_shape[1]} x {input_shape[2]} image is too small for three "
                f'convolutions with padding "{spec.padding}"; set padding: same'
            )
        layers += [nn.Conv2d(channels, width, 3, padding=spec.padding), nn.MaxPool2d(2), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * math.prod(size), num_classes))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, 1x1-projected where the shape changes."""

    def __init__(self, fan_in: int, width: int, stride: int, batch_norm: bool) -> None:
        super().__init__()

        def norm() -> nn.Module:
            return nn.BatchNorm2d(width) if batch_norm else nn.Identity()

        self.body = nn.Sequential(
            nn.Conv2d(fan_in, width, 3, stride, padding=1),
            norm(),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            norm(),
        )
        changes = stride != 1 or fan_in != width
        self.shortcut = nn.Conv2d(fan_in, width, 1, stride) if changes else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.relu(self.body(inputs) + self.shortcut(inputs))


@network
def build_resnet20v1(
    input_shape: tuple[int, int, int], num_classes: int, spec: ModelSpec
) -> nn.Sequential:
    """ResNet20v1 of the Keras example: 3 stages of 3 blocks, 16/32/64 channels (Section 3.1).

    With fewer ``blocks`` per stage it is shallower: 1 makes ResNet8v1.
    """
    layers: list[nn.Module] = [nn.Conv2d(input_shape[0], 16, 3, padding=1)]
    layers += [nn.BatchNorm2d(16)] if spec.batch_norm else []
    layers.append(nn.ReLU())
    width = 16
    for stage, channels in enumerate((16, 32, 64)):
        for block in range(spec.blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(BasicBlock(width, channels, stride, spec.batch_norm))
            width = channels
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(*layers, pool, nn.Flatten(), nn.Linear(width, num_classes))


def build_model(
    spec: ModelSpec,
    input_shape: tuple[int, ...],
    num_classes: int,
    seed: int,
    data_dir: str | Path = ".",
) -> nn.Module:
    """Build and initialise a network, in evaluation mode, on the CPU.

    Args:
        input_shape: shape of one input, such as (channels, height, width); () for tokens.
        num_classes: the number of outputs.
        seed: of the initialisation; torch's global generator is left as it was.
        data_dir: the folder in which a transformer's folder is looked for.

    Raises:
        StiffnessError: unknown name or initialisation, inputs of the wrong kind or size, a network
            that cannot be imported, built or loaded, or outputs of another shape than [N, classes].
    """
    if spec.initialization not in (None, "glorot_uniform", "pytorch"):
        raise StiffnessError(
            f"model: unknown initialization {spec.initialization!r}; known: glorot_uniform, pytorch"
        )
    ours = spec.name in _BUILDERS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if ours:
            if len(input_shape) != 3:
                given = f"inputs of shape {input_shape}" if input_shape else "tokens"
                raise StiffnessError(f"model: {spec.name!r} does not take {given}")
            model: nn.Module = _BUILDERS[spec.name](input_shape, num_classes, spec)
        elif spec.name == "transformer":
            model = _load_transformer(spec, bool(input_shape), num_classes, data_dir)
        else:
            model = _build_own(spec, input_shape, num_classes)
        if spec.input_scale == "unit_variance" and input_shape:
            # The paper's networks stay one chain; another network keeps its names, after "1.".
            layers = model if isinstance(model, nn.Sequential) and ours else [model]
            model = nn.Sequential(Scale(math.sqrt(math.prod(input_shape))), *layers)
        glorot = (spec.initialization or ("glorot_uniform" if ours else "")) == "glorot_uniform"
        if glorot and spec.name != "transformer":
            _draw_glorot_uniform(model)
        if spec.zero_init_residual:
            for module in model.modules():
                if isinstance(module, BasicBlock):
                    nn.init.zeros_(module.body[3].weight)  # type: ignore[arg-type]
        if not ours and input_shape:
            _check_outputs(model.eval(), torch.randn(2, *input_shape), num_classes, spec)
    return model.eval()


def _draw_glorot_uniform(model: nn.Module) -> None:
    """Keras's default: weights of linear and convolutional layers anew, zero biases."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _build_own(spec: ModelSpec, input_shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """A network of torchvision or of timm, or one that an import path names."""
    key, (package, _, name) = "model.name", spec.name.partition(":")
    arguments = dict(spec.arguments)
    if package == "torchvision":
        vision = import_torchvision()
        import torchvision.models as zoo

        if name not in zoo.list_models(module=zoo):
            raise StiffnessError(
                f"{key}: torchvision {vision.__version__} has no classifier {name!r}; "
                "torchvision.models.list_models() lists them"
            )
        arguments["num_classes"] = num_classes
        built = call_object(zoo.get_model_builder(name), spec.name, key, **arguments)
    elif package == "timm":
        import_torchvision()
        try:
            import timm
        except ImportError:
            raise StiffnessError(f"{key}: timm is not installed; pip install timm") from None
        channels = {"in_chans": input_shape[0]} if len(input_shape) == 3 else {}
        arguments = {"num_classes": num_classes, **channels, **arguments}
        built = call_object(timm.create_model, spec.name, key, name, **arguments)
    elif is_import_path(spec.name):
        function = load_object(spec.name, key)
        built = call_object(function, spec.name, key, input_shape, num_classes, **arguments)
    else:
        known = ", ".join([*_BUILDERS, "transformer"])
        raise StiffnessError(
            f"model: unknown {spec.name!r}; known: {known}, torchvision:<name>, timm:<name>, or an "
            "import path such as nets.py:build"
        )
    if not isinstance(built, nn.Module):
        raise StiffnessError(
            f"{key}: {spec.name} returns {type(built).__name__}, not a torch.nn.Module"
        )
    return built


def _check_outputs(model: nn.Module, inputs: Inputs, num_classes: int, spec: ModelSpec) -> None:
    """Refuse a network that does not give one output per class for each example."""
    shapes = (
        {name: list(value.shape[1:]) for name, value in inputs.items()}
        if isinstance(inputs, Mapping)
        else list(inputs.shape[1:])
    )
    name = spec.path or spec.name
    try:
        with torch.no_grad():
            outputs = call(model, inputs)
    except Exception as error:  # whatever a network's own code raises
        raise StiffnessError(
            f"model.name: {name} does not take inputs of shape {shapes} "
            f"({type(error).__name__}: {reason(error)})"
        ) from None
    wanted = (length(inputs), num_classes)
    if not isinstance(outputs, torch.Tensor) or outputs.shape != wanted:
        given = list(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        raise StiffnessError(
            f"model.name: {name} gives {given} for {wanted[0]} inputs of shape {shapes}; it must "
            f"give [{wanted[0]}, {num_classes}], one output per class"
        )


def _load_transformer(
    spec: ModelSpec, images: bool, num_classes: int, data_dir: str | Path
) -> nn.Module:
    """Load pretrained weights; ``transformers`` draws a new head from torch's generator."""
    model, loaded = load_pretrained(
        "AutoModelForImageClassification" if images else "AutoModelForSequenceClassification",
        "model.path",
        spec.path,
        data_dir,
        num_labels=num_classes,
        ignore_mismatched_sizes=True,  # a head for another number of classes is replaced
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    # transformers draws whatever the file lacks. Of a head and a pooler that is meant.
    drawn = {*loaded["missing_keys"], *(entry[0] for entry in loaded["mismatched_keys"])}
    encoder = {f"{model.base_model_prefix}.{name}" for name in model.base_model.state_dict()}
    lacking = sorted(name for name in drawn & encoder if "pooler" not in name)
    if lacking:
        raise StiffnessError(
            f"model.path: {spec.path!r}: the weights there lack {len(lacking)} of the network's "
            f"tensors, such as {lacking[0]}, or have them in another shape; take a network whose "
            "config.json fits its weights"
        )
    built: nn.Module = model
    return built


def check_tokens(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], num_classes: int, spec: ModelSpec
) -> None:
    """Refuse tokens that a network cannot take.

    Args:
        inputs: tokens, integers [N, T], by name.
        num_classes: the number of outputs.
        spec: describes the network, for messages.

    Raises:
        StiffnessError: there are tokens outside its vocabulary, texts longer than its positions
            allow, or it fails for another reason.
    """
    rows = slice(2)
    if MASK in inputs:
        rows = inputs[MASK].sum(1).argsort(descending=True)[:2]  # type: ignore[assignment]
    if spec.name == "transformer":
        _check_lengths(model, inputs, spec.path)
        try:
            with torch.inference_mode():
                call(model, trim_padding(take(inputs, rows)))
        except Exception as error:  # whatever a network's own code raises
            raise StiffnessError(
                f"model.path: the network {spec.path!r} does not take the tokenizer's tokens "
                f"({', '.join(inputs)}): {reason(error)}; take the network's own tokenizer"
            ) from None
    _check_outputs(model, trim_padding(take(inputs, rows)), num_classes, spec)


def _check_lengths(model: nn.Module, inputs: Mapping[str, torch.Tensor], path: str) -> None:
    """Refuse tokens outside a transformer's vocabulary, and texts longer than it has room for."""
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    largest = int(inputs["input_ids"].max())
    if largest >= vocabulary:
        raise StiffnessError(
            f"tokenizer: gives token number {largest}, but the network {path!r} knows {vocabulary} "
            "tokens; take the network's own tokenizer"
        )
    longest, room = int(inputs[MASK].sum(1).max()), _max_text_length(model)
    if room is not None and longest > room:
        raise StiffnessError(
            f"max_length: there are texts of {longest} tokens, but the network {path!r} has room "
            f"for {room}; set max_length to {room} or less"
        )


def _max_text_length(model: nn.Module) -> int | None:
    """The largest number of tokens per text; None where the model names no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa counts from the number after the padding's.
            first = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - first
    return getattr(model.config, "max_position_embeddings", None)


def load_weights(
    model: nn.Module, weights: dict[str, torch.Tensor], path: str, description: str
) -> None:
    """Load a checkpoint's tensors into a model.

    Args:
        weights: the tensors by name, as ``model.state_dict()`` has them.
        path, description: of the checkpoint and of the model, for messages.

    Raises:
        StiffnessError: names or shapes are not this model's; the first difference is named.
    """
    own = model.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        mine = tuple(own[name].shape) if name in own else "absent"
        other = tuple(weights[name].shape) if name in weights else "absent"
        if mine != other:
            raise StiffnessError(
                f"{path}: a checkpoint of another model than {description}: "
                f"{name} is {other} there and {mine} here"
            )
    model.load_state_dict(weights)
