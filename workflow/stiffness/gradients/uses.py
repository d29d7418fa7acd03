"""Fast paths for parameters that no layer of a known family owns, found operator by operator.

A class token, a table of positions, the scale of a network's own normalisation, the packed weights
of attention, or a table that is also the weight of the output layer are used by operators inside
some module. Operators are watched in two ways:

* before the proof, two forward passes over two and over three copies of one example. The axis along
  which a tensor grows is the axis of the examples. An operator without such a tensor computes an
  ``Expression`` of the parameters, which all examples share. An operator that joins an expression
  with a tensor of the examples is a use;
* in a pass, where a use is given what makes every example's gradient. A product with a matrix has
  inputs and output gradients, as ``nn.Linear`` has. Elsewhere every example is given a copy of the
  expression, whose gradient is the example's own; it goes back through the expression to the
  parameters.

Whether the gradients are right is proved against autograd, as for all layers (``cover``). Which
operators may join is the table at the end; any other operator leaves its parameters without a fast
path.
"""

import types
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn import grad
from torch.overrides import TorchFunctionMode

from stiffness.data.batch import Inputs, call, take
from stiffness.errors import StiffnessError, out_of_memory
from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Form, Gradients, Rows

_TAG = "_stiffness_tag"
# Their other tensors say only what type or shape is wanted.
_DESCRIBED = {"to", "type_as", "view_as", "reshape_as"}
_SPREADING = {"expand", "expand_as", "broadcast_to", "repeat", "tile"}

# (name of the layer, its input, the gradient of its output)
Receive = Callable[[str, torch.Tensor, torch.Tensor], None]


class Copied(nn.Module):
    """Stands for a parameter whose per-example gradients are given as they are."""


@family(Copied)
def copied(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """The gradient of every example's copy is the example's gradient."""
    del layer, a, form
    return Rows(d.flatten(1))


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
class _Tag:
    expression: Expression | None = None
    of_examples: bool = False  # computed from the inputs
    place: Place | None = None  # found by the growth of the tensor


@dataclass
class Uses:
    """How some parameters are used.

    Attributes:
        joins: what becomes of an operator with an expression among its arguments, by a signature
            of both; None where the result is an expression too.
        layers: a layer of a known family for every kind of use of a parameter, by a name.
        names: the parameters, with the names of their layers.
    """

    joins: dict[Any, Join | None] = field(default_factory=dict)
    layers: dict[str, nn.Module] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)


class Unable(StiffnessError):
    """An operator uses the parameters ``names`` in a way that its rule does not cover."""

    def __init__(self, operator: str, names: Collection[str]) -> None:
        super().__init__(
            f"model: it uses {', '.join(sorted(names))} ({operator}) in other ways for some "
            "examples than for others, which the gradients cannot follow"
        )
        self.names = set(names)


class _NoRule(Exception):
    """Raised by a rule for what it does not cover."""


def find_uses(model: nn.Module, inputs: Inputs, parameters: Collection[str]) -> Uses:
    """The uses of those of ``parameters`` that operators with a rule use, and no others.

    Two forward passes over copies of the first example.
    """
    named = dict(model.named_parameters())
    detached = {name: p.detach() for name, p in named.items()}
    try:
        few = _Shapes()
        few.run(model, inputs, detached)
        recorder = _Recorder(few.shapes, parameters)
        recorder.run(model, inputs, detached)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        if out_of_memory(error):
            raise
        return Uses()
    uses = Uses(recorder.joins)
    for name, kinds in recorder.kinds.items():
        if name in recorder.failed:
            continue
        shape = named[name].shape
        for kind in ["copied"] if "copied" in kinds else sorted(kinds):
            layer = f"{name} ({kind})"
            uses.layers[layer] = _stand_in(kind, shape)
            uses.names.setdefault(name, []).append(layer)
    return uses


def _stand_in(kind: str, shape: torch.Size) -> nn.Module:
    """A layer without memory whose family makes the gradients of a use."""
    if kind == "linear":
        return nn.Linear(shape[1], shape[0], bias=False, device="meta")
    if kind == "embedding":
        return nn.Embedding(shape[0], shape[1], device="meta")
    return Copied()


