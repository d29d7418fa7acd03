"""Measuring a network in the middle of its training, without leaving a trace."""

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The network within what ``torch.compile`` and data parallelism have put around it."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


@contextmanager
def measuring(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and full precision for a measurement; afterwards all is as it was.

    This keeps the training mode of every module, its buffers, the gradients and whether a parameter
    requires one, the random states of Python, numpy and torch on every device, and the surrounding
    modes of autograd and of mixed precision.

    Args:
        model: without wrappers; see ``unwrapped``.
    """
    with ExitStack() as stack:
        for manager in (_random_state(), _buffers(model), _gradients(model), _modes(model)):
            stack.enter_context(manager)
        stack.enter_context(_full_precision(model))
        # A callback may be called where no gradient is recorded.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if any(module._compiled_call_impl is not None for module in model.modules()):
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield


@contextmanager
def _random_state() -> Iterator[None]:
    state, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    apple = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(state)
        np.random.set_state(legacy)  # noqa: NPY002
        if apple is not None:
            torch.mps.set_rng_state(apple)


@contextmanager
def _modes(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, by the attribute alone: a ``train`` of a module's own may change weights."""
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def _buffers(model: nn.Module) -> Iterator[None]:
    before = [
        (module, name, buffer, None if buffer is None else buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for module, name, buffer, copy in before:
                module._buffers[name] = buffer
                if buffer is not None and copy is not None and not _same_bits(buffer, copy):
                    buffer.copy_(copy)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(torch.equal(one.nan_to_num(0.5), other.nan_to_num(0.5)))


@contextmanager
def _gradients(model: nn.Module) -> Iterator[None]:
    """Put gradients aside: they are half of an update where several batches add up to one."""
    before = [(one, one.grad, one.requires_grad) for one in model.parameters()]
    try:
        for parameter, _, _ in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient, required in before:
            parameter.requires_grad_(required)
            parameter.grad = gradient


@contextmanager
def _full_precision(model: nn.Module) -> Iterator[None]:
    """No autocast, neither around the call nor in a ``forward`` that ``accelerate`` has wrapped."""
    wrapped: list[tuple[nn.Module, Any]] = []
    for module in model.modules():
        if "_original_forward" in vars(module):
            wrapped.append((module, module.forward))
            module.forward = module._original_forward  # type: ignore[assignment]
    kinds = {"cpu", *(parameter.device.type for parameter in model.parameters())}
    try:
        with ExitStack() as stack:
            for kind in kinds:
                if torch.amp.is_autocast_available(kind):
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        for module, forward in wrapped:
            module.forward = forward
