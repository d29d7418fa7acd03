"""Activations of layers, for distances between examples.

The first version of the paper measures distance in a layer's activations instead of the input.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import MASK, Inputs, call, length, place, take, trim_padding
from stiffness.data.evaluation import Evaluation
from stiffness.device import full_float32
from stiffness.errors import StiffnessError
from stiffness.files import atomic_directory, write_json, write_tensors
from stiffness.gradients.models import refuse_training_mode
from stiffness.training.checkpoints import checkpoints_of
from stiffness.training.models import ModelSpec, build_model

_CHUNK = 100
LAST_HIDDEN = "last_hidden"
"""The last hidden layer of a transformer, before what its classification head makes of it."""


@torch.inference_mode()
def representations(
    model: nn.Module, inputs: Inputs, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """float32 [N, D] per layer: its output, flattened.

    Tokens' outputs [N, T, D] are averaged over the tokens that are not padding, so that padding
    changes nothing. Where a layer is called several times, the last call counts.

    Args:
        model: in evaluation mode.
        layers: names as in ``model.named_modules()``, or ``LAST_HIDDEN``.

    Raises:
        StiffnessError: no such layer, one that is never called (a list of layers), one whose output
            is not a tensor with one row per example, or a network in training mode.
    """
    refuse_training_mode(model)
    modules = {name: module for name, module in model.named_modules() if name}
    # Networks of ``transformers`` say which of their modules is the one without the head.
    body = getattr(model, "base_model_prefix", LAST_HIDDEN)
    resolved = {layer: body if layer == LAST_HIDDEN else layer for layer in layers}
    for layer in resolved.values():
        if layer not in modules:
            near = difflib.get_close_matches(layer, modules, n=3) or list(modules)[:3]
            raise StiffnessError(
                f"distance_layers: the network has no layer {layer!r}; close: {', '.join(near)}"
            )
    found = _watched(model, inputs, list(resolved.values()), lambda _, __, output: output)
    return {layer: found[resolved[layer]] for layer in layers}


@torch.inference_mode()
def input_widths(model: nn.Module, inputs: Inputs, layers: Sequence[str]) -> dict[str, int]:
    """How many numbers each layer reads of an example, in the order in which layers are called.

    Tokens count once, as they are averaged. 0 for a layer that reads no such numbers (an embedding
    reads the numbers of tokens), or is never called; those come last.
    """
    widths: dict[str, int] = {}
    batch = trim_padding(take(inputs, slice(0, 2)))

    def watch(layer: str, args: Any, keywords: Any) -> None:
        read = _read(args, keywords)
        try:
            numbers = isinstance(read, torch.Tensor) and read.is_floating_point()
            widths[layer] = _flat(read, batch, layer).shape[1] if numbers else 0
        except StiffnessError:
            widths[layer] = 0

    modules = dict(model.named_modules())
    handles = [
        modules[layer].register_forward_hook(
            lambda _, args, keywords, __, layer=layer: watch(layer, args, keywords),
            with_kwargs=True,
        )
        for layer in layers
    ]
    try:
        call(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return widths | {layer: 0 for layer in layers if layer not in widths}


@torch.inference_mode()
def layer_inputs(
    model: nn.Module, inputs: Inputs, layers: Sequence[str]
) -> dict[str, torch.Tensor]:
    """float32 [N, D] per layer: its input, in the form in which ``representations`` has its output.

    Args:
        layers: those with a width, by ``input_widths``.
    """
    refuse_training_mode(model)
    return _watched(model, inputs, layers, lambda args, keywords, _: _read(args, keywords))


def _read(args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    return args[0] if args else next(iter(keywords.values()), None)


def _watched(
    model: nn.Module,
    inputs: Inputs,
    layers: Sequence[str],
    part: Callable[[tuple[Any, ...], Mapping[str, Any], Any], Any],
) -> dict[str, torch.Tensor]:
    """``part`` of (arguments, keywords, output) of each layer's last call, for all inputs."""
    modules = dict(model.named_modules())
    found: dict[str, list[torch.Tensor]] = {layer: [] for layer in layers}
    last: dict[str, torch.Tensor] = {}
    batch = inputs

    def watch(layer: str, args: Any, keywords: Any, output: Any) -> None:
        # At once: what follows may change the tensor in place.
        last[layer] = _flat(part(args, keywords, output), batch, layer)

    handles = [
        modules[layer].register_forward_hook(
            lambda _, args, keywords, output, layer=layer: watch(layer, args, keywords, output),
            with_kwargs=True,
        )
        for layer in layers
    ]
    try:
        with full_float32():
            for begin in range(0, length(inputs), _CHUNK):
                batch = trim_padding(take(inputs, slice(begin, begin + _CHUNK)))
                last.clear()
                call(model, batch)
                for layer in layers:
                    found[layer].append(last[layer] if layer in last else _flat(None, batch, layer))
    finally:
        for handle in handles:
            handle.remove()
    return {layer: torch.cat(parts) for layer, parts in found.items()}


def _flat(output: Any, batch: Inputs, layer: str) -> torch.Tensor:
    # Layers of transformers return tuples and mappings, activations first.
    if isinstance(output, Mapping):
        output = next(iter(output.values()), None)
    elif isinstance(output, tuple | list):
        output = output[0] if output else None
    if not isinstance(output, torch.Tensor) or output.ndim < 2 or len(output) != length(batch):
        raise StiffnessError(
            f"distance_layers: layer {layer!r} gives no tensor with one row per example; name a "
            "layer within it, or around it"
        )
    if isinstance(batch, Mapping) and MASK in batch and output.ndim > 2:
        mask = batch[MASK].to(output.dtype)[:, :, None]
        if output.ndim != 3 or mask.shape[1] != output.shape[1]:
            raise StiffnessError(
                f"distance_layers: the output of layer {layer!r}, {list(output.shape)}, does not "
                "have one vector per token; name another"
            )
        output = (output * mask).sum(1) / mask.sum(1)
    return output.flatten(1).to("cpu", torch.float32, copy=True)


def represent_segment(
    checkpoints: str | Path,
    evaluation: Evaluation,
    model_spec: ModelSpec,
    layers: Sequence[str],
    output: str | Path,
    device: torch.device,
    data_dir: str | Path = ".",
) -> None:
    """Write ``output``/step=*.safetensors, one tensor [N, D] per layer, for every checkpoint.

    Raises:
        StiffnessError: a checkpoint is unreadable or belongs to another model, or no such layer.
    """
    classes = len(evaluation.class_names)
    model = build_model(model_spec, evaluation.shape, classes, 0, data_dir).to(device)
    inputs = place(evaluation.inputs, device)
    steps = []
    with atomic_directory(output) as folder:
        for checkpoint in checkpoints_of(checkpoints, model, model_spec):
            vectors = representations(model, inputs, layers)
            write_tensors(folder / checkpoint.path.name, vectors, {"step": checkpoint.step})
            steps.append(checkpoint.step)
        write_json(folder / "steps.json", steps)