class _Mode(TorchFunctionMode):
    """Sees every operator; those inside ``nn.MultiheadAttention`` too."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.multi_head_attention_forward:
            with self:
                return _ATTENTION(*args, **(kwargs or {}))
        return self.called(function, args, kwargs or {})

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        raise NotImplementedError


# The same code, which does not hand itself over to a mode first.
_ATTENTION = types.FunctionType(
    F.multi_head_attention_forward.__code__,
    {**F.multi_head_attention_forward.__globals__, "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)


class _Shapes(_Mode):
    """Lists the shapes of the tensors that operators return, for ``copies`` of one example."""

    copies = 2

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[list[torch.Size]] = []

    def run(self, model: nn.Module, inputs: Inputs, parameters: dict[str, torch.Tensor]) -> None:
        # Without a graph, since nothing requires a gradient, but as in a pass with gradients.
        same = marked(take(inputs, torch.zeros(self.copies, dtype=torch.long)), Place(0))
        with torch.enable_grad(), self:
            call(model, same, parameters)

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        self.shapes.append([tensor.shape for tensor in _tensors((result,))])
        return result


class _Recorder(_Shapes):
    """Finds where expressions meet examples, and whether there is a rule for it."""

    copies = 3

    def __init__(self, fewer: list[list[torch.Size]], parameters: Collection[str]) -> None:
        super().__init__()
        self.fewer, self.parameters = fewer, parameters
        self.joins: dict[Any, Join | None] = {}
        self.kinds: dict[str, set[str]] = {}
        self.failed: set[str] = set()

    def run(self, model: nn.Module, inputs: Inputs, parameters: dict[str, torch.Tensor]) -> None:
        for name in self.parameters:
            _set(parameters[name], _Tag(Expression((name,), parameters[name], "same")))
        super().run(model, inputs, parameters)

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        tensors = list(_tensors((*args, *kwargs.values())))
        tags = [_tag(tensor) for tensor in tensors]  # before: the result may be one of them
        result = function(*args, **kwargs)
        results = list(_tensors((result,)))
        at = len(self.shapes)
        self.shapes.append([tensor.shape for tensor in results])
        places = [
            _grown(fewer, tensor.shape, 2, 3)
            for fewer, tensor in zip(self.fewer[at], results, strict=True)
        ]
        of_examples = any(tag.of_examples for tag in tags)
        expressions = [tag.expression for tag in tags if tag.expression]
        grown = any(places) or (any(tag.place for tag in tags))
        if expressions and torch.is_grad_enabled():
            name = _name(function)
            if name in _DESCRIBED:
                grown = any(places)
                expressions = [] if grown else expressions[:1]
            if expressions and grown and (results or name == "__setitem__"):
                self._join(function, args, kwargs, tensors, tags, results, places)
                expressions = []
            elif expressions:
                self._note(_signature(function, tensors, tags), None, _names(expressions))
        for tensor, place in zip(results, places, strict=True):
            found = None
            if expressions and torch.is_grad_enabled() and tensor.is_floating_point():
                found = _derived(expressions, tensor)
            _set(tensor, _Tag(found, of_examples, place))
        return result

    def _join(
        self,
        function: Any,
        args: Any,
        kwargs: Any,
        tensors: Any,
        tags: Any,
        results: Any,
        places: Any,
    ) -> None:
        names = _names([tag.expression for tag in tags if tag.expression])
        rule = _RULES.get(_name(function))
        candidates = [
            (tensor.ndim, -i) for i, tensor in enumerate(tensors) if tags[i].place is not None
        ]
        join = None
        if candidates:
            at = -max(candidates)[1]
            place = _ordered(tensors[at], tags[at].place, self.copies)
            join = Join(at, place) if place else None
        elif places[0] is not None and _name(function) in _SPREADING:
            place = _ordered(results[0], places[0], self.copies)
            join = Join(None, place) if place else None
        if rule is None or join is None:
            self.failed |= names
            return
        self._note(_signature(function, tensors, tags), join, names)
        kinds = rule.kinds(function, args, kwargs)
        for name in names:
            self.kinds.setdefault(name, set()).add(kinds.get(name, "copied"))

    def _note(self, signature: Any, join: Join | None, names: set[str]) -> None:
        if self.joins.setdefault(signature, join) != join:
            self.failed |= names


def _grown(fewer: torch.Size, more: torch.Size, few: int, many: int) -> Place | None:
    """The axis along which a tensor grows with the number of examples."""
    if fewer == more:
        return None
    if len(fewer) != len(more):
        return Place(-1)  # nothing that is understood
    axes = [axis for axis in range(len(more)) if fewer[axis] != more[axis]]
    good = len(axes) == 1 and fewer[axes[0]] * many == more[axes[0]] * few
    return Place(axes[0] if good else -1)


def _ordered(tensor: torch.Tensor, place: Place, copies: int) -> Place | None:
    """Whether the entries of one example are neighbours, told by copies that are all alike."""
    if place.axis < 0:
        return None
    per_example = tensor.shape[place.axis] // copies
    if per_example == 1:
        return place

    def unlike(sizes: tuple[int, int], axis: int) -> float:
        apart = tensor.detach().unflatten(place.axis, sizes).movedim(place.axis + axis, 0).double()
        return float((apart[1:] - apart[:1]).abs().nan_to_num().max())

    outer = unlike((copies, per_example), 0)
    return place._replace(inner=unlike((per_example, copies), 1) < outer)


class Watch(_Mode):
    """A forward pass in which the uses of ``wanted`` layers are given what makes their gradients.

    Args:
        parameters: the tensors that the pass uses, by name.
        count: the number of examples.
        anchor: given a tensor that is to require a gradient.
        attach: given an output and a function to be called with its gradient; returns the output.
        receive: given the calls of the layers of ``uses``.
    """

    def __init__(
        self,
        uses: Uses,
        parameters: Mapping[str, torch.Tensor],
        wanted: Collection[str],
        count: int,
        anchor: Callable[[torch.Tensor], None],
        attach: Callable[..., torch.Tensor],
        receive: Receive,
    ) -> None:
        super().__init__()
        self.uses, self.count = uses, count
        self.anchor, self.attach, self.receive = anchor, attach, receive
        self.leaves: dict[str, torch.Tensor] = {}
        self.wanted = {n for n, layers in uses.names.items() if set(wanted) & set(layers)}
        self.copied = [name for name in self.wanted if f"{name} (copied)" in uses.layers]
        self.sums: dict[str, torch.Tensor] = {}
        self.pending = dict.fromkeys(self.copied, 0)
        for name in uses.names:
            leaf = parameters[name].detach().requires_grad_()
            self.leaves[name] = leaf
            _set(parameters[name], _Tag(Expression((name,), leaf, "same")))

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        tensors = list(_tensors((*args, *kwargs.values())))
        tags = [_tag(tensor) for tensor in tensors]
        of_examples = any(tag.of_examples for tag in tags)
        expressions = [tag.expression for tag in tags if tag.expression]
        join = None
        if expressions and torch.is_grad_enabled():
            name = _name(function)
            signature = _signature(function, tensors, tags)
            if name in _DESCRIBED and tags[0].expression is None:
                expressions = []
            elif name in _DESCRIBED:
                of_examples = False
            elif signature in self.uses.joins:
                join = self.uses.joins[signature]
            else:
                join = self._unforeseen(name, tensors, tags)
        if join is not None:
            at = None if join.argument is None else tensors[join.argument]
            try:
                result = _RULES[name](self, function, args, kwargs, at, join.place)
            except _NoRule:
                raise Unable(name, _names(expressions)) from None
            of_examples = True
        elif expressions and torch.is_grad_enabled() and not of_examples:
            return self._express(function, args, kwargs, expressions)
        else:
            result = function(*args, **kwargs)
        if of_examples:
            for tensor in _tensors((result,)):
                _set(tensor, _Tag(of_examples=True))
        return result

    def finish(self) -> None:
        """After the backward pass: give what no gradient has reached."""
        for name in list(self.pending):
            self._give_sum(name)

    def _unforeseen(self, name: str, tensors: Any, tags: Any) -> Join | None:
        """What other examples do otherwise, such as adding a mask that some texts need."""
        others = [i for i, tag in enumerate(tags) if tag.of_examples]
        if not others and name not in _SPREADING:
            return None
        at = max(others, key=lambda i: tensors[i].ndim, default=0)
        clear = [axis for axis, size in enumerate(tensors[at].shape) if size == self.count]
        if others and name in _RULES and (clear == [0] or self.count == 1):
            return Join(at, Place(0))
        raise Unable(name, _names([tag.expression for tag in tags if tag.expression]))

    def _express(self, function: Any, args: Any, kwargs: Any, expressions: Any) -> Any:
        values = _mapped((args, kwargs), lambda t: e.value if (e := _tag(t).expression) else t)
        with torch.enable_grad():
            result = function(*values[0], **values[1])

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            outside = tensor.detach()
            if tensor.requires_grad:
                _set(outside, _Tag(_derived(expressions, tensor)))
            return outside

        return _mapped(result, cut)

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of one example, repeated for all."""
        with torch._C.DisableTorchFunction():
            shape = (self.count, *tensor.shape[1:])
            if self.wants(tensor):
                tensor = _spread(self, torch.Tensor.expand, (tensor, shape), {}, None, Place(0))
            else:
                tensor = tensor.expand(shape)
        _set(tensor, _Tag(of_examples=True))
        return tensor

    # --- what rules are made of ---

    def wants(self, tensor: Any) -> Expression | None:
        """The expression that a tensor is, if the gradients of its parameters are wanted."""
        expression = _tag(tensor).expression if isinstance(tensor, torch.Tensor) else None
        return expression if expression and not self.wanted.isdisjoint(expression.names) else None

    def copies(self, expression: Expression, rank: int, axis: int, size: int, inner: bool) -> Any:
        """A copy of the expression for each example, laid out to be broadcast.

        Args:
            rank: of the tensor that it is broadcast with.
            axis: where that has its examples.
            size: of that axis.
        """
        value = expression.value.detach().requires_grad_()
        shape = (*[1] * (rank - value.ndim), *value.shape)
        if len(shape) != rank or shape[axis] != 1 or size % self.count:
            raise _NoRule
        self.anchor(value)
        copies = value.reshape(shape).expand(self.count, *shape)
        self._expect(expression)
        copies.register_hook(
            lambda gradient: self._give(expression, gradient.reshape(-1, *value.shape))
        )
        laid = copies.squeeze(axis + 1)
        repeats = size // self.count
        if repeats > 1:
            laid = laid.unsqueeze(0 if inner else 1)
            both = (repeats, self.count) if inner else (self.count, repeats)
            laid = laid.expand(*both, *laid.shape[2:]).flatten(0, 1)
        return laid.movedim(0, axis)

    def by_example(self, tensor: torch.Tensor, place: Place) -> torch.Tensor:
        """[n, ...]: with the examples first, and what shares their axis next."""
        first = tensor.movedim(place.axis, 0)
        if len(first) == self.count:
            return first
        if place.inner:
            return first.unflatten(0, (-1, self.count)).transpose(0, 1)
        return first.unflatten(0, (self.count, -1))

    def weight(self, tensor: Any, x: torch.Tensor, place: Place) -> Callable[..., None] | None:
        """What to do with the output gradient of x W^T, for W = ``tensor``."""
        expression = self.wants(tensor)
        if expression is None:
            return None
        x = x.detach()
        (name, *_) = expression.names
        layer = f"{name} (linear)"
        as_layer = expression.layout != "other" and layer in self.uses.layers
        if not as_layer:
            self._expect(expression)

        def give(gradient: torch.Tensor) -> None:
            a = self.by_example(x, place)
            d = self.by_example(gradient, place)
            a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
            if not as_layer:
                self._give(expression, d.transpose(1, 2) @ a)
            elif expression.layout == "same":
                self.receive(layer, a, d)
            else:
                self.receive(layer, d, a)

        return give

    def bias(self, tensor: Any, place: Place) -> Callable[..., None] | None:
        """What to do with the output gradient of a bias of the last axis."""
        expression = self.wants(tensor)
        if expression is None:
            return None
        self._expect(expression)

        def give(gradient: torch.Tensor) -> None:
            d = self.by_example(gradient, place)
            self._give(expression, d.reshape(len(d), -1, d.shape[-1]).sum(1))

        return give

    def _expect(self, expression: Expression) -> None:
        for name in expression.names:
            if name in self.pending:
                self.pending[name] += 1

    def _give(self, expression: Expression, gradient: torch.Tensor) -> None:
        """Add the gradients [n, ...] of every example's copy of an expression to its sums."""
        names = [name for name in expression.names if name in self.pending]
        if expression.layout == "same":
            gradients: Any = [gradient]
        elif expression.layout == "transposed":
            gradients = [gradient.transpose(1, 2)]
        else:
            gradients = torch.autograd.grad(
                expression.value,
                [self.leaves[name] for name in names],
                gradient,
                is_grads_batched=True,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        for name, part in zip(names, gradients, strict=True):
            rows = part.reshape(len(part), -1)
            self.sums[name] = self.sums[name] + rows if name in self.sums else rows
            self.pending[name] -= 1
            if self.pending[name] == 0:
                self._give_sum(name)

    def _give_sum(self, name: str) -> None:
        del self.pending[name]
        rows = self.sums.pop(name, None)
        if rows is None:
            rows = self.leaves[name].new_zeros(self.count, self.leaves[name].numel())
        self.receive(f"{name} (copied)", rows.new_empty(self.count, 0), rows)


# --- tensors, their tags, and signatures ---


def marked(inputs: Inputs, place: Place | None = None) -> Inputs:
    """The same inputs as tensors of their own, known to be of the examples."""

    def mark(tensor: torch.Tensor) -> torch.Tensor:
        alias = tensor.view_as(tensor)
        _set(alias, _Tag(of_examples=True, place=place))
        return alias

    if isinstance(inputs, torch.Tensor):
        return mark(inputs)
    return {name: mark(tensor) for name, tensor in inputs.items()}


_NO_TAG = _Tag()


def _tag(tensor: torch.Tensor) -> _Tag:
    return getattr(tensor, "__dict__", {}).get(_TAG, _NO_TAG)


def _set(tensor: torch.Tensor, tag: _Tag) -> None:
    tensor.__dict__[_TAG] = tag


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, (tuple, list)):
            yield from _tensors(value)


