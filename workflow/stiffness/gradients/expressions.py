"""Tensors that depend on parameters alone, and the tags by which a forward pass knows them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

from stiffness.data.batch import Inputs

_TAG = "_stiffness_tag"


@dataclass(frozen=True, eq=False)
class Expression:
    """A tensor that depends on parameters alone.

    Attributes:
        names: the parameters.
        value: with its graph, which begins at leaves that stand for the parameters.
        layout: whether it is the one parameter itself, its transpose, or something else.
    """

    names: tuple[str, ...]
    value: torch.Tensor
    layout: Literal["same", "transposed", "other"]


class Place(NamedTuple):
    """Where a tensor has its examples.

    Attributes:
        axis: the axis, which may hold several entries per example.
        inner: whether neighbours along the axis are different examples.
    """

    axis: int
    inner: bool = False


class Join(NamedTuple):
    """A use: the examples are at ``place`` of the ``argument``-th tensor, or of the result."""

    argument: int | None
    place: Place


@dataclass
class Tag:
    """What is known of a tensor in a pass that is watched."""

    expression: Expression | None = None
    of_examples: bool = False  # computed from the inputs
    place: Place | None = None  # found by the growth of the tensor


class NoRule(Exception):
    """Raised by a rule for what it does not cover."""


def marked(inputs: Inputs, place: Place | None = None) -> Inputs:
    """The same inputs as tensors of their own, known to be of the examples."""

    def mark(tensor: torch.Tensor) -> torch.Tensor:
        alias = tensor.view_as(tensor)
        set_tag(alias, Tag(of_examples=True, place=place))
        return alias

    if isinstance(inputs, torch.Tensor):
        return mark(inputs)
    return {name: mark(tensor) for name, tensor in inputs.items()}


_NO_TAG = Tag()


def tag_of(tensor: torch.Tensor) -> Tag:
    """What is known of a tensor."""
    return getattr(tensor, "__dict__", {}).get(_TAG, _NO_TAG)


def set_tag(tensor: torch.Tensor, tag: Tag) -> None:
    """Say what is known of a tensor."""
    tensor.__dict__[_TAG] = tag


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """All tensors in nested lists and tuples."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from tensors_in(value)


def mapped(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    """The same nested value with every tensor replaced by what ``function`` makes of it."""
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: mapped(part, function) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(mapped(part, function) for part in value)
    return value


def names_of(expressions: Any) -> set[str]:
    """The parameters that any of the expressions depends on."""
    return {name for expression in expressions for name in expression.names}


def operator_name(function: Any) -> str:
    """The name under which ``operators.RULES`` knows an operator."""
    return getattr(function, "__name__", "")


def signature_of(function: Any, tensors: list[torch.Tensor], tags: list[Tag]) -> Any:
    """What tells the uses of a network apart, whatever the number of examples or their lengths."""
    return (
        operator_name(function),
        *(
            (tag.expression.names, tensor.ndim)
            if tag.expression
            else (tag.of_examples, tensor.ndim)
            for tensor, tag in zip(tensors, tags, strict=True)
        ),
    )


def derived(expressions: Any, value: torch.Tensor) -> Expression:
    """The expression that an operator has made of others."""
    names = tuple(dict.fromkeys(name for one in expressions for name in one.names))
    layout: Any = "other"
    if len(expressions) == 1 and expressions[0].layout != "other":
        (one,) = expressions
        if value.data_ptr() == one.value.data_ptr() and value.dtype == one.value.dtype:
            shape, stride = one.value.shape, one.value.stride()
            if (value.shape, value.stride()) == (shape, stride):
                layout = one.layout
            elif value.ndim == 2 and (value.shape[::-1], value.stride()[::-1]) == (shape, stride):
                layout = "transposed" if one.layout == "same" else "same"
    return Expression(names, value, layout)
