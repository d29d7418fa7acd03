"""Per-example gradients of parameters that no family covers: slower, and exact for any module.

``torch.func`` vmap over examples; where an operator cannot be vmapped, one backward pass an
example.
"""

import logging
from collections.abc import Mapping

import torch
from torch import nn

from stiffness.gradients.kept import Kept, Rows
from stiffness.gradients.models import Inputs, call, length, take

_log = logging.getLogger("stiffness")


class Fallback:
    """The parameters ``names`` of a model, grouped into units.

    Attributes:
        numbers: kept numbers an example, by unit.
    """

    def __init__(
        self, model: nn.Module, units: Mapping[str, list[str]], inputs: Inputs, seeds: torch.Tensor
    ) -> None:
        self.model, self.units, self.inputs, self.seeds = model, units, inputs, seeds
        named = dict(model.named_parameters())
        self.parameters = {name: named[name].detach() for names in units.values() for name in names}
        self.frozen = {name: p.detach() for name, p in named.items() if name not in self.parameters}
        self.frozen |= dict(model.named_buffers())
        self.numbers = {
            unit: sum(named[name].numel() for name in names) for unit, names in units.items()
        }
        self.working = 2 * sum(self.numbers.values())  # of one example, while they are computed
        self.vmapped = self._can_vmap()
        _log.info(
            "no fast path for %s: using %s",
            ", ".join(self.parameters),
            "vmap" if self.vmapped else "one backward pass an example",
        )

    def collect(self, units: list[str], rows: slice) -> dict[str, Kept]:
        """Gradients of the examples in ``rows``, flattened, of some of the units."""
        wanted = {name for unit in units for name in self.units[unit]}
        found = self._vmap(wanted, rows) if self.vmapped else self._loop(wanted, rows)
        return {
            unit: Rows(torch.cat([found[name].flatten(1) for name in self.units[unit]], 1))
            for unit in units
        }

    def _can_vmap(self) -> bool:
        try:
            self._vmap(set(self.parameters), slice(0, min(2, length(self.inputs))))
        except Exception:  # torch raises many kinds for operators without a batching rule
            return False
        return True

    def _vmap(self, wanted: set[str], rows: slice) -> dict[str, torch.Tensor]:
        rest = {name: p for name, p in self.parameters.items() if name not in wanted} | self.frozen

        def weighted(
            params: dict[str, torch.Tensor], example: Inputs, seed: torch.Tensor
        ) -> torch.Tensor:
            one: Inputs = (
                {name: value[None] for name, value in example.items()}
                if isinstance(example, Mapping)
                else example[None]
            )
            return (call(self.model, one, {**params, **rest})[0] * seed).sum()

        chosen = {name: p for name, p in self.parameters.items() if name in wanted}
        gradient = torch.func.vmap(torch.func.grad(weighted), in_dims=(None, 0, 0))
        return gradient(chosen, take(self.inputs, rows), self.seeds[rows])

    def _loop(self, wanted: set[str], rows: slice) -> dict[str, torch.Tensor]:
        rest = {name: p for name, p in self.parameters.items() if name not in wanted} | self.frozen
        chosen = {
            name: p.clone().requires_grad_()
            for name, p in self.parameters.items()
            if name in wanted
        }
        found: dict[str, list[torch.Tensor]] = {name: [] for name in chosen}
        for row in range(rows.start, rows.stop):
            one = slice(row, row + 1)
            with torch.enable_grad():
                outputs = call(self.model, take(self.inputs, one), {**chosen, **rest})
                gradients = torch.autograd.grad(
                    outputs,
                    list(chosen.values()),
                    self.seeds[one],
                    materialize_grads=True,
                    allow_unused=True,
                )
            for name, gradient in zip(chosen, gradients, strict=True):
                found[name].append(gradient)
        return {name: torch.stack(rows) for name, rows in found.items()}
