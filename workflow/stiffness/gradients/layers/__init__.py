"""How each kind of layer turns an input and an output gradient into per-example gradients.

A family is a small file. For one call of a layer, with input a and output gradient d of n examples,
it gives what is kept of them, in the form asked for where it has several: ``Rows`` (every example's
gradient, flattened), ``LateRows`` (from which rows are formed later), ``Factors`` (whose products
give the layer's block of the Gram matrix without any gradient being formed) or ``Tokens``.
"""

import sys
from collections.abc import Callable

import torch
from torch import nn

from stiffness.gradients.kept import Form, Kept
from stiffness.gradients.layers import conv, embedding, linear, normalization

Family = Callable[[nn.Module, torch.Tensor, torch.Tensor, Form], Kept]

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


def family_of(layer: nn.Module) -> Family | None:
    """Its family, by its exact type: a subclass may compute something else."""
    # Not imported: a model of transformers has it loaded already.
    transformers = sys.modules.get("transformers.pytorch_utils")
    if transformers is not None and type(layer) is getattr(transformers, "Conv1D", None):
        return linear.keep
    return FAMILIES.get(type(layer))
