"""nn.Conv1d, Conv2d, Conv3d: a linear layer on patches, with any stride, padding and dilation.

With groups the weight is a stack of independent linear layers, one per group of channels. Letters:
n examples, g groups, t output positions, k kernel positions, c and q channels of a group. Rows are
in the weight's own order: [g q, c, k].
"""

from collections.abc import Iterator
from functools import partial
from itertools import product

import torch
from torch import nn
from torch.nn import grad as nn_grad

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Factors, Form, Gradients, LateRows, Rows

_WEIGHT_GRADIENT = {
    1: nn_grad.conv1d_weight,
    2: nn_grad.conv2d_weight,
    3: nn_grad.conv3d_weight,
}


@family(nn.Conv1d, nn.Conv2d, nn.Conv3d)
def convolution(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """dW = sum over output positions t of d_t (x) patch_t; db = sum over t of d_t."""
    assert isinstance(layer, nn.modules.conv._ConvNd)
    a = padded(layer, a)
    if form == "factors" and layer.groups == 1:
        flat = patches(layer, a, d.shape[2:])[:, 0]
        return Factors(flat, d.flatten(2).transpose(1, 2), layer.bias is not None)
    if form == "late rows":
        return LateRows(a, d, partial(columns, layer))
    return Rows(torch.cat(list(columns(layer, a, d, layer.weight.numel())), 1))


def columns(
    layer: nn.modules.conv._ConvNd, a: torch.Tensor, d: torch.Tensor, width: int
) -> Iterator[torch.Tensor]:
    """The gradients of some outputs of every group at a time, [n, g q c k], then [n, g q]."""
    weights_of_output = layer.weight[0].numel()
    outputs = max(1, width // (layer.groups * weights_of_output))
    for part in d.unflatten(1, (layer.groups, -1)).split(outputs, 2):  # [n, g, q, ...]
        yield _weight_gradients(layer, a, part)
    if layer.bias is not None:
        yield d.flatten(2).sum(2)


def _weight_gradients(
    layer: nn.modules.conv._ConvNd, a: torch.Tensor, d: torch.Tensor
) -> torch.Tensor:
    """The weight's gradient of every example, from a [n, g c, ...] and d [n, g, q, ...].

    Where positions are many, examples are further groups of one convolution, whose kernels beat
    products with copied patches. Where they are few and channels many, there is one product per
    example.
    """
    n, g, q = d.shape[:3]
    positions, c = d.shape[3:], layer.weight.shape[1]
    if positions.numel() < min(q, c):
        gradients = d.flatten(3) @ patches(layer, a, positions)  # ngqt, ngt(ck) -> ngq(ck)
        return gradients.flatten(1)
    weight_gradient = _WEIGHT_GRADIENT[len(positions)]
    return weight_gradient(
        a.reshape(1, n * g * c, *a.shape[2:]),
        (n * g * q, c, *layer.kernel_size),
        d.reshape(1, n * g * q, *positions),
        layer.stride,
        0,
        layer.dilation,
        n * g,
    ).view(n, -1)


def padded(layer: nn.modules.conv._ConvNd, a: torch.Tensor) -> torch.Tensor:
    """The input with its padding, in the layer's padding mode."""
    padding = list(layer._reversed_padding_repeated_twice)
    if not any(padding):
        return a
    mode = layer.padding_mode
    return nn.functional.pad(a, padding, "constant" if mode == "zeros" else mode)


def patches(layer: nn.modules.conv._ConvNd, a: torch.Tensor, positions: torch.Size) -> torch.Tensor:
    """The values of a padded input under the kernel at each output position: [n, g, t, c k]."""
    windows = [
        tuple(
            slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
            for k, dilation, count, stride in zip(
                kernel, layer.dilation, positions, layer.stride, strict=True
            )
        )
        for kernel in product(*(range(size) for size in layer.kernel_size))
    ]
    channels = a.unflatten(1, (layer.groups, -1)).movedim(2, -1)  # [n, g, ..., c]
    shifted = [channels[(slice(None), slice(None), *window)] for window in windows]
    return torch.stack(shifted, -1).flatten(-2).flatten(2, -2)
