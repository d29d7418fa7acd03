"""Texts of many lengths: in the order of their lengths, each chunk is cut to its longest.

The tokens of padding cost as much as others. Whether a network's outputs are the same without them
is tried on the shortest text, and where they are not, all padding stays.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import MASK, Inputs, call, length, take

_SAME = 1e-4  # relative difference of outputs: padding that is seen changes them by more


class Trimmed:
    """Tokens [N, T] that lose the padding that all chosen texts share when they are taken."""

    def __init__(self, tokens: torch.Tensor, lengths: torch.Tensor) -> None:
        self.tokens, self.lengths = tokens, lengths

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice | torch.Tensor) -> torch.Tensor:
        host = rows.cpu() if isinstance(rows, torch.Tensor) else rows
        some = self.lengths[host]
        return self.tokens[rows][:, : int(some.max()) if len(some) else 1]


def longest_first(inputs: Inputs, *parts: slice) -> torch.Tensor | None:
    """The order of the examples by length, in each of ``parts`` apart (by default in all together),
    or None where there is nothing to gain."""
    lengths = _lengths(inputs)
    if lengths is None or int(lengths.min()) == int(lengths.max()):
        return None
    orders = [
        torch.argsort(lengths[part], descending=True, stable=True) + (part.start or 0)
        for part in parts or (slice(None),)
    ]
    return torch.cat(orders)


def trimmed(model: nn.Module, inputs: Inputs) -> Inputs:
    """Inputs that lose their padding when some are taken, where the model cannot tell."""
    lengths = _lengths(inputs)
    if lengths is None or not isinstance(inputs, Mapping) or len(lengths) < 2:
        return inputs
    width = inputs[MASK].shape[1]
    shortest = int(lengths.argmin())
    if int(lengths[shortest]) == width:
        return inputs
    shorter: Any = {
        name: Trimmed(value, lengths) if value.ndim == 2 and value.shape[1] == width else value
        for name, value in inputs.items()
    }
    one = slice(shortest, shortest + 1)
    try:
        with torch.no_grad():
            whole, cut = call(model, take(inputs, one)), call(model, take(shorter, one))
    except (RuntimeError, ValueError, IndexError):
        return inputs
    scale = float(whole.abs().max())
    same = whole.shape == cut.shape and float((whole - cut).abs().max()) <= _SAME * scale
    return shorter if same else inputs


def _lengths(inputs: Inputs) -> torch.Tensor | None:
    """Of every text, on the CPU: the place of its last token, and one more; at least 1."""
    if not isinstance(inputs, Mapping) or MASK not in inputs or length(inputs) == 0:
        return None
    mask = inputs[MASK]
    if mask.ndim != 2:
        return None
    places = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return (mask.ne(0) * places).amax(1).clamp_min(1).cpu()
