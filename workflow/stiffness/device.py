"""Full float32 on every device, and what a GPU needs beside it."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def device_name(device: torch.device) -> str:
    """ "cpu", or what a GPU calls itself."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the CPU to ``device`` without waiting for what a GPU has still to do."""
    pinned = tensor.pin_memory() if device.type == "cuda" else tensor
    return pinned.to(device, non_blocking=True)


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """The same bits each time on a GPU, for all operators that have such an algorithm.

    torch warns of the others by name. On the CPU there is nothing to do.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    utils: Any = torch.utils.deterministic
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        utils.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    utils.fill_uninitialized_memory = False  # for those who read it before they write
    torch.backends.cudnn.benchmark = False
    try:
        with sdpa_kernel(SDPBackend.MATH):  # the fused kernels add up in any order
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        utils.fill_uninitialized_memory, torch.backends.cudnn.benchmark = before[2:]


def full_float32() -> AbstractContextManager[None]:
    """No TF32 in products or convolutions, and no autocast around them.

    Either flips signs of nearly orthogonal gradients.
    """
    return float32_products("ieee")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products and convolutions of float32 tensors are computed in "ieee" float32 or in "tf32".

    Autocast that is on around the context is off within it.
    """
    torch_backends: Any = torch.backends  # the stubs lack some of these
    cuda, cudnn, mkldnn = torch_backends.cuda, torch_backends.cudnn, torch_backends.mkldnn
    backends = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    casting = {kind: torch.is_autocast_enabled(kind) for kind in ("cpu", "cuda")}
    for backend in backends:
        backend.fp32_precision = precision
    for kind in casting:
        # A context of torch.autocast would keep the casts of weights for autocast within it.
        torch.set_autocast_enabled(kind, False)
    try:
        yield
    finally:
        for backend, former in zip(backends, before, strict=True):
            backend.fp32_precision = former
        for kind, enabled in casting.items():
            torch.set_autocast_enabled(kind, enabled)
