"""Inputs and output gradients of chosen layers, from one forward and backward pass.

Parameters are detached for the pass, so that no weight gradient is computed; each chosen layer's
output gets a zero added to it that requires a gradient, which is what makes autograd go back as
far as the earliest of them and no farther.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from stiffness.gradients.models import Inputs, call


@dataclass
class Call:
    """One call of a layer: its input, and the gradient of its output once that is known."""

    a: torch.Tensor
    d: torch.Tensor | None = None


def capture(
    model: nn.Module, layers: Mapping[str, nn.Module], inputs: Inputs, seeds: torch.Tensor
) -> dict[str, list[Call]]:
    """Propagate ``seeds`` [n, ...] back from the outputs and return the calls of ``layers``.

    A layer that was not called, or whose output does not reach the model's, has no entry or calls
    without a gradient.
    """
    calls: dict[str, list[Call]] = {name: [] for name in layers}
    anchors: list[torch.Tensor] = []

    def hook_of(name: str):  # type: ignore[no-untyped-def]
        def hook(
            _: nn.Module,
            args: tuple[torch.Tensor, ...],
            keywords: dict[str, torch.Tensor],
            output: torch.Tensor,
        ) -> torch.Tensor:
            given = args[0] if args else next(iter(keywords.values()))
            made = Call(given.detach())
            calls[name].append(made)
            if not torch.is_grad_enabled():
                return output
            anchor = output.new_zeros((), requires_grad=True)
            anchors.append(anchor)
            anchored = output + anchor
            anchored.register_hook(lambda gradient: setattr(made, "d", gradient))
            return anchored

        return hook

    detached = {name: p.detach() for name, p in model.named_parameters()}
    handles = [
        layer.register_forward_hook(hook_of(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            outputs = call(model, inputs, detached)
            if outputs.requires_grad:
                torch.autograd.grad(outputs, anchors, seeds, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return calls
