"""Choosing a device, and full float32 on it."""

from collections.abc import Iterator
from contextlib import contextmanager

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
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
