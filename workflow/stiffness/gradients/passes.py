"""Shared forward and backward passes, and the per-example gradients of covered layers.

Parameters are detached for a pass, so that no weight gradient is computed. Where nothing before a
chosen layer requires a gradient, its output is made to depend on a number that does, which is what
makes autograd go back as far as the earliest of them and no farther.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from typing import Any, Protocol

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take
from stiffness.errors import StiffnessError
from stiffness.gradients.families import family_of
from stiffness.gradients.memory import peak_bytes
from stiffness.gradients.multiply import Form, Gradients
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.texts import Trimmed
from stiffness.gradients.uses import Receive, Uses, Watch, marked

# (the layer, its input, the gradient of its output)
Call = tuple[nn.Module, torch.Tensor, torch.Tensor]


@dataclass
class Unit:
    """Layers that own the same parameters: usually one.

    Attributes:
        layers: names of the layers.
        parameters: names of their parameters, weight first.
        broadcast: those of the layers that see one example whatever the number of examples.
        proved: whether the proof of its fast path saw a gradient that is not 0.
        calls: number of calls of all the layers together in a pass.
        form: the form of the gradients.
        pair_cost: multiplications per pair of examples; 0 for embeddings, whose rows hardly meet.
        size: bytes per example of the gradients in that form.
    """

    layers: list[str]
    parameters: list[str]
    broadcast: Collection[str] = ()
    proved: bool = False
    calls: int = 1
    form: Form = "rows"
    pair_cost: int = 0
    size: int = 0


class Source(Protocol):
    """Where the per-example gradients of some units come from.

    Attributes:
        sizes: bytes per example of the gradients, by unit.
    """

    sizes: dict[str, int]

    def working(self, units: list[str]) -> int:
        """Bytes per example that a pass over ``units`` takes at its peak."""

    def visit(
        self, units: list[str], rows: slice, receive: Callable[[str, Gradients], None]
    ) -> None:
        """Give ``receive`` the gradients of the examples in ``rows``, one unit at a time."""


@dataclass
class _Progress:
    """The calls of a unit so far in a pass."""

    parts: list[Gradients] = field(default_factory=list)
    calls: int = 0


class FastPasses:
    """The gradients of units that have a fast path, from shared passes.

    Args:
        peaks: where measured peaks are remembered.
        uses: of parameters that belong to no layer of a family.
        channels_last: see ``capture``.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        output_grads: OutputGrads,
        units: Mapping[str, Unit],
        peaks: dict[tuple[str, ...], int],
        uses: Uses | None = None,
        channels_last: bool = False,
    ) -> None:
        self.channels_last = channels_last
        self.model, self.inputs, self.output_grads = model, inputs, output_grads
        self.uses = uses or Uses()
        self.layers = dict(model.named_modules()) | self.uses.layers
        self.units, self.peaks = units, peaks
        self.sizes = {name: unit.size for name, unit in units.items()}

    def tokens(self, rows: slice) -> int | None:
        """How many a pass over ``rows`` has, where texts have other numbers beside other texts."""
        tensors: Any = self.inputs.values() if isinstance(self.inputs, Mapping) else ()
        trimmed = (tensor for tensor in tensors if isinstance(tensor, Trimmed))
        return next((tensor[rows].shape[1] for tensor in trimmed), None)

    def working(self, units: list[str]) -> int:
        """Bytes per example that a pass over all units takes at its peak."""
        del units  # the passes differ little: activations are most of it
        everything = tuple(self.units)
        if everything not in self.peaks:
            self.peaks[everything] = peak_bytes(
                lambda: self.visit(list(everything), slice(0, 1), lambda *_: None)
            )
        return self.peaks[everything]

    def visit(
        self, units: list[str], rows: slice, receive: Callable[[str, Gradients], None]
    ) -> None:
        """Give ``receive`` the gradients of the examples in ``rows``, one unit at a time."""
        self.visit_part(units, rows, receive)

    def forward(self, rows: slice, part: "Section") -> None:
        """A forward pass of ``part`` of the network."""
        parameters = _detached(self.model, self.channels_last)
        part.run(lambda: call(self.model, take(self.inputs, rows), parameters))

    def visit_part(
        self,
        units: list[str],
        rows: slice,
        receive: Callable[[str, Gradients], None],
        part: "Section | None" = None,
        after: torch.Tensor | None = None,
        leave: Callable[[torch.Tensor], None] | None = None,
    ) -> None:
        """Like ``visit``, of a part of the network that has these units.

        Args:
            after: the gradient of what the part returns; None at the end of the network.
            leave: is given the gradient of what the part is given.
        """
        owner = {layer: unit for unit in units for layer in self.units[unit].layers}
        progress = {unit: _Progress() for unit in units}

        def convert(layer: str, a: torch.Tensor, d: torch.Tensor) -> None:
            name = owner[layer]
            unit, so_far = self.units[name], progress[name]
            so_far.parts.append(gradients_of([(self.layers[layer], a, d)], unit.form))
            so_far.calls += 1
            if so_far.calls == unit.calls:
                gradients = reduce(add, so_far.parts)
                so_far.parts.clear()
                receive(name, gradients)

        capture(
            self.model,
            {layer: self.layers[layer] for layer in owner},
            take(self.inputs, rows),
            lambda outputs: self.output_grads.of(rows, outputs) if after is None else after,
            convert,
            {layer for name in units for layer in self.units[name].broadcast},
            self.uses,
            self.channels_last,
            part,
            leave,
        )
        for name, so_far in progress.items():
            if so_far.calls != self.units[name].calls:
                raise StiffnessError(
                    f"model: {name} is called {self.units[name].calls} times for some examples "
                    f"and {so_far.calls} times for others, which the gradients cannot follow"
                )


