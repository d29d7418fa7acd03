"""The arithmetic of products in float32 on every device."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch


def full_float32() -> AbstractContextManager[None]:
    """No TF32 in products or convolutions: it flips signs of nearly orthogonal gradients."""
    return float32_products("ieee")


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Products and convolutions of float32 tensors are computed in "ieee" float32 or in "tf32"."""
    torch_backends: Any = torch.backends  # the stubs lack some of these
    cuda, cudnn, mkldnn = torch_backends.cuda, torch_backends.cudnn, torch_backends.mkldnn
    backends = [cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv, mkldnn.rnn]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = precision
    try:
        yield
    finally:
        for backend, former in zip(backends, before, strict=True):
            backend.fp32_precision = former