def _mapped(value: Any, function: Callable[[torch.Tensor], Any]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    if isinstance(value, dict):
        return {key: _mapped(part, function) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not isinstance(value, torch.Size):
        return type(value)(_mapped(part, function) for part in value)
    return value


def _names(expressions: Any) -> set[str]:
    return {name for expression in expressions for name in expression.names}


def _name(function: Any) -> str:
    return getattr(function, "__name__", "")


def _signature(function: Any, tensors: list[torch.Tensor], tags: list[_Tag]) -> Any:
    """What tells the uses of a network apart, whatever the number of examples or their lengths."""
    return (
        _name(function),
        *(
            (tag.expression.names, tensor.ndim)
            if tag.expression
            else (tag.of_examples, tensor.ndim)
            for tensor, tag in zip(tensors, tags, strict=True)
        ),
    )


def _derived(expressions: Any, value: torch.Tensor) -> Expression:
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


# --- the operators that may join expressions with examples ---

Kinds = Callable[[Any, Any, Any], dict[str, str]]


class _Rule(NamedTuple):
    """How an operator is called in a pass, and as which kinds of layers it uses parameters."""

    apply: Callable[..., Any]
    kinds: Kinds = lambda *_: {}

    def __call__(self, *arguments: Any) -> Any:
        return self.apply(*arguments)


def _matrix(tensor: Any, kind: str) -> dict[str, str]:
    """The kind of a use of ``tensor``, where that is a parameter itself."""
    expression = _tag(tensor).expression if isinstance(tensor, torch.Tensor) else None
    if expression is None or tensor.ndim != 2:
        return {}
    fits = expression.layout == "same" or (kind == "linear" and expression.layout == "transposed")
    return dict.fromkeys(expression.names, kind) if fits else {}


def _elementwise(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    rank = max(tensor.ndim for tensor in _tensors((*args, *kwargs.values())))
    axis = place.axis + rank - at.ndim
    size = at.shape[place.axis]

    def copy(tensor: torch.Tensor) -> Any:
        expression = watch.wants(tensor)
        return watch.copies(expression, rank, axis, size, place.inner) if expression else tensor

    args, kwargs = _mapped((args, kwargs), copy)
    return function(*args, **kwargs)


def _spread(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor | None, place: Place
) -> Any:
    result = function(*args, **kwargs)
    expression = watch.wants(args[0])
    if expression is None:
        return result
    size = result.shape[place.axis]
    copies = watch.copies(expression, result.ndim, place.axis, size, place.inner)
    return copies.expand(result.shape)


def _attached(watch: Watch, output: torch.Tensor, *gives: Callable[..., None] | None) -> Any:
    wanted = [give for give in gives if give]
    return watch.attach(output, wanted) if wanted else output


def _linear(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    bound = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    x, bias = bound["input"], bound.get("bias")
    if at is not x or place.axis == x.ndim - 1:
        raise _NoRule
    output = function(*args, **kwargs)
    return _attached(
        watch, output, watch.weight(bound["weight"], x, place), watch.bias(bias, place)
    )


def _linear_kinds(function: Any, args: Any, kwargs: Any) -> dict[str, str]:
    return _matrix(kwargs.get("weight", args[1] if len(args) > 1 else None), "linear")


def _matmul(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    left, right = (*args, *kwargs.values())[:2]
    if _name(function) == "__rmatmul__":
        left, right = right, left
    if at is left and right.ndim == 2 and place.axis < left.ndim - 1:
        return _attached(watch, left @ right, watch.weight(_turned(right), left, place))
    if at is left and right.ndim == 1 and place.axis < left.ndim - 1:
        return _elementwise(watch, torch.mul, (left, right), {}, left, place).sum(-1)
    if min(left.ndim, right.ndim) < 2 or place.axis >= at.ndim - 2:
        raise _NoRule
    return _elementwise(watch, torch.matmul, (left, right), {}, at, place)


def _matmul_kinds(function: Any, args: Any, kwargs: Any) -> dict[str, str]:
    left, right = (*args, *kwargs.values())[:2]
    if _name(function) == "__rmatmul__":
        left, right = right, left
    return _matrix(right, "linear") if left.ndim >= 2 else {}


def _addmm(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    if kwargs or len(args) != 3 or at is not args[1] or place.axis != 0:
        raise _NoRule
    bias, x, weight = args
    output = function(*args)
    return _attached(
        watch, output, watch.weight(_turned(weight), x, place), watch.bias(bias, place)
    )


def _turned(tensor: torch.Tensor) -> torch.Tensor:
    """The transpose of a matrix, known as an expression where the matrix is one."""
    turned = tensor.detach().T
    expression = _tag(tensor).expression
    if expression:
        with torch.enable_grad():
            _set(turned, _Tag(_derived([expression], expression.value.T)))
    return turned


def _embedding(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    bound = dict(zip(("input", "weight", "padding_idx"), args, strict=False)) | kwargs
    index, table, padding = bound["input"], bound["weight"], bound.get("padding_idx")
    if at is not index:
        raise _NoRule
    return _looked_up(watch, function(*args, **kwargs), index, table, padding, place)


def _item(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    table, index = args
    if at is not index or index.is_floating_point() or index.dtype == torch.bool:
        raise _NoRule
    return _looked_up(watch, function(table, index), index, table, None, place)


def _looked_up(
    watch: Watch,
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
        watch._expect(expression)

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
            watch._give(expression, dense.reshape(watch.count, *table.shape))

    return watch.attach(output, [give])


def _normalised(channels: bool) -> Callable[..., Any]:
    """A normalisation without its scale and shift, then the scale, then the shift."""

    def apply(
        watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
    ) -> Any:
        given = dict(zip(_ARGUMENTS[_name(function)], args, strict=False)) | kwargs
        weight, bias = given.pop("weight", None), given.pop("bias", None)
        if at is not given["input"]:
            raise _NoRule
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
    expression = _tag(tensor).expression
    if expression is None:
        return tensor.reshape(shape)
    with torch.enable_grad():
        value = expression.value.reshape(shape)
    result = value.detach()
    _set(result, _Tag(Expression(expression.names, value, "other")))
    return result


def _prelu(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    x, slope = (*args, *kwargs.values())[:2]
    if at is not x:
        raise _NoRule
    if x.ndim > 1:
        slope = _reshaped(slope, (-1, *[1] * (x.ndim - 2)))
    negative = _elementwise(watch, torch.mul, (x.clamp_max(0), slope), {}, x, place)
    return x.clamp_min(0) + negative


def _attention(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """A bias that is added to the scores."""
    if any(watch.wants(tensor) for tensor in args[:3]):
        raise _NoRule
    return _elementwise(watch, function, args, kwargs, at, place)


def _einsum(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """The copies have the letter of the examples in front."""
    equation, *operands = args
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if not arrow or "." in equation or len(terms) != len(operands):
        raise _NoRule
    letter = next(term[place.axis] for term, one in zip(terms, operands, strict=True) if one is at)
    for i, operand in enumerate(operands):
        expression = watch.wants(operand)
        if expression:
            size, rank = at.shape[place.axis], operand.ndim + 1
            operands[i] = watch.copies(expression, rank, 0, size, place.inner)
            terms[i] = letter + terms[i]
    return function(",".join(terms) + "->" + output, *operands)


def _convolution(
    watch: Watch, function: Any, args: Any, kwargs: Any, at: torch.Tensor, place: Place
) -> Any:
    """A convolution whose kernel is computed, or trained without its bias."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    given = dict(zip(names, args, strict=False)) | kwargs
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if at is not x or place.axis != 0 or len(x) != watch.count:
        raise _NoRule
    output = function(*args, **kwargs)
    groups, held = given.get("groups", 1), x.detach()
    kernel, shift = watch.wants(weight), watch.wants(bias)
    stride, dilation = given.get("stride", 1), given.get("dilation", 1)
    padding = given.get("padding", 0)
    if kernel and isinstance(padding, str):
        steps = dilation if isinstance(dilation, tuple) else (dilation,) * (weight.ndim - 2)
        sizes = [step * (k - 1) for step, k in zip(steps, weight.shape[2:], strict=True)]
        if padding == "same" and any(size % 2 for size in sizes):
            raise _NoRule
        padding = [size // 2 if padding == "same" else 0 for size in sizes]
    for expression in (kernel, shift):
        if expression:
            watch._expect(expression)

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
            watch._give(kernel, rows.reshape(n, q, *rest))
        if shift:
            watch._give(shift, gradient.flatten(2).sum(2))

    return _attached(watch, output, give if kernel or shift else None)


_KERNEL_GRADIENT = {1: grad.conv1d_weight, 2: grad.conv2d_weight, 3: grad.conv3d_weight}

_RULES: dict[str, _Rule] = {
    **dict.fromkeys(
        [
            *("add", "__add__", "__radd__", "__iadd__", "add_", "sub", "__sub__", "__rsub__"),
            *("rsub", "__isub__", "sub_", "subtract", "mul", "__mul__", "__rmul__", "__imul__"),
            *("mul_", "multiply", "div", "__truediv__", "__rtruediv__", "true_divide", "__rdiv__"),
            *("__div__", "div_", "__idiv__", "__itruediv__", "pow", "__pow__", "where", "maximum"),
            *("minimum", "addcmul", "lerp", "masked_fill"),
        ],
        _Rule(_elementwise),
    ),
    **dict.fromkeys(_SPREADING, _Rule(_spread)),
    **dict.fromkeys(["matmul", "__matmul__", "__rmatmul__", "mm"], _Rule(_matmul, _matmul_kinds)),
    "linear": _Rule(_linear, _linear_kinds),
    "addmm": _Rule(_addmm, lambda _, args, kwargs: _matrix(args[2], "linear")),
    "embedding": _Rule(
        _embedding,
        lambda _, args, kwargs: _matrix(
            kwargs.get("weight", args[-1] if len(args) < 2 else args[1]), "embedding"
        ),
    ),
    "__getitem__": _Rule(_item, lambda _, args, kwargs: _matrix(args[0], "embedding")),
    "layer_norm": _Rule(_normalised(channels=False)),
    "rms_norm": _Rule(_normalised(channels=False)),
    "group_norm": _Rule(_normalised(channels=True)),
    "batch_norm": _Rule(_normalised(channels=True)),
    **dict.fromkeys(["conv1d", "conv2d", "conv3d"], _Rule(_convolution)),
    "einsum": _Rule(_einsum),
    "prelu": _Rule(_prelu),
    "scaled_dot_product_attention": _Rule(_attention),
}
