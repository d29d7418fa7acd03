"""nn.Linear: out = a W^T + b, for vectors [n, p] or tokens [n, ..., p].

The Conv1D of ``transformers`` (GPT-2) holds the transpose of W. Its rows are in the order of W too.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Factors, Form, Gradients, LateRows, Piece


@family(nn.Linear)
@family("transformers.pytorch_utils.Conv1D", transposed=True)
def linear(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """dW = sum over t of d_t (x) a_t [q, p]; db = sum over t of d_t."""
    a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
    a, d = without_unused(a, d)
    bias = layer.bias is not None
    if form == "factors":
        return Factors(a, d, bias)
    late = LateRows(a, d, partial(columns, bias))
    return late if form == "late rows" else late.as_rows()


def columns(bias: bool, a: torch.Tensor, d: torch.Tensor, width: int) -> Iterator[Piece]:
    """Gradients of some outputs at a time, from a [n, t, p], d [n, t, q]: [n, q p], then [n, q]."""
    p = a.shape[2]
    for outputs in d.split(max(1, width // p), 2):
        yield p * outputs.shape[2], partial(_product, outputs, a)
    if bias:
        yield d.shape[2], lambda out: out.copy_(d.sum(1))


def _product(d: torch.Tensor, a: torch.Tensor, out: torch.Tensor) -> None:
    """ntq, ntp -> nqp"""
    torch.bmm(d.transpose(1, 2), a, out=out.view(len(a), d.shape[2], a.shape[2]))


def without_unused(a: torch.Tensor, d: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a [n, t, p] and d [n, t, q] without tokens whose output gradient is 0: padding, and in the
    last layers all tokens that no output is made of. Each example keeps as many as the one that
    needs the most.

    Only where the first example has such tokens, and not on a GPU, which would have to wait.
    """
    if d.is_cuda or d.shape[1] == 1 or bool((d[0] != 0).any(1).all()):
        return a, d
    used = (d != 0).any(2)
    count = max(1, int(used.sum(1).max()))
    if 4 * count > 3 * d.shape[1]:
        return a, d
    order = used.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    index = order[:, :count, None]
    return (
        a.gather(1, index.expand(-1, -1, a.shape[2])),
        d.gather(1, index.expand(-1, -1, d.shape[2])),
    )
