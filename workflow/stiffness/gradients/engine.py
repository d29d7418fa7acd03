"""Gram matrices of per-example gradients, given the seed of each example's backward pass.

The network's parameters are split into units, usually one a layer, and each unit adds its block to
the Gram matrix. For a layer with t positions an example (pixels, tokens; 1 for a vector), p inputs
and q outputs, and N examples, a unit is multiplied in one of two ways, whichever costs fewer
operations:

* factors, the layer's inputs and output gradients: N^2 t^2 (p + q + 32); no gradient is ever
  formed. (A pair of positions also meets in elementwise work, worth about 32 multiplications.)
* rows, every example's gradient: N^2 p q + 2 N t p q.

Rows are formed at once and kept, p q numbers an example, or the t (p + q) numbers of which they are
made are kept and rows formed some columns at a time while they are multiplied, whichever is
smaller. Parameters that no family of layers covers go through ``fallback``.

Memory. Of the budget 40 % are for what is kept, 12 % for the tensors of a pass, which are measured
on one example, and up to 10 % for products; the rest is for what no tensor shows, the scratch space
of kernels and the allocator's holes. One forward and backward pass serves all units whose kept
numbers fit together; the others take further passes. A unit that does not fit alone is cut into
blocks of examples: one is kept while the others pass by. Where all examples fit in one pass nothing
is kept. Time grows with a smaller budget, the answer does not change.

Only one triangle of the matrix is computed. A rectangle, of rows and other examples as columns,
takes the same way: a block of rows is kept while the columns pass by. It has no diagonal, so that
squared norms come of the same passes.
"""

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from stiffness.data.batch import Inputs
from stiffness.data.shards import cut
from stiffness.errors import StiffnessError, StiffnessWarning
from stiffness.gradients.fallback import Fallback
from stiffness.gradients.kept import Kept
from stiffness.gradients.layered import Layered
from stiffness.gradients.seeds import Seeds

_CHUNK = 32  # examples a pass; larger ones no longer gain speed,
_SMALL = 2**25  # unless all of a pass is smaller than these bytes
_PRODUCT = 2**22  # numbers that a product needs at most; more gain nothing
_MIRROR = 128  # rows copied at once


class Source(Protocol):
    """Where per-example gradients come from."""

    sizes: dict[str, int]

    def working(self, units: list[str]) -> int:
        """Bytes an example that a pass over ``units`` takes at its peak."""

    def visit(self, units: list[str], rows: slice, receive: Callable[[str, Kept], None]) -> None:
        """Give ``receive`` what is kept of the examples in ``rows``, a unit at a time."""


def gram_blocks(
    model: nn.Module, inputs: Inputs, seeds: Seeds, per_layer: bool, budget: int
) -> dict[str, torch.Tensor]:
    """Gram matrices [N, N] of the gradients of sum(outputs * seeds), on the model's device.

    Args:
        budget: bytes for everything but the model, the data and the result.

    Returns:
        One matrix under the key "", or one a parameter-owning module under its name.

    Warns:
        StiffnessWarning: parameters without a fast path; a budget too small for one example.
    """
    grams: dict[str, torch.Tensor] = {}
    like = next(model.parameters()).detach()
    everything = slice(0, len(seeds))

    def gram_of(unit: str) -> torch.Tensor:
        name = unit if per_layer else ""
        if name not in grams:
            grams[name] = like.new_zeros(len(seeds), len(seeds))
        return grams[name]

    shares = Shares(budget, like.element_size())
    for source in _sources(model, inputs, seeds, len(seeds), budget):
        _accumulate(source, shares, everything, everything, gram_of)
    for gram in grams.values():
        mirror(gram)
    return grams


