"""nn.Linear: out = a W^T + b, for vectors [n, p] or tokens [n, ..., p].

transformers' Conv1D (GPT-2) is the same with its weight transposed; rows are those of W all the same.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from stiffness.gradients.kept import Factors, Form, Kept, LateRows, Rows


def keep(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Kept:
    """dW = sum over t of d_t (x) a_t [q, p]; db = sum over t of d_t."""
    a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
    bias = layer.bias is not None
    if form == "factors":
        return Factors(a, d, bias)
    if form == "late rows":
        return LateRows(a, d, partial(columns, bias))
    return Rows(torch.cat(list(columns(bias, a, d, a.shape[2] * d.shape[2])), 1))


def columns(bias: bool, a: torch.Tensor, d: torch.Tensor, width: int) -> Iterator[torch.Tensor]:
    """The gradients of some outputs at a time, a [n, t, p] and d [n, t, q]: [n, q p], then [n, q]."""
    for outputs in d.split(max(1, width // a.shape[2]), 2):
        yield torch.bmm(outputs.transpose(1, 2), a).flatten(1)  # ntq, ntp -> nqp
    if bias:
        yield d.sum(1)
