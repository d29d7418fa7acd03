"""Layers that normalise and then scale: out = w x + b, with x the normalised input.

dw = sum over positions of d x; db = sum over positions of d.
"""

import torch
from torch import nn

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Form, Gradients, Rows


@family(nn.LayerNorm)
def layer_norm(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """x: zero mean and unit variance over the last axes."""
    del form
    assert isinstance(layer, nn.LayerNorm)
    shape = list(layer.normalized_shape)
    x = nn.functional.layer_norm(a, shape, eps=layer.eps)
    return _last_axes(layer, x, d, len(shape))


@family(nn.RMSNorm)
def rms_norm(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """x: unit mean square over the last axes."""
    del form
    assert isinstance(layer, nn.RMSNorm)
    shape = list(layer.normalized_shape)
    x = nn.functional.rms_norm(a, shape, eps=layer.eps)
    return _last_axes(layer, x, d, len(shape))


@family(nn.GroupNorm)
def group_norm(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """x: zero mean and unit variance over groups of channels."""
    del form
    assert isinstance(layer, nn.GroupNorm)
    return _channels(layer, nn.functional.group_norm(a, layer.num_groups, eps=layer.eps), d)


@family(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
def batch_norm(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """x: with the running mean and variance; in training mode examples would depend on others."""
    del form
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    x = nn.functional.batch_norm(a, layer.running_mean, layer.running_var, eps=layer.eps)
    return _channels(layer, x, d)


def _last_axes(layer: nn.Module, x: torch.Tensor, d: torch.Tensor, axes: int) -> Gradients:
    """[n, ..., normalized shape] -> [n, P]."""

    def summed(values: torch.Tensor) -> torch.Tensor:
        return values.reshape(len(values), -1, values.shape[-axes:].numel()).sum(1)

    bias = getattr(layer, "bias", None) is not None
    return Rows(torch.cat([summed(d * x), summed(d)], 1) if bias else summed(d * x))


def _channels(layer: nn.Module, x: torch.Tensor, d: torch.Tensor) -> Gradients:
    """[n, c, ...] -> [n, 2 c]."""
    n, c = d.shape[:2]
    weight, bias = (d * x).reshape(n, c, -1).sum(2), d.reshape(n, c, -1).sum(2)
    return Rows(torch.cat([weight, bias], 1) if layer.bias is not None else weight)
