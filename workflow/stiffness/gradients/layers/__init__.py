"""How each kind of layer turns an input and an output gradient into per-example gradients.

A family is a small file. For one call of a layer, with input a and output gradient d of n examples,
it gives what is kept of them: ``Rows`` (every example's gradient, flattened), ``Factors`` (whose
products give the layer's block of the Gram matrix without any gradient being formed) or ``Tokens``.
"""

from collections.abc import Callable

import torch
from torch import nn

from stiffness.gradients.kept import Kept
from stiffness.gradients.layers import conv, embedding, linear, normalization

# (layer, a, d, factored) -> what is kept of the examples in a and d
Family = Callable[[nn.Module, torch.Tensor, torch.Tensor, bool], Kept]

FAMILIES: dict[type[nn.Module], Family] = {
    nn.Linear: linear.keep,
    nn.Conv1d: conv.keep,
    nn.Conv2d: conv.keep,
    nn.Conv3d: conv.keep,
    nn.Embedding: embedding.keep,
    nn.LayerNorm: normalization.keep_layer_norm,
    nn.RMSNorm: normalization.keep_rms_norm,
    nn.GroupNorm: normalization.keep_group_norm,
    nn.BatchNorm1d: normalization.keep_batch_norm,
    nn.BatchNorm2d: normalization.keep_batch_norm,
    nn.BatchNorm3d: normalization.keep_batch_norm,
}
