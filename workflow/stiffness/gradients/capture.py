"""Inputs and output gradients of chosen layers, from one forward and backward pass.

Parameters are detached for the pass, so that no weight gradient is computed. Where nothing before a
chosen layer requires a gradient, a zero that does is added to its output, which is what makes
autograd go back as far as the earliest of them and no farther.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length

# (name of the layer, its input, the gradient of its output)
Receive = Callable[[str, torch.Tensor, torch.Tensor], None]


def capture(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    inputs: Inputs,
    seeds_of: Callable[[torch.Tensor], torch.Tensor],
    receive: Receive,
    widened: Collection[str] = (),
) -> torch.Tensor:
    """Propagate ``seeds_of(outputs)`` [n, ...] back from the outputs of ``model``.

    ``receive`` is given the calls of ``layers`` whose outputs reach the model's, one by one, the
    last call first: what it does not keep is freed at once.

    Args:
        widened: layers that see one example whatever the number of examples, and whose outputs are
            then broadcast: they are repeated for each example, so that each has its own gradient.

    Returns:
        The outputs.
    """
    count = length(inputs)
    anchors: list[torch.Tensor] = []

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
            if name in widened:
                given = given.expand(count, *given.shape[1:])
                output = output.expand(count, *output.shape[1:])
            if not output.requires_grad:
                anchors.append(output.new_zeros((), requires_grad=True))
                output = output + anchors[-1]
            held = [given]
            output.register_hook(lambda gradient: receive(name, held.pop(), gradient))
            return output

        return hook

    detached = {name: p.detach() for name, p in model.named_parameters()}
    handles = [
        layer.register_forward_hook(hook_of(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    try:
        with torch.enable_grad():
            outputs = call(model, inputs, detached)
            seeds = seeds_of(outputs.detach())
            if outputs.requires_grad:
                torch.autograd.grad(outputs, anchors, seeds, allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    return outputs.detach()
