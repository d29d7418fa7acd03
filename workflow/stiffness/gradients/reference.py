"""The obviously correct way, one example at a time in float64, which every faster way must equal.

Cost: N backward passes and N P numbers of memory. For tests and benchmarks.
"""

import copy

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take


def reference_gradients(
    model: nn.Module, inputs: Inputs, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy gradients of all trainable parameters, scaled to unit norm.

    log p_y is -log1p(sum of exp(z_k - z_y)), so that 1 - p_y = -expm1(log p_y) keeps its relative
    precision down to the smallest float64.

    Returns:
        Directions float64 [N, P] (0 where the gradient is 0) and log-norms float64 [N], on the
        CPU.
    """
    model = copy.deepcopy(model).double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    directions, log_norms = [], []
    for row in range(length(inputs)):
        one = take(inputs, slice(row, row + 1))
        one = (
            _double(one)
            if isinstance(one, torch.Tensor)
            else {name: _double(value) for name, value in one.items()}
        )
        logits = call(model, one)[0]
        target = int(targets[row])
        z = logits.detach()
        others = torch.cat([z[:target], z[target + 1 :]]) - z[target]
        log_own = -torch.log1p(others.exp().sum())
        output_grad = (z - z[target] + log_own).exp()
        output_grad[target] = torch.expm1(log_own)
        largest = output_grad.abs().max()  # the square of 1e-200 is 0
        scale = (output_grad / largest).norm()
        unit = output_grad / largest / scale
        gradients = torch.autograd.grad(logits, parameters, unit, allow_unused=True)
        flat = torch.cat(
            [
                torch.zeros_like(p).flatten() if g is None else g.flatten()
                for p, g in zip(parameters, gradients, strict=True)
            ]
        )
        norm = flat.norm()
        directions.append(flat / norm if norm > 0 else flat)
        log_norms.append(norm.log() + scale.log() + largest.log())
    return torch.stack(directions).cpu(), torch.stack(log_norms).cpu()


def _double(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor
