"""The operators that may join expressions with examples, and what makes gradients of each.

A rule is called in place of its operator in a forward pass that is watched (``uses.Watch``). It
returns the operator's result, and sees to it that every parameter whose gradients are wanted gets
them by example. A rule refuses what it does not cover with ``NoRule``.
"""

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn import grad

from stiffness.gradients.expressions import (
    Expression,
    NoRule,
    Place,
    Tag,
    derived,
    mapped,
    operator_name,
    set_tag,
    tag_of,
    tensors_in,
)

if TYPE_CHECKING:
    from stiffness.gradients.uses import Watch

SPREADING = {"expand", "expand_as", "broadcast_to", "repeat", "tile"}
Kinds = Callable[[Any, Any, Any], dict[str, str]]


class Rule(NamedTuple):
    """How an operator is called in a pass, and as which kinds of layers it uses parameters."""

    apply: Callable[..., Any]
    kinds: Kinds = lambda *_: {}

    def __call__(self, *arguments: Any) -> Any:
        return self.apply(*arguments)


def _matrix(tensor: Any, kind: str) -> dict[str, str]:
    """The kind of a use of ``tensor``, where that is a parameter itself."""
    expression = tag_of(tensor).expression if isinstance(tensor, torch.Tensor) else None
    if expression is None or tensor.ndim != 2:
        return {}
    fits = expression.layout == "same" or (kind == "linear" and expression.layout == "transposed")
    return dict.fromkeys(expression.names, kind) if fits else {}


