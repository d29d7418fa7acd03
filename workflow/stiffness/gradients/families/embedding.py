"""nn.Embedding: rows of a table. A token's output gradient is added to its row."""

import torch
from torch import nn

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Form, Gradients
from stiffness.gradients.tokens import Tokens


@family(nn.Embedding)
def embedding(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """dE[a_t] += d_t; the row of the padding token gets no gradient."""
    del form  # forming the whole table for every example is never better
    assert isinstance(layer, nn.Embedding)
    index = a.reshape(len(a), -1).long()
    if layer.padding_idx is not None:
        index = index.masked_fill(index == layer.padding_idx, -1)
    return Tokens.of(index, d.reshape(len(d), index.shape[1], -1))
