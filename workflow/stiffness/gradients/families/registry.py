"""The table of families: which function makes the per-example gradients of which type of layer."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from stiffness.gradients.multiply import Form, Gradients

Function = Callable[[nn.Module, torch.Tensor, torch.Tensor, Form], Gradients]


class Family(NamedTuple):
    """What is registered for a type of layer.

    Attributes:
        gradients: the registered function.
        transposed: whether its rows are in the order of the transposed weight; for a convolution,
            of the weight with its second axis last.
    """

    gradients: Function
    transposed: bool


_FAMILIES: dict[type[nn.Module] | str, Family] = {}


def family(
    *types: type[nn.Module] | str, transposed: bool = False
) -> Callable[[Function], Function]:
    """Register a function that makes the per-example gradients of layers of the given types.

    The function is given the layer, the input a [n, ...] and the output gradient d [n, ...] of one
    call of it on n examples, and the form that is wanted. It returns the gradients of the layer's
    parameters in that form, or in the only form that it has. The order of ``Rows`` is that of the
    parameters' registration, each flattened: the weight, then the bias. Layers with parameters in
    submodules, or of which some are frozen, do not ask their family. Whether the result is right
    is checked against autograd for every network. Where it is not, the parameters are treated as
    those of a layer without a family.

    Args:
        types: exact types, not their subclasses, which may compute something else. A string is the
            full name of a type that is not to be imported for this.
        transposed: rows are in the order of the transposed weight; for a convolution, of the
            weight with its second axis last.

    Examples:
        A layer that scales its input, out = w * a, has the gradient d * a:

        >>> import torch
        >>> from stiffness.gradients.families import family
        >>> from stiffness.gradients.multiply import Rows
        >>> class Scale(torch.nn.Module):
        ...     def __init__(self, width):
        ...         super().__init__()
        ...         self.weight = torch.nn.Parameter(torch.ones(width))
        ...     def forward(self, a):
        ...         return self.weight * a
        >>> @family(Scale)
        ... def scale(layer, a, d, form):
        ...     return Rows((d * a).reshape(len(a), -1, a.shape[-1]).sum(1))
    """

    def register(function: Function) -> Function:
        _FAMILIES.update(dict.fromkeys(types, Family(function, transposed)))
        return function

    return register


def family_of(layer: nn.Module) -> Family | None:
    """The family of a layer by its exact type, or None."""
    kind = type(layer)
    return _FAMILIES.get(kind) or _FAMILIES.get(f"{kind.__module__}.{kind.__qualname__}")
