"""Choosing a device, and full float32 on it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from stiffness.errors import StiffnessError
from stiffness.host import take_gpu


def choose_device(name: str, jobs_per_gpu: int = 1) -> torch.device:
    """ "auto" (a GPU where there is one), "cpu" or "cuda".

    Of the GPUs that CUDA_VISIBLE_DEVICES, or the scheduler through it, leaves to this process, one
    is taken that fewer than ``jobs_per_gpu`` other jobs on this host have; see ``take_gpu``.

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
    if name != "cuda":
        return torch.device(name)
    device = torch.device("cuda", _own_gpu(jobs_per_gpu))
    torch.cuda.set_device(device)  # what asks for no GPU in particular gets this one
    return device


@cache  # a process has one, however often it asks
def _own_gpu(jobs_per_gpu: int) -> int:
    count = torch.cuda.device_count()
    return take_gpu(
        [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)],
        jobs_per_gpu,
    )


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
