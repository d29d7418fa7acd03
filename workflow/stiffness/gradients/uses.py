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
operators may join is the table in ``operators.py``; any other operator leaves its parameters
without a fast path.
"""

import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from stiffness.data.batch import Inputs, call, take
from stiffness.errors import StiffnessError, out_of_memory
from stiffness.gradients.expressions import (
    Expression,
    Join,
    NoRule,
    Place,
    Tag,
    derived,
    mapped,
    marked,
    names_of,
    operator_name,
    set_tag,
    signature_of,
    tag_of,
    tensors_in,
)
from stiffness.gradients.families.registry import family
from stiffness.gradients.multiply import Form, Gradients, Rows
from stiffness.gradients.operators import RULES, SPREADING, spread_copies

# Their other tensors say only what type or shape is wanted.
_DESCRIBED = {"to", "type_as", "view_as", "reshape_as"}

# (name of the layer, its input, the gradient of its output)
Receive = Callable[[str, torch.Tensor, torch.Tensor], None]


class Copied(nn.Module):
    """Stands for a parameter whose per-example gradients are given as they are."""


@family(Copied)
def copied(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Gradients:
    """The gradient of every example's copy is the example's gradient."""
    del layer, a, form
    return Rows(d.flatten(1))


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
        self.shapes.append([tensor.shape for tensor in tensors_in((result,))])
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
            set_tag(parameters[name], Tag(Expression((name,), parameters[name], "same")))
        super().run(model, inputs, parameters)

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        tensors = list(tensors_in((*args, *kwargs.values())))
        tags = [tag_of(tensor) for tensor in tensors]  # before: the result may be one of them
        result = function(*args, **kwargs)
        results = list(tensors_in((result,)))
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
            name = operator_name(function)
            if name in _DESCRIBED:
                grown = any(places)
                expressions = [] if grown else expressions[:1]
            if expressions and grown and (results or name == "__setitem__"):
                self._join(function, args, kwargs, tensors, tags, results, places)
                expressions = []
            elif expressions:
                self._note(signature_of(function, tensors, tags), None, names_of(expressions))
        for tensor, place in zip(results, places, strict=True):
            found = None
            if expressions and torch.is_grad_enabled() and tensor.is_floating_point():
                found = derived(expressions, tensor)
            set_tag(tensor, Tag(found, of_examples, place))
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
        names = names_of([tag.expression for tag in tags if tag.expression])
        rule = RULES.get(operator_name(function))
        candidates = [
            (tensor.ndim, -i) for i, tensor in enumerate(tensors) if tags[i].place is not None
        ]
        join = None
        if candidates:
            at = -max(candidates)[1]
            place = _ordered(tensors[at], tags[at].place, self.copies)
            join = Join(at, place) if place else None
        elif places[0] is not None and operator_name(function) in SPREADING:
            place = _ordered(results[0], places[0], self.copies)
            join = Join(None, place) if place else None
        if rule is None or join is None:
            self.failed |= names
            return
        self._note(signature_of(function, tensors, tags), join, names)
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
            set_tag(parameters[name], Tag(Expression((name,), leaf, "same")))

    def called(self, function: Any, args: Any, kwargs: Any) -> Any:
        tensors = list(tensors_in((*args, *kwargs.values())))
        tags = [tag_of(tensor) for tensor in tensors]
        of_examples = any(tag.of_examples for tag in tags)
        expressions = [tag.expression for tag in tags if tag.expression]
        join = None
        if expressions and torch.is_grad_enabled():
            name = operator_name(function)
            signature = signature_of(function, tensors, tags)
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
                result = RULES[name](self, function, args, kwargs, at, join.place)
            except NoRule:
                raise Unable(name, names_of(expressions)) from None
            of_examples = True
        elif expressions and torch.is_grad_enabled() and not of_examples:
            return self._express(function, args, kwargs, expressions)
        else:
            result = function(*args, **kwargs)
        if of_examples:
            for tensor in tensors_in((result,)):
                set_tag(tensor, Tag(of_examples=True))
        return result

    def finish(self) -> None:
        """After the backward pass: give what no gradient has reached."""
        for name in list(self.pending):
            self._give_sum(name)

    def _unforeseen(self, name: str, tensors: Any, tags: Any) -> Join | None:
        """What other examples do otherwise, such as adding a mask that some texts need."""
        others = [i for i, tag in enumerate(tags) if tag.of_examples]
        if not others and name not in SPREADING:
            return None
        at = max(others, key=lambda i: tensors[i].ndim, default=0)
        clear = [axis for axis, size in enumerate(tensors[at].shape) if size == self.count]
        if others and name in RULES and (clear == [0] or self.count == 1):
            return Join(at, Place(0))
        raise Unable(name, names_of([tag.expression for tag in tags if tag.expression]))

    def _express(self, function: Any, args: Any, kwargs: Any, expressions: Any) -> Any:
        values = mapped((args, kwargs), lambda t: e.value if (e := tag_of(t).expression) else t)
        with torch.enable_grad():
            result = function(*values[0], **values[1])

        def cut(tensor: torch.Tensor) -> torch.Tensor:
            outside = tensor.detach()
            if tensor.requires_grad:
                set_tag(outside, Tag(derived(expressions, tensor)))
            return outside

        return mapped(result, cut)

    def spread(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of one example, repeated for all."""
        with torch._C.DisableTorchFunction():
            shape = (self.count, *tensor.shape[1:])
            if self.wants(tensor):
                tensor = spread_copies(
                    self, torch.Tensor.expand, (tensor, shape), {}, None, Place(0)
                )
            else:
                tensor = tensor.expand(shape)
        set_tag(tensor, Tag(of_examples=True))
        return tensor

    # --- what rules are made of ---

    def wants(self, tensor: Any) -> Expression | None:
        """The expression that a tensor is, if the gradients of its parameters are wanted."""
        expression = tag_of(tensor).expression if isinstance(tensor, torch.Tensor) else None
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
            raise NoRule
        self.anchor(value)
        copies = value.reshape(shape).expand(self.count, *shape)
        self.expect(expression)
        copies.register_hook(
            lambda gradient: self.give(expression, gradient.reshape(-1, *value.shape))
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
            self.expect(expression)

        def give(gradient: torch.Tensor) -> None:
            a = self.by_example(x, place)
            d = self.by_example(gradient, place)
            a, d = a.reshape(len(a), -1, a.shape[-1]), d.reshape(len(d), -1, d.shape[-1])
            if not as_layer:
                self.give(expression, d.transpose(1, 2) @ a)
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
        self.expect(expression)

        def give(gradient: torch.Tensor) -> None:
            d = self.by_example(gradient, place)
            self.give(expression, d.reshape(len(d), -1, d.shape[-1]).sum(1))

        return give

    def expect(self, expression: Expression) -> None:
        for name in expression.names:
            if name in self.pending:
                self.pending[name] += 1

    def give(self, expression: Expression, gradient: torch.Tensor) -> None:
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
