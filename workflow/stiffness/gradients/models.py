"""Calling any model on a batch: tensors or dicts of tensors in, one tensor of outputs out."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stiffness.errors import StiffnessError

Inputs = torch.Tensor | Mapping[str, torch.Tensor]


def length(inputs: Inputs) -> int:
    """Number of examples.

    Raises:
        StiffnessError: the tensors of a dict disagree.
    """
    tensors = inputs if isinstance(inputs, Mapping) else {"": inputs}
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise StiffnessError(f"inputs: of different lengths: {lengths}")
    return next(iter(lengths.values()), 0)


def take(inputs: Inputs, rows: slice | torch.Tensor) -> Inputs:
    """The examples in ``rows``: a slice, or their numbers."""
    if isinstance(inputs, Mapping):
        return {name: value[rows] for name, value in inputs.items()}
    return inputs[rows]


def place(inputs: Inputs, device: torch.device) -> Inputs:
    """The same inputs on ``device``."""
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def call(
    model: nn.Module, inputs: Inputs, parameters: Mapping[str, torch.Tensor] | None = None
) -> torch.Tensor:
    """The outputs of ``model``; a dict is passed by keyword, and ``.logits`` taken where there are.

    Args:
        parameters: used in place of the model's own, by name.
    """
    args, keywords = ((), dict(inputs)) if isinstance(inputs, Mapping) else ((inputs,), {})
    outputs: Any
    if parameters is None:
        outputs = model(*args, **keywords)
    else:
        outputs = torch.func.functional_call(model, dict(parameters), args, keywords)
    return outputs.logits if hasattr(outputs, "logits") else outputs


def refuse_training_mode(model: nn.Module) -> None:
    """Refuse what makes an example's gradient depend on other examples or on chance.

    Raises:
        StiffnessError: batch normalisation or dropout in training mode, or batch normalisation
            that keeps no running statistics.
    """
    for name, module in model.named_modules():
        dropping = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        inner = float(getattr(module, "dropout", 0) or 0) if _has_own_dropout(module) else 0.0
        where = f"model: {name or 'the model'} ({type(module).__name__})"
        if module.training and (dropping or batch or inner > 0):
            raise StiffnessError(f"{where} is in training mode; call model.eval() first")
        if batch and module.running_mean is None:
            raise StiffnessError(
                f"{where} keeps no running statistics, so examples depend on one another"
            )


def _has_own_dropout(module: nn.Module) -> bool:
    """Layers that drop inside themselves, without a dropout module."""
    return isinstance(module, nn.MultiheadAttention | nn.RNNBase)
