"""Choosing a device, and full float32 on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stiffness.errors import StiffnessError


def choose_device(name: str) -> torch.device:
    """ "auto" (a GPU where there is one), "cpu" or "cuda".

    Raises:
        StiffnessError: a GPU was asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise StiffnessError(
            f"device: {name} asked for but torch {torch.__version__} sees no GPU; "
            "set device: cpu or auto"
        )
    return torch.device(name)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 in products or convolutions: it flips signs of nearly orthogonal gradients."""
    torch_backends: Any = torch.backends  # the stubs lack some of these
    cuda, cudnn, mkldnn = torch_backends.cuda, torch_backends.cudnn, torch_backends.mkldnn
    backends = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
