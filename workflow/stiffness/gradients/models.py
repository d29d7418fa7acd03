"""Which models have per-example gradients at all, in which precision, and what they put out."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from stiffness.data.batch import Inputs, call, length, take, trim_padding
from stiffness.device import full_float32
from stiffness.errors import StiffnessError, out_of_memory

_CHUNK = 100
_HALF = (torch.float16, torch.bfloat16)


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


class RefuseAutocast(TorchFunctionMode):
    """Within this context no operator of a forward pass runs under autocast.

    Args:
        device: of the model.

    Raises:
        StiffnessError: one does.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.kind = device.type

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.is_autocast_enabled(self.kind):
            raise StiffnessError(
                "model: it turns autocast on in its forward pass, which rounds gradients to "
                f"{torch.get_autocast_dtype(self.kind)}; take that out for the measurement (with "
                "accelerate: unwrap_model(model, keep_fp32_wrapper=False))"
            )
        return function(*args, **(kwargs or {}))


def half_precision(model: nn.Module) -> torch.dtype | None:
    """bfloat16 or float16 where any weight or buffer of the model has that type, else None."""
    tensors = [*model.parameters(), *model.buffers()]
    return next((tensor.dtype for tensor in tensors if tensor.dtype in _HALF), None)


def in_float32(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """A copy of a network, and its inputs, with float32 in place of bfloat16 and float16.

    Weights of other types are shared with the network, which stays as it is.

    Raises:
        StiffnessError: the network cannot be copied.
    """
    return _converted(model, inputs, lambda one: one.float() if one.dtype in _HALF else one)


def in_float64(model: nn.Module, inputs: Inputs) -> tuple[nn.Module, Inputs]:
    """A copy of a network, and its inputs, in float64; integers stay as they are.

    Raises:
        StiffnessError: the network cannot be copied.
    """
    return _converted(model, inputs, lambda one: one.double() if one.is_floating_point() else one)


def _converted(
    model: nn.Module, inputs: Inputs, convert: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[nn.Module, Inputs]:
    # What stands in the memo is taken in place of a copy, so that no weight is held twice more.
    memo: dict[int, Any] = {
        id(one): nn.Parameter(convert(one.detach()), one.requires_grad)
        for one in model.parameters()
    }
    memo |= {id(one): convert(one.detach()) for one in model.buffers()}
    try:
        copied = copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        if out_of_memory(error):
            raise
        raise StiffnessError(
            f"model: it cannot be copied to measure it in another precision ({error}); convert it "
            "yourself, with model.float(), or leave it as it is with float32_copy=False"
        ) from error
    if isinstance(inputs, Mapping):
        return copied, {name: convert(value) for name, value in inputs.items()}
    return copied, convert(inputs) if isinstance(inputs, torch.Tensor) else inputs


@contextmanager
def recurrent_backward(model: nn.Module) -> Iterator[None]:
    """Recurrent layers have a backward pass in evaluation mode too, which those of cuDNN lack."""
    before = torch.backends.cudnn.enabled
    recurrent = any(isinstance(module, nn.RNNBase) for module in model.modules())
    torch.backends.cudnn.enabled = before and not recurrent
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


@torch.inference_mode()
def network_outputs(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The outputs [N, ...] of all examples, on the CPU."""
    parts = []
    with full_float32():
        for begin in range(0, length(inputs), _CHUNK):
            batch = trim_padding(take(inputs, slice(begin, begin + _CHUNK)))
            parts.append(call(model, batch).cpu())
    return torch.cat(parts)
