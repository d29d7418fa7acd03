"""nn.Conv1d, Conv2d, Conv3d: a linear layer on patches, with any stride, padding and dilation.

With groups the weight is a stack of independent linear layers, one per group of channels. Letters:
n examples, g groups, t output positions, k kernel positions, c and q channels of a group. Rows are
in the order [g q, k, c], in which patches of inputs whose channels come last lie in memory.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import nn
from torch.nn import grad as nn_grad

from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Factors, Form, Gradients, LateRows, Piece

_WEIGHT_GRADIENT = {
    1: nn_grad.conv1d_weight,
    2: nn_grad.conv2d_weight,
    3: nn_grad.conv3d_weight,
}
_MANY = 8  # positions per channel from which on examples are groups of one convolution
_PATCHES = (
    2**18
)  # numbers in the patches that one thread multiplies at once: they stay in its cache
_PATCHES_GPU = 2**26


@family(nn.Conv1d, nn.Conv2d, nn.Conv3d, transposed=True)
def convolution(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """dW = sum over output positions t of d_t (x) patch_t; db = sum over t of d_t."""
    assert isinstance(layer, nn.modules.conv._ConvNd)
    if form == "factors" and layer.groups == 1:
        windows = _windows(layer, a, d.shape[2:])
        patches = windows.reshape(len(a), d.shape[2:].numel(), -1)
        return Factors(patches, d.flatten(2).transpose(1, 2), layer.bias is not None)
    late = LateRows(a, d, partial(columns, layer))
    return late if form == "late rows" else late.as_rows()


def columns(
    layer: nn.modules.conv._ConvNd, a: torch.Tensor, d: torch.Tensor, width: int
) -> Iterator[Piece]:
    """The gradients of some weights at a time, in the order [g q, k, c], then those of the biases.

    Where positions are many, and patches overlap much, examples are further groups of one
    convolution, whose kernels beat products with copied patches. Elsewhere there is one product per
    example; a piece has all outputs of some places of the kernel, so that each patch is copied
    once.
    """
    few = d.shape[2:].numel() < _MANY * min(layer.weight.shape[:2])
    apart = max(layer.stride) > 1 or max(layer.kernel_size) == 1
    if layer.groups == 1 and (few or apart or a.is_cuda):
        windows = _windows(layer, a, d.shape[2:])
        axis = d.ndim - 1  # the first of the kernel
        per_output = windows.shape[axis + 1 :].numel()
        places = max(1, width // (d.shape[1] * per_output))
        for some in windows.split(places, axis):
            size = some.shape[axis:].numel()
            for part in d.flatten(2).split(max(1, width // size), 1):
                yield part.shape[1] * size, partial(_from_patches, some, part)
    else:
        both = list(layer._reversed_padding_repeated_twice)  # last axis first, before and after
        padding = both[::-2]
        if layer.padding_mode != "zeros" or both[::2] != both[1::2]:
            a, padding = _padded(layer, a), [0] * len(padding)
        size = layer.weight[0].numel()
        outputs = max(1, width // (layer.groups * size))
        for part in d.unflatten(1, (layer.groups, -1)).split(outputs, 2):  # [n, g, q, ...]
            number = layer.groups * part.shape[2] * size
            yield number, partial(_from_convolution, layer, a, part, padding)
    if layer.bias is not None:
        yield d.shape[1], lambda out: out.copy_(d.flatten(2).sum(2))


def _from_patches(windows: torch.Tensor, d: torch.Tensor, out: torch.Tensor) -> None:
    """out [n, q k c] from windows [n, ..., k, c] and d [n, q, t], with patches of some examples at
    a time."""
    n, q, t = d.shape
    size = windows[0].numel()
    rows = out.view(n, q, size // t)
    room = _PATCHES_GPU if d.is_cuda else _PATCHES * torch.get_num_threads()
    some = max(1, room // size)
    for begin in range(0, n, some):
        part = slice(begin, begin + some)
        patches = windows[part].reshape(-1, t, size // t)
        torch.bmm(d[part], patches, out=rows[part])


def _from_convolution(
    layer: nn.modules.conv._ConvNd,
    a: torch.Tensor,
    d: torch.Tensor,
    padding: list[int],
    out: torch.Tensor,
) -> None:
    """out [n, g q k c] from a [n, g c, ...] and d [n, g, q, ...]."""
    n, g, q = d.shape[:3]
    positions, c = d.shape[3:], layer.weight.shape[1]
    gradients = _WEIGHT_GRADIENT[len(positions)](
        a.reshape(1, n * g * c, *a.shape[2:]),
        (n * g * q, c, *layer.kernel_size),
        d.reshape(1, n * g * q, *positions),
        layer.stride,
        padding,
        layer.dilation,
        n * g,
    )
    out.view(n, g * q, -1, c).copy_(gradients.view(n, g * q, c, -1).transpose(2, 3))


def _padded(layer: nn.modules.conv._ConvNd, a: torch.Tensor) -> torch.Tensor:
    """The input with its padding, in the layer's padding mode."""
    padding = list(layer._reversed_padding_repeated_twice)
    if not any(padding):
        return a
    mode = layer.padding_mode
    return nn.functional.pad(a, padding, "constant" if mode == "zeros" else mode)


def _windows(
    layer: nn.modules.conv._ConvNd, a: torch.Tensor, positions: torch.Size
) -> torch.Tensor:
    """The padded input under the kernel at each output position, a view [n, ..., k..., c]."""
    a = _padded(layer, a).movedim(1, -1).contiguous()
    n, *steps, one = a.stride()
    moves = [step * by for step, by in zip(steps, layer.stride, strict=True)]
    inside = [step * by for step, by in zip(steps, layer.dilation, strict=True)]
    return a.as_strided(
        (len(a), *positions, *layer.kernel_size, a.shape[-1]), (n, *moves, *inside, one)
    )
