"""Per-example gradients of all layers that a family covers, from shared passes.

Whether a layer is covered is not guessed from its type alone: what the family makes of single
examples must equal the gradients autograd finds for them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from torch import nn

from stiffness.gradients.capture import Call, capture
from stiffness.gradients.kept import Factors, Kept, Rows, Tokens
from stiffness.gradients.layers import FAMILIES
from stiffness.gradients.layers.conv import arranged
from stiffness.gradients.models import Inputs, call, length, take

_PROBE = 8


@dataclass
class Unit:
    """Layers that own the same parameters: usually one.

    Attributes:
        layers: names of the layers.
        parameters: names of their parameters, weight first.
        factored: keep factors instead of rows.
        numbers: kept numbers an example.
    """

    layers: list[str]
    parameters: list[str]
    factored: bool = False
    numbers: int = 0


class Layered:
    """The covered layers of a model.

    ``partners`` is how many examples each is multiplied with: N for a Gram matrix, 1 for norms.

    Attributes:
        units: by the name of their first layer.
        numbers: kept numbers an example, by unit.
        working: numbers an example that a pass needs beside what it keeps.
    """

    def __init__(
        self, model: nn.Module, inputs: Inputs, seeds: torch.Tensor, partners: int
    ) -> None:
        self.model, self.inputs, self.seeds = model, inputs, seeds
        self.partners = partners
        self.layers = dict(model.named_modules())
        self.units = _candidates(model)
        self.working = 0
        self._probe()
        self.numbers = {name: unit.numbers for name, unit in self.units.items()}

    def collect(self, units: list[str], rows: slice) -> dict[str, Kept]:
        """What is kept of the examples in ``rows``, of some of the units."""
        layers = {layer: self.layers[layer] for unit in units for layer in self.units[unit].layers}
        calls = capture(self.model, layers, take(self.inputs, rows), self.seeds[rows])
        return {unit: self._kept(unit, calls, self.units[unit].factored) for unit in units}

    def _kept(self, unit: str, calls: Mapping[str, list[Call]], factored: bool) -> Kept:
        parts = [
            FAMILIES[type(self.layers[layer])](self.layers[layer], made.a, made.d, factored)
            for layer in self.units[unit].layers
            for made in calls[layer]
            if made.d is not None
        ]
        return reduce(lambda left, right: left.plus(right), parts)  # type: ignore[arg-type]

    def _probe(self) -> None:
        """Drop the units that fail on single examples; choose a form for the others."""
        count = min(_PROBE, length(self.inputs))
        layers = {layer: self.layers[layer] for u in self.units.values() for layer in u.layers}
        sizes: list[int] = []
        handles = [
            module.register_forward_hook(lambda _, __, out: sizes.append(_numel(out)))
            for module in self.layers.values()
            if not list(module.children())
        ]
        try:
            several = take(self.inputs, slice(0, count))
            calls = capture(self.model, layers, several, self._probe_seeds(count))
        finally:
            for handle in handles:
                handle.remove()
        # Activations are kept for the backward pass and met by a gradient each.
        self.working = 2 * sum(sizes) // count
        self.units = {
            name: unit for name, unit in self.units.items() if _usable(unit, calls, count)
        }
        for row in sorted({0, count - 1}):
            self._drop_wrong(row, calls)
        for name, unit in self.units.items():
            self._choose(name, unit, calls)

    def _probe_seeds(self, count: int) -> torch.Tensor:
        """Random: an example's own seed may be 0, and would prove nothing."""
        generator = torch.Generator().manual_seed(0)
        shape = (_PROBE, *self.seeds.shape[1:])
        return torch.randn(shape, generator=generator).to(self.seeds)[:count]

    def _drop_wrong(self, row: int, calls: Mapping[str, list[Call]]) -> None:
        """Compare one row of the pass over several examples with autograd on that example alone."""
        if not self.units:
            return
        named = dict(self.model.named_parameters())
        names = [name for unit in self.units.values() for name in unit.parameters]
        one = slice(row, row + 1)
        chosen = {name: named[name].detach().requires_grad_() for name in names}
        with torch.enable_grad():
            outputs = call(self.model, take(self.inputs, one), chosen)
            found = torch.autograd.grad(
                outputs,
                list(chosen.values()),
                self._probe_seeds(row + 1)[one],
                allow_unused=True,
                materialize_grads=True,
            )
        gradients = dict(zip(names, found, strict=True))
        single = {
            layer: [Call(made.a[one], None if made.d is None else made.d[one]) for made in some]
            for layer, some in calls.items()
        }
        for name, unit in list(self.units.items()):
            try:
                kept = self._kept(name, single, factored=False)
                ours = _dense(kept, gradients[unit.parameters[0]].shape)
            except (RuntimeError, IndexError, TypeError):  # shapes that no family expects
                del self.units[name]
                continue
            truth = self._arranged(unit, [gradients[p] for p in unit.parameters])
            if ours.shape != truth.shape or not torch.allclose(
                ours, truth, rtol=1e-3, atol=1e-4 * float(truth.abs().max())
            ):
                del self.units[name]

    def _arranged(self, unit: Unit, gradients: list[torch.Tensor]) -> torch.Tensor:
        if isinstance(self.layers[unit.layers[0]], nn.modules.conv._ConvNd):
            return arranged(gradients)
        return torch.cat([gradient.flatten() for gradient in gradients])

    def _choose(self, name: str, unit: Unit, calls: Mapping[str, list[Call]]) -> None:
        """Factors or rows, by the number of operations; see ``engine``."""
        one = {
            layer: [Call(made.a[:1], None if made.d is None else made.d[:1]) for made in some]
            for layer, some in calls.items()
        }
        factors = self._kept(name, one, factored=True)
        unit.numbers = factors.numbers()
        unit.factored = True
        if isinstance(factors, Factors):
            (_, t, p), q = factors.a.shape, factors.d.shape[2]
            if self.partners * t * t * (p + q + 4) > self.partners * p * q + 2 * t * p * q:
                unit.factored = False
                unit.numbers = self._kept(name, one, factored=False).numbers()
            self.working = max(self.working, 2 * t * (p + q))


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
        if type(module) in FAMILIES and plain and all(p.requires_grad for p in own.values()):
            key = tuple(names[id(own[part])] for part in ("weight", "bias") if part in own)
            units.setdefault(key, Unit([], list(key))).layers.append(layer)
    return {
        unit.layers[0]: unit
        for unit in units.values()
        if all(owners[name] == set(unit.layers) for name in unit.parameters)
        and len({type(model.get_submodule(layer)) for layer in unit.layers}) == 1
    }


def _usable(unit: Unit, calls: Mapping[str, list[Call]], count: int) -> bool:
    """Called, reached by the gradient, with examples along the first axis."""
    made = [one for layer in unit.layers for one in calls[layer]]
    reached = [one for one in made if one.d is not None]
    return bool(reached) and all(
        one.a.ndim > 0 and len(one.a) == count and len(one.d) == count  # type: ignore[arg-type]
        for one in reached
    )


def _dense(kept: Kept, shape: torch.Size) -> torch.Tensor:
    """The gradient [P] of the single example in ``kept``."""
    if isinstance(kept, Rows):
        return kept.rows[0]
    assert isinstance(kept, Tokens)
    table = kept.d.new_zeros(shape)
    valid = kept.index[0] >= 0
    table.index_add_(0, kept.index[0][valid], kept.d[0][valid])
    return table.flatten()


def _numel(output: object) -> int:
    return output.numel() if isinstance(output, torch.Tensor) else 0
