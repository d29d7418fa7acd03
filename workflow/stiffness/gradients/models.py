"""Which models have per-example gradients at all, and what they put out."""

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take, trim_padding
from stiffness.device import full_float32
from stiffness.errors import StiffnessError

_CHUNK = 100


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


@torch.inference_mode()
def network_outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The outputs [N, ...] of all examples, on the CPU."""
    parts = []
    with full_float32():
        for begin in range(0, length(inputs), _CHUNK):
            batch = trim_padding(take(inputs, slice(begin, begin + _CHUNK)))
            parts.append(call(model, batch).cpu())
    return torch.cat(parts)
