"""nn.Linear: out = a W^T + b, for vectors [n, p] or tokens [n, ..., p]."""

import torch
from torch import nn

from stiffness.gradients.kept import Factors, Kept, Rows


def keep(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, factored: bool) -> Kept:
    """dW = sum over t of d_t (x) a_t [q, p]; db = sum over t of d_t."""
    a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
    return outer_products(a, d, layer.bias is not None, factored)


def outer_products(a: torch.Tensor, d: torch.Tensor, bias: bool, factored: bool) -> Kept:
    """a [n, t, p] and d [n, t, q] as factors, or as rows [n, q p (+ q)]."""
    if factored:
        return Factors(a, d, bias)
    weight = torch.bmm(d.transpose(1, 2), a).flatten(1)  # nto, nti -> noi
    return Rows(torch.cat([weight, d.sum(1)], 1) if bias else weight)
