"""Gram matrices of per-example gradients, given the seed of each example's backward pass.

The network's parameters are split into units, usually one a layer, and each unit adds its block to
the Gram matrix. For a layer with t positions an example (pixels, tokens; 1 for a vector), p inputs
and q outputs, and N examples, a unit is kept in one of two forms, whichever costs fewer operations:

* factors, the layer's inputs and output gradients: N^2 t^2 (p + q); no gradient is ever formed.
* rows, every example's gradient: N^2 p q + 2 N t p q.

Parameters that no family of layers covers go through ``fallback``. One forward and backward pass
serves all units whose kept numbers fit the budget together; the others take further passes, and a
unit that does not fit alone is cut into blocks of examples, of which a pair at a time is kept and
recomputed. Time grows, the answer does not change.

Only one triangle of the matrix is computed.
"""

import re
from dataclasses import fields, replace
from typing import Protocol

import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.gradients.fallback import Fallback
from stiffness.gradients.kept import Kept
from stiffness.gradients.layered import Layered
from stiffness.gradients.models import Inputs

_CHUNK = 64  # examples a pass; larger ones no longer gain speed
_MIRROR = 1024  # rows copied at once
_SLABS = 4  # an upper triangle is covered by this many slabs of rows, at most


class Source(Protocol):
    """Where kept gradients come from."""

    numbers: dict[str, int]
    working: int

    def collect(self, units: list[str], rows: slice) -> dict[str, Kept]:
        """What is kept of the examples in ``rows``, of some units."""


