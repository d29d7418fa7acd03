"""Gram matrices of per-example gradients, given the output gradients that they start from.

The network's parameters are split into units, usually one per layer, and each unit adds its block
to the Gram matrix. The work has four parts, each in its own file:

* ``cover``: which parameters have a fast path, proved on single examples against autograd;
* ``plan``: the form of each unit, and the grouping of passes by memory, once per architecture;
* ``passes``: the inputs and output gradients of layers, from shared forward and backward passes
  (parameters without a fast path go through ``fallback``);
* ``multiply``: the forms of gradients, and their products.

This module joins them. One forward and backward pass serves all units whose gradients fit in memory
together. Where they do not, blocks of a deep network take turns (``sweep``), or groups of units
take further passes. A unit that does not fit alone is cut into blocks of examples: one is held
while the others pass by. Where all examples fit in one pass nothing is held. Time grows with a
smaller budget, the answer does not change.

Only one triangle of the matrix is computed. A rectangle, of rows and other examples as columns, is
computed in the same way: a block of rows is held while the columns pass by. It has no diagonal, so
that squared norms come from the same passes.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from stiffness.data.batch import Inputs
from stiffness.data.shards import cut
from stiffness.gradients.memory import packed, peak_bytes
from stiffness.gradients.multiply import Gradients
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.passes import FastPasses, Source
from stiffness.gradients.plan import Plan, Plans, Shares, block_groups, group_units, one_pass
from stiffness.gradients.sweep import Sweep

_MIRROR = 128  # rows copied at once


def gram_blocks(
    model: nn.Module,
    inputs: Inputs,
    output_grads: OutputGrads,
    per_layer: bool,
    budget: int,
    plans: Plans | None = None,
) -> dict[str, torch.Tensor]:
    """Gram matrices [N, N] of the gradients of sum(outputs * output_grads), on the model's device.

    Args:
        budget: bytes for everything but the model, the data and the result.
        plans: those of earlier calls for this network.

    Returns:
        One matrix under the key "", or one per parameter-owning module under its name.

    Warns:
        StiffnessWarning: parameters without a fast path; a budget too small for one example.
    """
    grams: dict[str, torch.Tensor] = {}
    like = next(model.parameters()).detach()
    everything = slice(0, len(output_grads))

    def gram_of(unit: str) -> torch.Tensor:
        name = plan.owners[unit] if per_layer else ""
        if name not in grams:
            grams[name] = like.new_zeros(len(output_grads), len(output_grads))
        return grams[name]

    shares = Shares(budget, like.element_size(), len(output_grads))
    plan = (plans or Plans()).plan(model, inputs, output_grads, len(output_grads), budget)
    for source in plan.sources(model, inputs, output_grads):
        if not _swept(source, plan, shares, len(output_grads), gram_of):
            _accumulate(source, shares, everything, everything, gram_of)
    for gram in grams.values():
        mirror(gram)
    return grams


def gram_rectangle(
    model: nn.Module,
    inputs: Inputs,
    output_grads: OutputGrads,
    border: int,
    budget: int,
    plans: Plans | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products of the gradients of the first n = ``border`` examples with those of the m
    others, without the (n + m)^2 matrix, and the squared norms of all.

    Arguments and warnings are those of ``gram_blocks``.

    Returns:
        [n, m] and float64 [n + m], on the model's device.
    """
    like = next(model.parameters()).detach()
    total = len(output_grads)
    products = like.new_zeros(border, total - border)
    squares = torch.zeros(total, dtype=torch.float64, device=like.device)
    # Products per gradient that is formed: N of N examples with themselves.
    partners = 2 * products.numel() // total
    shares = Shares(budget, like.element_size())
    plan = (plans or Plans()).plan(model, inputs, output_grads, partners, budget)
    for source in plan.sources(model, inputs, output_grads):
        rows, columns = slice(0, border), slice(border, total)
        _accumulate(source, shares, rows, columns, lambda _: products, squares)
    return products, squares