def gram_rectangle(
    model: nn.Module, inputs: Inputs, seeds: Seeds, border: int, budget: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products of the gradients of the first n = ``border`` examples with those of the m
    others, without the (n + m)^2 matrix, and the squared norms of all.

    Arguments and warnings as ``gram_blocks``.

    Returns:
        [n, m] and float64 [n + m], on the model's device.
    """
    like = next(model.parameters()).detach()
    total = len(seeds)
    products = like.new_zeros(border, total - border)
    squares = torch.zeros(total, dtype=torch.float64, device=like.device)
    # Products a gradient that is formed: of N examples with themselves it is N.
    partners = 2 * products.numel() // total
    shares = Shares(budget, like.element_size())
    for source in _sources(model, inputs, seeds, partners, budget):
        rows, columns = slice(0, border), slice(border, total)
        _accumulate(source, shares, rows, columns, lambda _: products, squares)
    return products, squares


def squared_norms(model: nn.Module, inputs: Inputs, seeds: Seeds, budget: int) -> torch.Tensor:
    """float64 [N]: squared norms of the gradients of sum(outputs * seeds), in time linear in N.

    Arguments and warnings as ``gram_blocks``.
    """
    total = torch.zeros(len(seeds), dtype=torch.float64, device=seeds.log_norms.device)
    for source in _sources(model, inputs, seeds, 1, budget):
        shares = Shares(budget, next(model.parameters()).element_size())
        for group in packed(source.sizes, 1, shares.kept):
            size = shares.chunk(source.working(group))
            for begin in range(0, len(seeds), size):
                rows = slice(begin, min(begin + size, len(seeds)))

                def add(_: str, kept: Kept, rows: slice = rows, room: int = shares.product) -> None:
                    total[rows] += kept.squared_norms(room)

                source.visit(group, rows, add)
    return total


def mirror(matrix: torch.Tensor) -> None:
    """Copy the upper triangle of [N, N] to the lower one, a slab at a time."""
    for begin in range(0, len(matrix), _MIRROR):
        end = min(begin + _MIRROR, len(matrix))
        matrix[begin:end, :begin] = matrix[:begin, begin:end].T
        corner = matrix[begin:end, begin:end]
        corner.copy_(corner.triu() + corner.triu(1).T)


class Shares:
    """How a budget is spent: bytes for what is ``kept``, numbers for a ``product``."""

    def __init__(self, budget: int, element_size: int) -> None:
        self.budget = budget
        self.kept = 40 * budget // 100
        self.product = max(1, min(_PRODUCT, budget // 10 // element_size))

    def chunk(self, working: int) -> int:
        """Examples a pass."""
        room = 12 * self.budget // 100
        if working > self.budget // 2:
            warnings.warn(
                f"memory_budget: {self.budget / 2**20:.4g} MiB are too few; a pass over one "
                f"example alone takes {working / 2**20:.4g} MiB. Going on one at a time",
                StiffnessWarning,
                stacklevel=2,
            )
        working = max(1, working)
        return max(1, min(room // working, max(_CHUNK, _SMALL // working)))


def _sources(
    model: nn.Module, inputs: Inputs, seeds: Seeds, partners: int, budget: int
) -> list[Source]:
    """Who gives the gradients of which parameters."""
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise StiffnessError("model: no parameter requires a gradient")
    sources: list[Source] = []
    layered = Layered(model, inputs, seeds, partners, budget)
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


def _accumulate(
    source: Source,
    shares: Shares,
    rows: slice,
    columns: slice,
    out_of: Callable[[str], torch.Tensor],
    squares: torch.Tensor | None = None,
) -> None:
    """Add the products of ``rows`` with ``columns``, of all units of a source: where they are the
    same examples the upper triangle, else all of them and, to ``squares``, their squared norms.

    Args:
        out_of: [rows, columns] by unit.
    """
    count = rows.stop - rows.start

    def part(unit: str, some: slice, others: slice) -> torch.Tensor:
        return out_of(unit)[_within(some, rows), _within(others, columns)]

    def add_own(unit: str, kept: Kept, some: slice) -> None:
        if squares is None:
            kept.add_triangle(part(unit, some, some), shares.product)
        else:
            squares[some] += kept.squared_norms(shares.product)

    for group in _groups(source, count, shares, rows == columns):
        chunk = shares.chunk(source.working(group))
        if rows == columns and count <= chunk:
            source.visit(group, rows, lambda unit, kept: add_own(unit, kept, rows))
            continue
        size = min(count, max(1, shares.kept // sum(source.sizes[unit] for unit in group)))
        for block in _cut(rows, size):
            left = _collect(source, group, block, chunk)
            for unit in group:
                add_own(unit, left[unit], block)
            others = slice(block.stop, rows.stop) if rows == columns else columns
            for some in _cut(others, chunk):

                def meet(unit: str, right: Kept, block: slice = block, some: slice = some) -> None:
                    left[unit].add_product(right, part(unit, block, some), shares.product)  # noqa: B023
                    if rows != columns and block.start == rows.start:
                        add_own(unit, right, some)

                source.visit(group, some, meet)


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _groups(source: Source, count: int, shares: Shares, square: bool) -> list[list[str]]:
    """Units that share passes."""
    everything = list(source.sizes)
    one_pass = square and isinstance(source, Layered)
    if one_pass and count <= shares.chunk(source.working(everything)):
        return [everything]
    return packed(source.sizes, count, shares.kept)


def _cut(rows: slice, size: int) -> list[slice]:
    """In even parts of at most ``size``."""
    return cut(rows, -(-(rows.stop - rows.start) // size))


def packed(sizes: dict[str, int], total: int, room: int) -> list[list[str]]:
    """Units that share a pass, in the order of the network; a unit too large stands alone."""
    groups: list[list[str]] = []
    filled = 0
    for unit, size in sizes.items():
        if groups and filled + size * total <= room:
            groups[-1].append(unit)
            filled += size * total
        else:
            groups.append([unit])
            filled = size * total
    return groups


def _collect(source: Source, units: list[str], rows: slice, chunk: int) -> dict[str, Kept]:
    """What is kept of ``rows``, a chunk a pass, written straight to where it stays."""
    whole: dict[str, Kept] = {}

    def reserve(unit: str, kept: Kept) -> None:
        whole[unit] = kept.empty(rows.stop - rows.start)

    # Before a pass over many examples leaves holes in the heap between what stays.
    source.visit(units, slice(rows.start, rows.start + 1), reserve)
    for part in _cut(rows, chunk):
        place = _within(part, rows)
        source.visit(units, part, lambda unit, kept: whole[unit].write(place, kept))  # noqa: B023
    return whole