def gradients_of(calls: Sequence[Call], form: Form) -> Gradients:
    """The gradients of parameters that were used in these calls, by the layers' families."""
    families = [family_of(layer) for layer, _, _ in calls]
    parts = [one.gradients(*made, form) for one, made in zip(families, calls, strict=True) if one]
    return reduce(add, parts)


class Section(Protocol):
    """A part of a network: what it is given, if it is not the beginning, and how it is run."""

    given: torch.Tensor | None

    def run(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What the part returns; ``forward`` calls the network."""


def _detached(model: nn.Module, channels_last: bool) -> dict[str, torch.Tensor]:
    """The parameters by name, those of two-dimensional convolutions in the wanted order."""
    detached = {name: p.detach() for name, p in model.named_parameters()}
    if channels_last:
        for name, p in detached.items():
            if p.ndim == 4:  # with strides that say so for one channel too
                copy = torch.empty_like(p, memory_format=torch.channels_last)
                detached[name] = copy.copy_(p)
    return detached


class _Anchored(torch.autograd.Function):
    """A tensor, not a copy of it, made to depend on a number that it does not change."""

    @staticmethod
    def forward(ctx: Any, output: torch.Tensor, anchor: torch.Tensor) -> torch.Tensor:
        del anchor
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:
        del ctx
        return None, gradient.new_zeros(())


def capture(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    inputs: Inputs,
    output_grad_of: Callable[[torch.Tensor], torch.Tensor],
    receive: Receive,
    broadcast: Collection[str] = (),
    uses: Uses | None = None,
    channels_last: bool = False,
    part: "Section | None" = None,
    leave: Callable[[torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """Propagate ``output_grad_of(outputs)`` [n, ...] back from the outputs of ``model``.

    ``receive`` is given the calls of ``layers`` whose outputs reach the model's, one by one, the
    last call first. Tensors that it does not keep are freed at once.

    Args:
        broadcast: layers that see one example whatever the number of examples, and whose outputs
            are then broadcast: they are repeated for each example, so that each has its own
            gradient.
        uses: of parameters that belong to no layer of a family. ``layers`` names those of its
            layers whose calls are wanted.
        channels_last: whether the weights of two-dimensional convolutions, and so what they read
            and return, have their channels last in memory, which CPUs like better.
        part: of the model, which is run in its place.
        leave: is given the gradient of what the part is given.

    Returns:
        The outputs.
    """
    count = length(inputs)
    anchors: list[torch.Tensor] = []
    detached = _detached(model, channels_last)
    watch: Watch | None = None

    def attach(
        output: torch.Tensor, gives: Sequence[Callable[[torch.Tensor], None]]
    ) -> torch.Tensor:
        """Have the gradient of ``output`` computed and given to all of ``gives``."""
        if output._is_view():  # its hooks would be lost where it is changed in place
            about = vars(output)
            output = torch.ops.aten._unsafe_view.default(output, output.shape)
            vars(output).update(about)
        if not output.requires_grad:
            anchors.append(output.new_zeros((), requires_grad=True))
            output = _Anchored.apply(output, anchors[-1])
        waiting = list(gives)

        def hook(gradient: torch.Tensor) -> None:
            while waiting:  # what they hold is freed
                waiting.pop(0)(gradient)

        output.register_hook(hook)
        return output

    if uses and not uses.layers.keys().isdisjoint(layers):
        watch = Watch(uses, detached, layers.keys(), count, anchors.append, attach, receive)
        inputs = marked(inputs)

    def hook_of(name: str) -> Callable[..., Any]:
        def hook(
            _: nn.Module,
            args: tuple[torch.Tensor, ...],
            keywords: dict[str, torch.Tensor],
            output: torch.Tensor,
        ) -> torch.Tensor:
            given = (args[0] if args else next(iter(keywords.values()))).detach()
            if not torch.is_grad_enabled():
                return output
            if name in broadcast:
                given = given.expand(count, *given.shape[1:])
                output = (
                    watch.spread(output)
                    if watch
                    else output.expand(given.shape[:1] + output.shape[1:])
                )
            return attach(output, [lambda gradient: receive(name, given, gradient)])

        return hook

    handles = [
        layer.register_forward_hook(hook_of(name), with_kwargs=True)
        for name, layer in layers.items()
        if not (uses and name in uses.layers)
    ]
    try:
        with torch.enable_grad():
            if part and part.given is not None and leave:
                part.given = attach(part.given, [leave])
            with watch or nullcontext():
                if part:
                    outputs = part.run(lambda: call(model, inputs, detached))
                else:
                    outputs = call(model, inputs, detached)
            output_grad = output_grad_of(outputs.detach())
            if outputs.requires_grad:
                torch.autograd.grad(outputs, anchors, output_grad, allow_unused=True)
            if watch:
                watch.finish()
    finally:
        for handle in handles:
            handle.remove()
    return outputs.detach()