def squared_norms(
    model: nn.Module,
    inputs: Inputs,
    output_grads: OutputGrads,
    budget: int,
    plans: Plans | None = None,
) -> torch.Tensor:
    """float64 [N]: squared norms of the gradients of sum(outputs * output_grads).

    The time is linear in N. Arguments and warnings are those of ``gram_blocks``.
    """
    total = torch.zeros(
        len(output_grads), dtype=torch.float64, device=output_grads.log_norms.device
    )
    plan = (plans or Plans()).plan(model, inputs, output_grads, 1, budget)
    shares = Shares(budget, next(model.parameters()).element_size())
    for source in plan.sources(model, inputs, output_grads):
        for group in packed(source.sizes, 1, shares.gradients):
            size = shares.chunk(source.working(group))
            for begin in range(0, len(output_grads), size):
                rows = slice(begin, min(begin + size, len(output_grads)))

                def add(_: str, gradients: Gradients, rows: slice = rows) -> None:
                    total[rows] += gradients.squared_norms(shares.product)

                source.visit(group, rows, add)
    return total


def class_sums(
    model: nn.Module,
    inputs: Inputs,
    output_grads: OutputGrads,
    classes: int,
    budget: int,
    plans: Plans | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inner products of the sums of the unit gradients of every class.

    One pass gives an example's gradient, its norm and its part of the sum of its class. Where the
    sums of all parameters do not fit the budget, norms are computed first, and groups of units
    take turns. Arguments and warnings are those of ``gram_blocks``.

    Args:
        classes: their number; the targets are the examples' classes.

    Returns:
        float64 [classes, classes], and float64 [N]: squared norms of the gradients.
    """
    plan = (plans or Plans()).plan(model, inputs, output_grads, 1, budget)
    shares = Shares(budget, next(model.parameters()).element_size())
    sources = plan.sources(model, inputs, output_grads)
    labels = output_grads.targets
    numbers = plan.numbers(model)
    groups = packed({name: 8 * size for name, size in numbers.items()}, classes, budget // 4)
    device = output_grads.log_norms.device
    squares = torch.zeros(len(labels), dtype=torch.float64, device=device)
    if len(groups) > 1:
        squares = squared_norms(model, inputs, output_grads, budget, plans)
    products = torch.zeros(classes, classes, dtype=torch.float64, device=device)
    for group in groups:
        sums = {unit: squares.new_zeros(classes, numbers[unit]) for unit in group}
        chosen = [(source, [name for name in group if name in source.sizes]) for source in sources]
        chosen = [(source, names) for source, names in chosen if names]
        working = sum(
            source.working(names) + sum(source.sizes[name] for name in names)
            for source, names in chosen
        )
        for rows in _cut(slice(0, len(labels)), shares.chunk(working)):
            found: dict[str, Gradients] = {}
            for source, names in chosen:
                source.visit(names, rows, found.__setitem__)
            if len(groups) == 1:
                squares[rows] = sum(some.squared_norms(shares.product) for some in found.values())
            norms = squares[rows].sqrt()
            weights = torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))
            for unit, some in found.items():
                some.add_sums(labels[rows], weights.to(_dtype(some)), sums[unit], shares.product)
        products += sum(part @ part.T for part in sums.values())
    return products, squares


def _dtype(gradients: Gradients) -> torch.dtype:
    return next(x.dtype for x in gradients.tensors().values() if x.is_floating_point())


def mirror(matrix: torch.Tensor) -> None:
    """Copy the upper triangle of [N, N] to the lower one, a slab at a time."""
    for begin in range(0, len(matrix), _MIRROR):
        end = min(begin + _MIRROR, len(matrix))
        matrix[begin:end, :begin] = matrix[:begin, begin:end].T
        corner = matrix[begin:end, begin:end]
        corner.copy_(corner.triu() + corner.triu(1).T)


def _accumulate(
    source: Source,
    shares: Shares,
    rows: slice,
    columns: slice,
    out_of: Callable[[str], torch.Tensor],
    squares: torch.Tensor | None = None,
) -> None:
    """Add the products of ``rows`` with ``columns`` for all units of a source.

    Where they are the same examples, products are those of the upper triangle. Where they are not,
    the squared norms of all are added to ``squares``.

    Args:
        out_of: the matrix [rows, columns] of a unit.
    """
    count = rows.stop - rows.start

    def part(unit: str, some: slice, others: slice) -> torch.Tensor:
        return out_of(unit)[_within(some, rows), _within(others, columns)]

    def add_own(unit: str, gradients: Gradients, some: slice) -> None:
        if squares is None:
            gradients.add_triangle(part(unit, some, some), shares.product)
        else:
            squares[some] += gradients.squared_norms(shares.product)

    for group in group_units(source, count, shares, rows == columns):
        chunk = shares.chunk(source.working(group))
        if rows == columns and (count <= chunk or one_pass(source, count, shares)):
            source.visit(group, rows, lambda unit, own: add_own(unit, own, rows))
            continue
        size = min(count, max(1, shares.gradients // sum(source.sizes[unit] for unit in group)))
        for block in _cut(rows, size):

            def visit(
                rows: slice,
                receive: Callable[[str, Gradients], None],
                _: bool,
                group: list[str] = group,
            ) -> None:
                source.visit(group, rows, receive)

            held = _collect(visit, block, chunk)
            for unit in group:
                add_own(unit, held[unit], block)
            others = slice(block.stop, rows.stop) if rows == columns else columns
            for some in _cut(others, chunk):

                def meet(
                    unit: str, right: Gradients, block: slice = block, some: slice = some
                ) -> None:
                    out = part(unit, block, some)
                    held[unit].add_product(right, out, shares.product)  # noqa: B023
                    if rows != columns and block.start == rows.start:
                        add_own(unit, right, some)

                source.visit(group, some, meet)
            held.clear()  # before the next block comes


def _swept(
    source: Source, plan: Plan, shares: Shares, count: int, out_of: Callable[[str], torch.Tensor]
) -> bool:
    """Add the products of all examples block by block, where that spares passes."""
    everything = slice(0, count)
    if not isinstance(source, FastPasses) or len(group_units(source, count, shares, True)) == 1:
        return False
    blocks = plan.find_blocks(source)
    if blocks is None:
        return False
    starts = block_groups(source.sizes, blocks, count, shares)
    if starts is None:
        return False
    sweep = Sweep(source, blocks, starts, count)
    sweep.forward(shares.chunk(sweep.forward_bytes()))
    for group in reversed(range(len(starts))):
        one = slice(0, 1)
        working = peak_bytes(partial(sweep.visit, group, one, lambda *_: None, keep=True))
        chunk = shares.chunk(working)
        held = _collect(partial(sweep.visit, group), everything, chunk)
        sweep.free(group)
        for unit in list(held):  # freed before the next group comes
            held.pop(unit).add_triangle(out_of(unit), shares.product)
    return True


def _within(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


def _cut(rows: slice, size: int) -> list[slice]:
    """Even parts of at most ``size``."""
    return cut(rows, -(-(rows.stop - rows.start) // size))


def _collect(
    visit: Callable[[slice, Callable[[str, Gradients], None], bool], None],
    rows: slice,
    chunk: int,
) -> dict[str, Gradients]:
    """The gradients of the examples in ``rows``, one chunk per pass, written where they stay.

    Args:
        visit: a pass, of which the last argument says that there will be another over these rows.
    """
    whole: dict[str, Gradients] = {}

    def reserve(unit: str, gradients: Gradients) -> None:
        whole[unit] = gradients.empty(rows.stop - rows.start)

    # Before a pass over many examples leaves holes in the heap between the tensors that stay.
    visit(slice(rows.start, rows.start + 1), reserve, True)
    for part in _cut(rows, chunk):
        place = _within(part, rows)
        visit(part, lambda unit, some: whole[unit].__setitem__(place, some), False)  # noqa: B023
    return whole
