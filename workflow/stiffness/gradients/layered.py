"""Per-example gradients of all layers that a family covers, from shared passes.

Whether a layer is covered is not guessed from its type alone: what the family makes of an example
among others must equal the gradient that autograd finds for it alone.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take
from stiffness.errors import StiffnessError
from stiffness.gradients.capture import capture
from stiffness.gradients.kept import Factors, Form, Kept, Rows, Tokens
from stiffness.gradients.layers import family_of
from stiffness.gradients.memory import peak_bytes
from stiffness.gradients.seeds import Seeds

_PROBE = 2  # examples of the pass that is compared with autograd
# What the elementwise work of a pair of tokens costs, in multiplications of a product.
_ELEMENTWISE = 32

Calls = Mapping[str, list[tuple[torch.Tensor, torch.Tensor]]]


@dataclass
class Unit:
    """Layers that own the same parameters: usually one.

    Attributes:
        layers: names of the layers.
        parameters: names of their parameters, weight first.
        calls: of all the layers together, in a pass.
        form: what is kept of an example.
        pair_cost: multiplications a pair of examples; 0 for embeddings, whose rows hardly meet.
        size: bytes of that.
    """

    layers: list[str]
    parameters: list[str]
    calls: int = 1
    form: Form = "rows"
    pair_cost: int = 0
    size: int = 0


@dataclass
class _Pass:
    """What has come of a unit so far."""

    parts: list[Kept] = field(default_factory=list)
    calls: int = 0


class Layered:
    """The covered layers of a model.

    ``partners`` is how many examples each is multiplied with: N for a Gram matrix, 1 for norms. Of
    ``budget`` bytes the check of the layers takes about a quarter.

    Attributes:
        units: by the name of their first layer.
        sizes: kept bytes an example, by unit.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, seeds: Seeds, partners: int, budget: int = 2**32
    ) -> None:
        self.model, self.inputs, self.seeds = model, inputs, seeds
        self.partners = partners
        self.layers = dict(model.named_modules())
        self.widened: set[str] = set()
        self.units: dict[str, Unit] = {}
        count = min(_PROBE, length(inputs))
        for group in self._groups(_candidates(model), count, budget // 8):
            self.units |= self._checked(group, count)
        self.sizes = {name: unit.size for name, unit in self.units.items()}
        self._working: int | None = None

    def working(self, units: list[str]) -> int:
        """Bytes an example that a pass over all units takes at its peak."""
        del units  # the passes differ little: activations are most of it
        if self._working is None:
            self._working = peak_bytes(
                lambda: self.visit(list(self.units), slice(0, 1), lambda *_: None)
            )
        return self._working

    def visit(self, units: list[str], rows: slice, receive: Callable[[str, Kept], None]) -> None:
        """Give ``receive`` what is kept of the examples in ``rows``, a unit at a time."""
        owner = {layer: unit for unit in units for layer in self.units[unit].layers}
        passes = {unit: _Pass() for unit in units}

        def convert(layer: str, a: torch.Tensor, d: torch.Tensor) -> None:
            name = owner[layer]
            unit, state = self.units[name], passes[name]
            state.parts.append(_kept(self.layers[layer], a, d, unit.form))
            state.calls += 1
            if state.calls == unit.calls:
                kept = reduce(lambda left, right: left.plus(right), state.parts)
                state.parts.clear()
                receive(name, kept)

        capture(
            self.model,
            {layer: self.layers[layer] for layer in owner},
            take(self.inputs, rows),
            lambda outputs: self.seeds.of(rows, outputs),
            convert,
            self.widened,
        )
        for name, state in passes.items():
            if state.calls != self.units[name].calls:
                raise StiffnessError(
                    f"model: {name} is called {self.units[name].calls} times for some examples "
                    f"and {state.calls} times for others, which the gradients cannot follow"
                )

    def _groups(self, units: dict[str, Unit], count: int, room: int) -> list[dict[str, Unit]]:
        """Units whose inputs and output gradients fit in ``room`` bytes together."""
        sizes: dict[str, int] = {}

        def measure(name: str) -> Callable[..., None]:
            def hook(_: nn.Module, args: Any, keywords: Any, output: Any) -> None:
                tensors = [*args[:1], *list(keywords.values())[: not args], output]
                sizes[name] = sizes.get(name, 0) + sum(t.nbytes for t in tensors)

            return hook

        handles = [
            self.layers[layer].register_forward_hook(measure(name), with_kwargs=True)
            for name, unit in units.items()
            for layer in unit.layers
        ]
        try:
            with torch.no_grad():
                outputs = call(self.model, take(self.inputs, slice(0, count)))
        finally:
            for handle in handles:
                handle.remove()
        self.seeds.of(slice(0, count), outputs)  # refuses outputs that will not do
        groups: list[dict[str, Unit]] = []
        filled = 0
        for name, unit in units.items():
            size = sizes.get(name, 0)
            if not groups or filled + size > room:
                groups.append({})
                filled = 0
            groups[-1][name] = unit
            filled += size
        return groups

    def _checked(self, units: dict[str, Unit], count: int) -> dict[str, Unit]:
        """Those that agree with autograd on single examples, with a form chosen for each."""
        calls = self._calls(units, count)
        if calls is None:
            return {}
        units = {name: unit for name, unit in units.items() if _usable(unit, calls, count)}
        for row in range(count):
            units = self._right(units, row, calls)
        for unit in units.values():
            self._choose(unit, calls)
        return units

    def _calls(self, units: dict[str, Unit], count: int) -> Calls | None:
        """The calls of ``units``, in a pass over ``count`` examples with random seeds."""
        layers = {layer: self.layers[layer] for u in units.values() for layer in u.layers}

        def run(widened: Collection[str]) -> tuple[torch.Tensor, Calls]:
            calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
            outputs = capture(
                self.model,
                layers,
                take(self.inputs, slice(0, count)),
                lambda outputs: _random((_PROBE, *outputs.shape[1:]), outputs)[:count],
                lambda name, a, d: calls.setdefault(name, []).append((a, d)),
                widened,
            )
            return outputs, calls

        try:
            outputs, calls = run(())
        except (RuntimeError, TypeError, AttributeError):  # layers used in unexpected ways
            return None
        # The table of positions, say: looked up once for all examples.
        single = {
            name
            for name, made in calls.items()
            if count > 1 and all(a.ndim > 1 and len(a) == len(d) == 1 for a, d in made)
        }
        if single:
            try:
                again, widened_calls = run(single)
            except (RuntimeError, TypeError, AttributeError):
                return calls
            if again.shape == outputs.shape and torch.equal(again, outputs):
                self.widened |= single
                return widened_calls
        return calls

    def _right(self, units: dict[str, Unit], row: int, calls: Calls) -> dict[str, Unit]:
        """Units whose part of one example in ``calls`` is what autograd finds for it alone.

        Seeds are random: an example's own may be 0, and would prove nothing. A parameter's gradient
        is compared and freed as soon as it is there.
        """
        named = dict(self.model.named_parameters())
        unit_of = {p: name for name, unit in units.items() for p in unit.parameters}
        one = slice(row, row + 1)
        found: dict[str, dict[str, torch.Tensor]] = {name: {} for name in units}
        right: set[str] = set()

        def hook_of(parameter: str) -> Callable[[torch.Tensor], None]:
            def hook(leaf: torch.Tensor) -> None:
                name = unit_of[parameter]
                assert leaf.grad is not None
                found[name][parameter] = leaf.grad
                leaf.grad = None
                if len(found[name]) == len(units[name].parameters):
                    gradients = [found[name][p] for p in units[name].parameters]
                    found[name].clear()
                    if self._agrees(units[name], one, calls, gradients):
                        right.add(name)

            return hook

        parameters = {name: p.detach() for name, p in named.items()}
        for name in unit_of:
            leaf = parameters[name].detach().requires_grad_()
            leaf.register_post_accumulate_grad_hook(hook_of(name))
            parameters[name] = leaf
        with torch.enable_grad():
            outputs = call(self.model, take(self.inputs, one), parameters)
            if outputs.requires_grad:
                outputs.backward(_random((_PROBE, *outputs.shape[1:]), outputs)[one])
        return {name: unit for name, unit in units.items() if name in right}

    def _agrees(self, unit: Unit, one: slice, calls: Calls, truth: list[torch.Tensor]) -> bool:
        try:
            parts = [
                _kept(self.layers[layer], a[one], d[one], "rows")
                for layer in unit.layers
                for a, d in calls.get(layer, [])
            ]
            kept = reduce(lambda left, right: left.plus(right), parts)
            scale = max(_largest(t) for t in truth)
            if isinstance(kept, Tokens):
                rows = kept.index[0] >= 0
                index, (table,) = kept.index[0][rows], truth
                wrong = [table[index] - kept.d[0][rows], table.index_fill_(0, index, 0)]
            else:
                assert isinstance(kept, Rows)
                transposed = type(self.layers[unit.layers[0]]).__name__ == "Conv1D"
                sizes = [t.numel() for t in truth]
                wrong = [
                    ours.sub_((t.T if transposed and t.ndim == 2 else t).flatten())
                    for ours, t in zip(kept.rows[0].split(sizes), truth, strict=True)
                ]
        except (RuntimeError, IndexError, TypeError, ValueError):  # shapes no family expects
            return False
        return all(_largest(part) <= 1e-3 * scale for part in wrong if part.numel())

    def _choose(self, unit: Unit, calls: Calls) -> None:
        """Factors or rows, by the number of operations (see ``engine``); rows now or later."""
        made = [
            (self.layers[layer], a[:1], d[:1])
            for layer in unit.layers
            for a, d in calls.get(layer, [])
        ]
        unit.calls = len(made)

        def kept(form: Form) -> Kept:
            parts = [_kept(layer, a, d, form) for layer, a, d in made]
            return reduce(lambda left, right: left.plus(right), parts)

        weight = self.model.get_parameter(unit.parameters[0])
        unit.form = "factors"
        factors = kept("factors")
        if isinstance(factors, Factors):
            (_, t, p), q = factors.a.shape, factors.d.shape[2]
            unit.pair_cost = t * t * (p + q)
            of_factors = self.partners * t * t * (p + q + _ELEMENTWISE)
            if of_factors > self.partners * p * q + 2 * t * p * q:
                unit.form, unit.pair_cost = "rows", p * q
        elif isinstance(factors, Rows):
            unit.form, unit.pair_cost = "rows", factors.rows.shape[1]
        if unit.form == "rows":
            late = sum(a.numel() + d.numel() for _, a, d in made)
            if unit.calls == 1 and weight.ndim > 1 and late < weight.numel():
                unit.form = "late rows"
        unit.size = kept(unit.form).bytes()


def _kept(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: Form) -> Kept:
    family = family_of(layer)
    assert family is not None
    return family(layer, a, d, form)


def _largest(values: torch.Tensor) -> float:
    """Without a copy of the values: some are as large as a vocabulary."""
    least, most = torch.aminmax(values)
    return max(-float(least), float(most))


def _random(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like)


def _candidates(model: nn.Module) -> dict[str, Unit]:
    """Layers of a known type whose parameters are all trained and shared, if at all, as a whole."""
    names = {id(p): name for name, p in model.named_parameters()}
    units: dict[tuple[str, ...], Unit] = {}
    owners: dict[str, set[str]] = {}
    for layer, module in model.named_modules():
        own = {key: p for key, p in module._parameters.items() if p is not None}
        for p in own.values():
            owners.setdefault(names[id(p)], set()).add(layer)
        # A pruned or reparametrised layer owns other parameters than it multiplies by.
        plain = own.keys() in ({"weight"}, {"weight", "bias"}) and len(
            list(module.named_parameters())
        ) == len(own)
        if family_of(module) and plain and all(p.requires_grad for p in own.values()):
            key = tuple(names[id(own[part])] for part in ("weight", "bias") if part in own)
            units.setdefault(key, Unit([], list(key))).layers.append(layer)
    return {
        unit.layers[0]: unit
        for unit in units.values()
        if all(owners[name] == set(unit.layers) for name in unit.parameters)
        and len({type(model.get_submodule(layer)) for layer in unit.layers}) == 1
    }


def _usable(unit: Unit, calls: Calls, count: int) -> bool:
    """Called, reached by the gradient, with examples along the first axis."""
    made = [one for layer in unit.layers for one in calls.get(layer, [])]
    return bool(made) and all(a.ndim > 0 and len(a) == count and len(d) == count for a, d in made)
