"""nn.Conv1d, Conv2d, Conv3d: a linear layer on patches, with any stride, padding and dilation.

With groups the weight is a stack of independent linear layers, one a group of channels. Letters: n
examples, g groups, t output positions, k kernel positions, c and q channels of a group.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import nn

from stiffness.gradients.kept import Factors, Kept, Rows


def keep(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, factored: bool) -> Kept:
    """dW = sum over output positions t of d_t (x) patch_t; db = sum over t of d_t."""
    assert isinstance(layer, nn.modules.conv._ConvNd)
    bias = layer.bias is not None
    positions = d.shape[2:]
    d = d.flatten(2).unflatten(1, (layer.groups, -1))  # [n, g, q, t]
    if factored and layer.groups == 1:
        patches = torch.cat([shift[:, 0] for shift in shifts(layer, a, positions)], -1)
        return Factors(patches, d[:, 0].transpose(1, 2), bias)  # [n, t, k c], [n, t, q]
    # A kernel position at a time, on the input with channels last: its shifted copies are read
    # in long runs, which on a CPU is several times faster than unfolding the patches.
    columns = [(d @ shift).flatten(1) for shift in shifts(layer, a, positions)]  # [n, g q c]
    if bias:
        columns.append(d.sum(3).flatten(1))
    return Rows(torch.cat(columns, 1))


def arranged(gradients: list[torch.Tensor]) -> torch.Tensor:
    """A weight's gradient [g q, c, ...], and a bias's, in the order of ``keep``'s rows: [P]."""
    weight, *bias = gradients
    kernel_first = weight.flatten(2).permute(2, 0, 1)
    return torch.cat([kernel_first.flatten(), *(b.flatten() for b in bias)])


def shifts(
    layer: nn.modules.conv._ConvNd, a: torch.Tensor, positions: torch.Size
) -> Iterator[torch.Tensor]:
    """The input under each kernel position in turn: [n, g, t, c]."""
    padding = list(layer._reversed_padding_repeated_twice)
    if any(padding):
        mode = layer.padding_mode
        a = nn.functional.pad(a, padding, "constant" if mode == "zeros" else mode)
    a = a.movedim(1, -1).contiguous()  # channels last
    for kernel in product(*(range(size) for size in layer.kernel_size)):
        window = [
            slice(k * dilation, k * dilation + (count - 1) * stride + 1, stride)
            for k, dilation, count, stride in zip(
                kernel, layer.dilation, positions, layer.stride, strict=True
            )
        ]
        shifted = a[(slice(None), *window)].flatten(1, -2)  # [n, t, g c]
        yield shifted.unflatten(-1, (layer.groups, -1)).transpose(1, 2)