def parse_bytes(text: str | int) -> int:
    """ "4GiB", "256MiB" or a number of bytes.

    Raises:
        StiffnessError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)?", str(text).strip())
    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    if not match:
        raise StiffnessError(f"memory_budget: {text!r} is not a size such as 4GiB or 512MiB")
    return int(float(match[1]) * units[match[2] or "B"])


def gram_blocks(
    model: nn.Module, inputs: Inputs, seeds: torch.Tensor, per_layer: bool, budget: int
) -> dict[str, torch.Tensor]:
    """Gram matrices [N, N] of the gradients of sum(outputs * seeds), on the model's device.

    Args:
        seeds: [N, ...] in the model's dtype, shaped as its outputs.
        budget: bytes for everything but the model, the data and the result.

    Returns:
        One matrix under the key "", or one a parameter-owning module under its name.
    """
    grams: dict[str, torch.Tensor] = {}
    for source in _sources(model, inputs, seeds, partners=len(seeds)):
        _accumulate(source, seeds, budget, per_layer, grams)
    for gram in grams.values():
        mirror(gram)
    return grams


def squared_norms(
    model: nn.Module, inputs: Inputs, seeds: torch.Tensor, budget: int
) -> torch.Tensor:
    """float64 [N]: squared norms of the gradients of sum(outputs * seeds), in time linear in N.

    Arguments as ``gram_blocks``.
    """
    total = torch.zeros(len(seeds), dtype=torch.float64, device=seeds.device)
    for source in _sources(model, inputs, seeds, partners=1):
        room, chunk = _shares(source, seeds, budget)
        for group in _packed(source.numbers, chunk, room):
            largest = sum(source.numbers[unit] for unit in group)
            size = max(1, min(chunk, room // largest))
            for begin in range(0, len(seeds), size):
                rows = slice(begin, min(begin + size, len(seeds)))
                for kept in source.collect(group, rows).values():
                    total[rows] += kept.squared_norms()
    return total


def mirror(matrix: torch.Tensor) -> None:
    """Copy the upper triangle of [N, N] to the lower one, a slab at a time."""
    for begin in range(0, len(matrix), _MIRROR):
        end = min(begin + _MIRROR, len(matrix))
        matrix[begin:end, :begin] = matrix[:begin, begin:end].T
        corner = matrix[begin:end, begin:end]
        corner.copy_(corner.triu() + corner.triu(1).T)


def _sources(model: nn.Module, inputs: Inputs, seeds: torch.Tensor, partners: int) -> list[Source]:
    """Who gives the gradients of which parameters."""
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise StiffnessError("model: no parameter requires a gradient")
    sources: list[Source] = []
    layered = Layered(model, inputs, seeds, partners)
    covered = {name for unit in layered.units.values() for name in unit.parameters}
    if covered:
        sources.append(layered)
    rest: dict[str, list[str]] = {}
    for name in trainable:
        if name not in covered:
            rest.setdefault(name.rpartition(".")[0], []).append(name)
    if rest:
        sources.append(Fallback(model, rest, inputs, seeds))
    return sources


def _shares(source: Source, seeds: torch.Tensor, budget: int) -> tuple[int, int]:
    """How many numbers may be kept, and how many examples a pass may take.

    Half of the budget is for what is kept, a quarter for a pass, a quarter for products and the
    allocator.
    """
    item = seeds.element_size()
    chunk = min(_CHUNK, budget // 4 // item // max(source.working, 1))
    return budget // 2 // item, max(1, chunk)


def _accumulate(
    source: Source,
    seeds: torch.Tensor,
    budget: int,
    per_layer: bool,
    grams: dict[str, torch.Tensor],
) -> None:
    """Add the upper triangles of all units of a source."""
    total = len(seeds)
    room, chunk = _shares(source, seeds, budget)

    def gram_of(unit: str) -> torch.Tensor:
        name = unit if per_layer else ""
        if name not in grams:
            grams[name] = seeds.new_zeros(total, total)
        return grams[name]

    for group in _packed(source.numbers, total, room):
        largest = sum(source.numbers[unit] for unit in group)
        size = total if largest * total <= room else max(1, room // (2 * largest))
        blocks = [slice(at, min(at + size, total)) for at in range(0, total, size)]
        for first, rows in enumerate(blocks):
            left = _collect(source, group, rows, chunk)
            for unit in group:
                _add_triangle(left[unit], gram_of(unit)[rows, rows])
            for columns in blocks[first + 1 :]:
                right = _collect(source, group, columns, chunk)
                for unit in group:
                    left[unit].add_product(right[unit], gram_of(unit)[rows, columns])  # type: ignore[arg-type]


def _packed(numbers: dict[str, int], total: int, room: int) -> list[list[str]]:
    """Units that share a pass, in the order of the network; a unit too large stands alone."""
    groups: list[list[str]] = []
    filled = 0
    for unit, number in numbers.items():
        if groups and filled + number * total <= room:
            groups[-1].append(unit)
            filled += number * total
        else:
            groups.append([unit])
            filled = number * total
    return groups


def _collect(source: Source, units: list[str], rows: slice, chunk: int) -> dict[str, Kept]:
    """What is kept of ``rows``, a chunk a pass, written straight to where it stays."""
    whole: dict[str, Kept] = {}
    for begin in range(rows.start, rows.stop, chunk):
        part = slice(begin, min(begin + chunk, rows.stop))
        place = slice(begin - rows.start, part.stop - rows.start)
        for unit, kept in source.collect(units, part).items():
            tensors = {
                entry.name: getattr(kept, entry.name)
                for entry in fields(kept)
                if isinstance(getattr(kept, entry.name), torch.Tensor)
            }
            if unit not in whole:
                if place.stop == rows.stop - rows.start:
                    whole[unit] = kept
                    continue
                empty = {
                    name: value.new_empty(rows.stop - rows.start, *value.shape[1:])
                    for name, value in tensors.items()
                }
                whole[unit] = replace(kept, **empty)
            for name, value in tensors.items():
                getattr(whole[unit], name)[place] = value
    return whole


def _add_triangle(kept: Kept, out: torch.Tensor) -> None:
    """out [n, n] += g_i . g_j on and above the diagonal, in slabs of rows."""
    count = len(out)
    size = max(32, -(-count // _SLABS))
    for begin in range(0, count, size):
        rows = slice(begin, min(begin + size, count))
        part, rest = _part(kept, rows), _part(kept, slice(begin, count))
        part.add_product(rest, out[rows, begin:])  # type: ignore[arg-type]


def _part(kept: Kept, rows: slice) -> Kept:
    tensors = {
        entry.name: getattr(kept, entry.name)[rows]
        for entry in fields(kept)
        if isinstance(getattr(kept, entry.name), torch.Tensor)
    }
    return replace(kept, **tensors)
