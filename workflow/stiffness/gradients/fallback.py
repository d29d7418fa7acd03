"""Per-example gradients of parameters without a fast path: slower, and exact for any module.

They come from ``torch.func.vmap`` over examples, or from one backward pass per example where an
operator cannot be vmapped or vmap costs more. (A recurrent layer's weight gradient is one product
over all steps; vmap forms it step by step.)
"""

import warnings
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stiffness.data.batch import Inputs, call, take
from stiffness.errors import StiffnessWarning, out_of_memory
from stiffness.gradients.memory import peak_bytes, traffic
from stiffness.gradients.multiply import Gradients, Rows
from stiffness.gradients.output_grads import OutputGrads

_NAMED = 4  # parameters that the warning lists
_OPERATOR = 2**15  # bytes that could be moved in the time that calling an operator takes


class Fallback:
    """The gradients of parameters ``units`` of a model, by the module that owns them.

    Args:
        peaks: where measured peaks are remembered.
        vmapped: whether to use vmap; None to compare the costs of both ways.

    Attributes:
        sizes: bytes per example of the gradients, by unit.

    Warns:
        StiffnessWarning: which parameters these are and what they cost.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Inputs,
        output_grads: OutputGrads,
        units: Mapping[str, list[str]],
        peaks: dict[tuple[str, ...], int],
        vmapped: bool | None = None,
    ) -> None:
        self.model, self.inputs, self.output_grads = model, inputs, output_grads
        self.units, self.peaks = units, peaks
        named = dict(model.named_parameters())
        self.parameters = {name: named[name].detach() for names in units.values() for name in names}
        self.frozen = {name: p.detach() for name, p in named.items() if name not in self.parameters}
        self.frozen |= dict(model.named_buffers())
        self.sizes = {
            unit: sum(named[name].numel() * named[name].element_size() for name in names)
            for unit, names in units.items()
        }
        self.vmapped = self._prefers_vmap() if vmapped is None else vmapped
        self._warn()

    def working(self, units: list[str]) -> int:
        """Bytes per example that a pass over ``units`` takes at its peak."""
        key = tuple(units)
        if key not in self.peaks:
            self.peaks[key] = peak_bytes(lambda: self.visit(units, slice(0, 1), lambda *_: None))
        return self.peaks[key]

    def visit(
        self, units: list[str], rows: slice, receive: Callable[[str, Gradients], None]
    ) -> None:
        """Give ``receive`` the gradients of the examples in ``rows``, one unit at a time."""
        wanted = {name for unit in units for name in self.units[unit]}
        found = self._vmap(wanted, rows) if self.vmapped else self._loop(wanted, rows)
        for unit in units:
            gradients = [found.pop(name).flatten(1) for name in self.units[unit]]
            receive(unit, Rows(gradients[0] if len(gradients) == 1 else torch.cat(gradients, 1)))

    def _warn(self) -> None:
        names = list(self.parameters)
        listed = ", ".join(names[:_NAMED])
        listed += f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        everything = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        numbers = sum(p.numel() for p in self.parameters.values())
        how = "torch.func.vmap" if self.vmapped else "one backward pass per example"
        warnings.warn(
            f"{type(self.model).__name__}: no fast path for {listed} ({numbers:,} of "
            f"{everything:,} trainable parameters): their gradients come from {how}, exact but "
            f"slower, and take {sum(self.sizes.values()) / 2**20:.3g} MiB per example",
            StiffnessWarning,
            stacklevel=2,
        )

    def _prefers_vmap(self) -> bool:
        """Compare what both ways cost on one example, for the smallest unit."""
        smallest = min(self.units, key=lambda unit: self.sizes[unit])
        wanted, one = set(self.units[smallest]), slice(0, 1)
        try:
            vmapped, _ = traffic(lambda: self._vmap(wanted, one))
        except Exception as error:  # torch raises many kinds where there is no batching rule
            if out_of_memory(error):  # says nothing of vmap; the caller tries with less
                raise
            return False
        looped, operators = traffic(lambda: self._loop(wanted, one))
        return vmapped < looped + _OPERATOR * operators

    def _vmap(self, wanted: set[str], rows: slice) -> dict[str, torch.Tensor]:
        rest = {name: p for name, p in self.parameters.items() if name not in wanted} | self.frozen

        def weighted(
            params: dict[str, torch.Tensor], example: Inputs, output_grad: torch.Tensor
        ) -> torch.Tensor:
            one: Inputs = (
                {name: value[None] for name, value in example.items()}
                if isinstance(example, Mapping)
                else example[None]
            )
            return (call(self.model, one, {**params, **rest})[0] * output_grad).sum()

        chosen = {name: p for name, p in self.parameters.items() if name in wanted}
        gradient = torch.func.vmap(torch.func.grad(weighted), in_dims=(None, 0, 0))
        # The fused attention kernels have no batching rule.
        with sdpa_kernel(SDPBackend.MATH):
            return gradient(chosen, take(self.inputs, rows), self._output_grads_of(rows))

    def _output_grads_of(self, rows: slice) -> torch.Tensor:
        if self.output_grads.known(rows):
            return self.output_grads.of(rows)
        with torch.no_grad():
            return self.output_grads.of(rows, call(self.model, take(self.inputs, rows)))

    def _loop(self, wanted: set[str], rows: slice) -> dict[str, torch.Tensor]:
        rest = {name: p for name, p in self.parameters.items() if name not in wanted} | self.frozen
        chosen = {
            name: p.detach().requires_grad_()
            for name, p in self.parameters.items()
            if name in wanted
        }
        count = rows.stop - rows.start
        found = {name: p.new_zeros(count, *p.shape) for name, p in chosen.items()}
        for row in range(count):
            one = slice(rows.start + row, rows.start + row + 1)
            with torch.enable_grad():
                outputs = call(self.model, take(self.inputs, one), {**chosen, **rest})
                output_grad = self.output_grads.of(one, outputs)
                if not outputs.requires_grad:  # none of them is used
                    continue
                gradients = torch.autograd.grad(
                    outputs,
                    list(chosen.values()),
                    output_grad,
                    materialize_grads=True,
                    allow_unused=True,
                )
            for name, gradient in zip(chosen, gradients, strict=True):
                found[name][row] = gradient
        return found
