"""nn.Linear: out = a W^T + b, for vectors [n, p] or tokens [n, ..., p].

The Conv1D of ``transformers`` (GPT-2) holds the transpose of W. Its rows are in the order of W too.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Factors, Form, Gradients, LateRows, Rows


@family(nn.Linear)
@family("transformers.pytorch_utils.Conv1D", transposed=True)
def linear(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """dW = sum over t of d_t (x) a_t [q, p]; db = sum over t of d_t."""
    a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
    bias = layer.bias is not None
    if form == "factors":
        return Factors(a, d, bias)
    if form == "late rows":
        return LateRows(a, d, partial(columns, bias))
    return Rows(torch.cat(list(columns(bias, a, d, a.shape[2] * d.shape[2])), 1))


def columns(bias: bool, a: torch.Tensor, d: torch.Tensor, width: int) -> Iterator[torch.Tensor]:
    """Gradients of some outputs at a time, from a [n, t, p], d [n, t, q]: [n, q p], then [n, q]."""
    for outputs in d.split(max(1, width // a.shape[2]), 2):
        yield torch.bmm(outputs.transpose(1, 2), a).flatten(1)  # ntq, ntp -> nqp
    if bias:
        yield d.sum(1)
