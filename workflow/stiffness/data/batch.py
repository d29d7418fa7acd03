"""The inputs of a network (a tensor of images, or named tensors of tokens), and calling it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stiffness.errors import StiffnessError

Inputs = torch.Tensor | Mapping[str, torch.Tensor]

MASK = "attention_mask"


def length(inputs: Inputs) -> int:
    """Number of examples N.

    Raises:
        StiffnessError: the tensors of a mapping have different lengths.
    """
    tensors = inputs if isinstance(inputs, Mapping) else {"": inputs}
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise StiffnessError(f"inputs: of different lengths: {lengths}")
    return next(iter(lengths.values()), 0)


def take(inputs: Inputs, rows: slice | torch.Tensor) -> Inputs:
    """Select examples by a slice, or by their numbers, integers [n]."""
    if isinstance(inputs, Mapping):
        return {name: value[rows] for name, value in inputs.items()}
    return inputs[rows]


def place(inputs: Inputs, device: torch.device) -> Inputs:
    """Copy inputs to ``device``."""
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def call(
    model: nn.Module, inputs: Inputs, parameters: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """Call a model.

    Args:
        inputs: N examples; a mapping is passed by keyword.
        parameters: by name, used in place of the model's own.

    Returns:
        The outputs [N, ...]; their ``logits`` where the model returns an object that has them.
    """
    args, keywords = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
    outputs: Any
    if parameters is None:
        outputs = model(*args, **keywords)
    else:
        outputs = torch.func.functional_call(model, dict(parameters), args, keywords)
    return outputs.logits if hasattr(outputs, "logits") else outputs


def concatenate_inputs(first: Inputs, second: Inputs) -> Inputs:
    """The examples of ``first``, then those of ``second``; both have the same names."""
    if isinstance(first, Mapping):
        assert isinstance(second, Mapping)
        return {name: torch.cat([value, second[name]]) for name, value in first.items()}
    assert isinstance(second, torch.Tensor)
    return torch.cat([first, second])


def text_lengths(inputs: Inputs) -> torch.Tensor | None:
    """int64 [N]: positions up to the last that a text uses, at least 1; None without a mask."""
    if not isinstance(inputs, Mapping) or MASK not in inputs:
        return None
    mask = inputs[MASK].bool()
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return torch.where(mask, places, 1).amax(1)


def shorten(inputs: Inputs, longest: int | None) -> Inputs:
    """The first ``longest`` positions of tokens [N, T]; all of them, and images, for None."""
    if longest is None:
        return inputs
    assert isinstance(inputs, Mapping)
    return {name: value[:, :longest] for name, value in inputs.items()}


def trim_padding(inputs: Inputs) -> Inputs:
    """Remove the padding that all N texts share from tokens [N, T]; images stay as they are."""
    lengths = text_lengths(inputs)
    return shorten(inputs, None if lengths is None else int(lengths.max()) if len(lengths) else 1)


def flatten_inputs(inputs: Inputs, prefix: str) -> dict[str, torch.Tensor]:
    """Name inputs for a file: ``prefix`` for a tensor, ``prefix``/name for each of a mapping."""
    if isinstance(inputs, Mapping):
        return {f"{prefix}/{name}": value for name, value in inputs.items()}
    return {prefix: inputs}


def unflatten_inputs(tensors: Mapping[str, torch.Tensor], prefix: str) -> Inputs:
    """Find the inputs that ``flatten_inputs`` has named.

    Raises:
        KeyError: the file has no inputs of that prefix.
    """
    inner = {
        name[len(prefix) + 1 :]: value
        for name, value in tensors.items()
        if name.startswith(f"{prefix}/")
    }
    return inner or tensors[prefix]