def _elementwise(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    rank = max(tensor.ndim for tensor in tensors_in((*args, *kwargs.values())))
    axis = place.axis + rank - at.ndim
    size = at.shape[place.axis]

    def copy(tensor: torch.Tensor) -> Any:
        expression = watch.wants(tensor)
        return watch.copies(expression, rank, axis, size, place.inner) if expression else tensor

    args, kwargs = mapped((args, kwargs), copy)
    return function(*args, **kwargs)


def spread_copies(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor | None, place: Place
) -> Any:
    result = function(*args, **kwargs)
    expression = watch.wants(args[0])
    if expression is None:
        return result
    size = result.shape[place.axis]
    copies = watch.copies(expression, result.ndim, place.axis, size, place.inner)
    return copies.expand(result.shape)


def _attached(watch: "Watch", output: torch.Tensor, *gives: Callable[..., None] | None) -> Any:
    wanted = [give for give in gives if give]
    return watch.attach(output, wanted) if wanted else output


def _linear(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    bound = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, bias = bound["input"], bound.get("bias")
    if at is not x or place.axis == x.ndim - 1:
        raise NoRule
    output = function(*args, **kwargs)
    return _attached(
        watch, output, watch.weight(bound["weight"], x, place), watch.bias(bias, place)
    )


def _linear_kinds(function: Any, args: Any, kwargs: Any) -> dict[str, str]:
    return _matrix(kwargs.get("weight", args[1] if len(args) > 1 else None), "linear")


def _matmul(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    left, right = (*args, *kwargs.values())[:2]
    if operator_name(function) == "__rmatmul__":
        left, right = right, left
    if at is left and right.ndim == 2 and place.axis < left.ndim - 1:
        return _attached(watch, left @ right, watch.weight(_turned(right), left, place))
    if at is left and right.ndim == 1 and place.axis < left.ndim - 1:
        return _elementwise(watch, torch.mul, (left, right), {}, left, place).sum(-1)
    if min(left.ndim, right.ndim) < 2 or place.axis >= at.ndim - 2:
        raise NoRule
    return _elementwise(watch, torch.matmul, (left, right), {}, at, place)


def _matmul_kinds(function: Any, args: Any, kwargs: Any) -> dict[str, str]:
    left, right = (*args, *kwargs.values())[:2]
    if operator_name(function) == "__rmatmul__":
        left, right = right, left
    return _matrix(right, "linear") if left.ndim >= 2 else {}


def _addmm(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    if kwargs or len(args) != 3 or at is not args[1] or place.axis != 0:
        raise NoRule
    bias, x, weight = args
    output = function(*args)
    return _attached(
        watch, output, watch.weight(_turned(weight), x, place), watch.bias(bias, place)
    )


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    """The transpose of a matrix, known as an expression where the matrix is one."""
    turned = tensor.detach().T
    expression = tag_of(tensor).expression
    if expression:
        with torch.enable_grad():
            set_tag(turned, Tag(derived([expression], expression.value.T)))
    return turned


def _embedding(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    bound = dict(zip(("input", "weight", "padding_idx"), args, strict=False)) | kwargs
    index, table, padding = bound["input"], bound["weight"], bound.get("padding_idx")
    if at is not index:
        raise NoRule
    return _looked_up(watch, function(*args, **kwargs), index, table, padding, place)


def _item(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    table, index = args
    if at is not index or index.is_floating_point() or index.dtype == torch.bool:
        raise NoRule
    return _looked_up(watch, function(table, index), index, table, None, place)


def _looked_up(
    watch: "Watch",
    output: torch.Tensor,
    index: torch.Tensor,
    table: torch.Tensor,
    padding: int | None,
    place: Place,
) -> torch.Tensor:
    expression = watch.wants(table)
    if expression is None:
        return output
    rows, width = table.shape[0], prod(table.shape[1:])
    layer = f"{expression.names[0]} (embedding)"
    as_layer = expression.layout == "same" and layer in watch.uses.layers
    if not as_layer:
        watch.expect(expression)

    def give(gradient: torch.Tensor) -> None:
        found = watch.by_example(index, place).reshape(watch.count, -1).long()
        d = watch.by_example(gradient, place).reshape(watch.count, -1, width)
        found = torch.where(found < 0, found + rows, found)
        if padding is not None:
            # The row of the padding token gets no gradient.
            d = d.masked_fill((found == padding)[..., None], 0)
        if as_layer:
            watch.receive(layer, found, d)
        else:
            dense = d.new_zeros(watch.count, rows, width)
            dense.scatter_add_(1, found[..., None].expand_as(d), d)
            watch.give(expression, dense.reshape(watch.count, *table.shape))

    return watch.attach(output, [give])


def _normalised(channels: bool) -> Callable[..., Any]:
    """A normalisation without its scale and shift, then the scale, then the shift."""

    def apply(
        watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
    ) -> Any:
        given = dict(zip(_ARGUMENTS[operator_name(function)], args, strict=False)) | kwargs
        weight, bias = given.pop("weight", None), given.pop("bias", None)
        if at is not given["input"]:
            raise NoRule
        output = function(**given)
        for operator, value in ((torch.mul, weight), (torch.add, bias)):
            if value is None:
                continue
            if channels:
                value = _reshaped(value, (-1, *[1] * (output.ndim - 2)))
            output = _elementwise(watch, operator, (output, value), {}, output, place)
        return output

    return apply


_ARGUMENTS = {
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
    "batch_norm": (
        *("input", "running_mean", "running_var", "weight", "bias"),
        *("training", "momentum", "eps"),
    ),
}


def _reshaped(tensor: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Reshaped, known as an expression where the tensor is one."""
    expression = tag_of(tensor).expression
    if expression is None:
        return tensor.reshape(shape)
    with torch.enable_grad():
        value = expression.value.reshape(shape)
    result = value.detach()
    set_tag(result, Tag(Expression(expression.names, value, "other")))
    return result


def _prelu(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    x, slope = (*args, *kwargs.values())[:2]
    if at is not x:
        raise NoRule
    if x.ndim > 1:
        slope = _reshaped(slope, (-1, *[1] * (x.ndim - 2)))
    negative = _elementwise(watch, torch.mul, (x.clamp_max(0), slope), {}, x, place)
    return x.clamp_min(0) + negative


def _attention(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """A bias that is added to the scores."""
    if any(watch.wants(tensor) for tensor in args[:3]):
        raise NoRule
    return _elementwise(watch, function, args, kwargs, at, place)


def _einsum(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """The copies have the letter of the examples in front."""
    equation, *operands = args
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in equation or len(terms) != len(operands):
        raise NoRule
    letter = next(term[place.axis] for term, one in zip(terms, operands, strict=True) if one is at)
    for i, operand in enumerate(operands):
        expression = watch.wants(operand)
        if expression:
            size, rank = at.shape[place.axis], operand.ndim + 1
            operands[i] = watch.copies(expression, rank, 0, size, place.inner)
            terms[i] = letter + terms[i]
    return function(",".join(terms) + "->" + output, *operands)


def _convolution(
    watch: "Watch", function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """A convolution whose kernel is computed, or trained without its bias."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if at is not x or place.axis != 0 or len(x) != watch.count:
        raise NoRule
    output = function(*args, **kwargs)
    groups, held = given.get("groups", 1), x.detach()
    kernel, shift = watch.wants(weight), watch.wants(bias)
    stride, dilation = given.get("stride", 1), given.get("dilation", 1)
    padding = given.get("padding", 0)
    if kernel and isinstance(padding, str):
        steps = dilation if isinstance(dilation, tuple) else (dilation,) * (weight.ndim - 2)
        sizes = [step * (k - 1) for step, k in zip(steps, weight.shape[2:], strict=True)]
        if padding == "same" and any(size % 2 for size in sizes):
            raise NoRule
        padding = [size // 2 if padding == "same" else 0 for size in sizes]
    for expression in (kernel, shift):
        if expression:
            watch.expect(expression)

    def give(gradient: torch.Tensor) -> None:
        if kernel:
            n, (q, *rest) = watch.count, weight.shape
            # Examples are further groups of one convolution.
            rows = _KERNEL_GRADIENT[weight.ndim - 2](
                held.reshape(1, -1, *held.shape[2:]),
                (n * q, *rest),
                gradient.reshape(1, -1, *gradient.shape[2:]),
                stride,
                padding,
                dilation,
                n * groups,
            )
            watch.give(kernel, rows.reshape(n, q, *rest))
        if shift:
            watch.give(shift, gradient.flatten(2).sum(2))

    return _attached(watch, output, give if kernel or shift else None)


_KERNEL_GRADIENT = {1: grad.conv1d_weight, 2: grad.conv2d_weight, 3: grad.conv3d_weight}

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        [
            *("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__"),
            *("rsub", "__isub__", "sub_", "subtract", "mul", "__mul__", "__rmul__", "__imul__"),
            *("mul_", "multiply", "div", "__truediv__", "__rtruediv__", "true_divide", "__rdiv__"),
            *("__div__", "div_", "__idiv__", "__itruediv__", "pow", "__pow__", "where", "maximum"),
            *("minimum", "addcmul", "lerp", "masked_fill"),
        ],
        Rule(_elementwise),
    ),
    **dict.fromkeys(SPREADING, Rule(spread_copies)),
    **dict.fromkeys(["matmul", "__matmul__", "__rmatmul__", "mm"], Rule(_matmul, _matmul_kinds)),
    "linear": Rule(_linear, _linear_kinds),
    "addmm": Rule(_addmm, lambda _, args, kwargs: _matrix(args[2], "linear")),
    "embedding": Rule(
        _embedding,
        lambda _, args, kwargs: _matrix(
            kwargs.get("weight", args[-1] if len(args) < 2 else args[1]), "embedding"
        ),
    ),
    "__getitem__": Rule(_item, lambda _, args, kwargs: _matrix(args[0], "embedding")),
    "layer_norm": Rule(_normalised(channels=False)),
    "rms_norm": Rule(_normalised(channels=False)),
    "group_norm": Rule(_normalised(channels=True)),
    "batch_norm": Rule(_normalised(channels=True)),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], Rule(_convolution)),
    "einsum": Rule(_einsum),
    "prelu": Rule(_prelu),
    "scaled_dot_product_attention": Rule(_attention),
}
