"""How the gradients of a network are computed: the form of each unit and the grouping of passes.

For a layer with t positions per example (pixels, tokens; 1 for a vector), p inputs and q outputs,
and N examples, the gradients are multiplied in one of two ways, whichever costs fewer operations:

* factors, the layer's inputs and output gradients: N^2 t^2 (p + q + 32), and no gradient is ever
  formed. (A pair of positions also meets in elementwise work, worth about 32 multiplications.)
* rows, every example's gradient: N^2 p q + 2 N t p q.

Rows are formed at once, p q numbers per example, or the t (p + q) numbers of which they are made
are held and rows are formed some columns at a time while they are multiplied, whichever is smaller.

Of the memory budget, 40 % are for gradients that are held, 12 % for the tensors of a pass, which
are measured on one example, and up to 10 % for products; the rest is for what no tensor shows, the
scratch space of kernels and the allocator's holes. Where these gradients do not fit together,
blocks of layers take turns (``sweep``), if the network can be cut, and else groups of layers.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, take
from stiffness.errors import StiffnessError, StiffnessWarning, out_of_memory
from stiffness.gradients.cover import covered_units, probe
from stiffness.gradients.fallback import Fallback
from stiffness.gradients.memory import packed
from stiffness.gradients.multiply import ELEMENTWISE, Factors, Rows
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.passes import Call, FastPasses, Source, Unit, gradients_of
from stiffness.gradients.sweep import Blocks, find_blocks
from stiffness.gradients.tokens import Tied
from stiffness.gradients.uses import Uses

_CHUNK = 32  # examples per pass; larger ones no longer gain speed,
_MOST = 64  # unless these are all, so that nothing is held,
_SMALL = 2**25  # or all of a pass is smaller than these bytes
_LARGE = 2**30  # a budget from which on more of it can be used
_PRODUCT = 2**23  # numbers that a product needs at most: more leave the caches,
_COLUMNS = 2**16  # unless an example of a large matrix has fewer columns, which is slow
_SAME = 1e-3  # relative difference of squared norms: a wrong axis is wrong by much more


@dataclass
class Plan:
    """How the gradients of one network are computed.

    Attributes:
        units: with a fast path, by the name of their first layer.
        rest: names of the parameters without one, by the module that owns them.
        vmapped: whether the gradients of the rest come from vmap; None where this is not known.
        peaks: bytes per example of passes, by their units, as far as they have been measured.
        uses: of parameters with a fast path that belong to no layer of a family.
        channels_last: whether the channels of convolutions come last in memory.
        blocks: where the network can be cut; None where it cannot, or if ``asked`` is False.
    """

    units: dict[str, Unit]
    rest: dict[str, list[str]]
    vmapped: bool | None
    peaks: dict[tuple[str, ...], int]
    uses: Uses = field(default_factory=Uses)
    channels_last: bool = False
    blocks: Blocks | None = None
    asked: bool = False

    def find_blocks(self, passes: FastPasses) -> Blocks | None:
        """Where the network can be cut; looked for once."""
        if not self.asked:
            self.blocks, self.asked = find_blocks(passes), True
        return self.blocks

    @property
    def owners(self) -> dict[str, str]:
        """The module that owns the parameters of a unit, by the unit's name."""
        owners = {name: unit.parameters[0].rpartition(".")[0] for name, unit in self.units.items()}
        return owners | {name: name for name in self.rest}

    def numbers(self, model: nn.Module) -> dict[str, int]:
        """How many numbers the gradient of an example has, by unit."""
        units = {name: unit.parameters for name, unit in self.units.items()} | self.rest
        return {
            unit: sum(model.get_parameter(name).numel() for name in names)
            for unit, names in units.items()
        }

    def sources(self, model: nn.Module, inputs: Inputs, output_grads: OutputGrads) -> list[Source]:
        """The passes of this plan over ``inputs``.

        Warns:
            StiffnessWarning: parameters without a fast path.
        """
        sources: list[Source] = []
        given = model, inputs, output_grads
        if self.units:
            fast = FastPasses(*given, self.units, self.peaks, self.uses, self.channels_last)
            sources.append(fast)
        if self.rest:
            slow = Fallback(*given, self.rest, self.peaks, self.vmapped)
            self.vmapped = slow.vmapped
            sources.append(slow)
        return sources


def make_plan(
    model: nn.Module, inputs: Inputs, output_grads: OutputGrads, partners: int, budget: int
) -> Plan:
    """Find the parameters with a fast path, and choose a form for each.

    Args:
        partners: how many examples each is multiplied with: N for a Gram matrix, 1 for norms.
        budget: bytes, of which the proof of the fast path takes about a quarter.

    Raises:
        StiffnessError: no parameter requires a gradient.
    """
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    if not trainable:
        raise StiffnessError("model: no parameter requires a gradient")
    units: dict[str, Unit] = {}
    uses = Uses()
    for name, unit, calls in covered_units(model, inputs, output_grads, budget // 8, uses):
        choose_form(unit, calls, model.get_parameter(unit.parameters[0]), partners)
        units[name] = unit
    # In the order of the network, so that a group of neighbours shares a pass.
    order = {name: at for at, (name, _) in enumerate(model.named_parameters())}
    units = dict(sorted(units.items(), key=lambda item: order[item[1].parameters[0]]))
    covered = {name for unit in units.values() for name in unit.parameters}
    rest: dict[str, list[str]] = {}
    for name in trainable:
        if name not in covered:
            rest.setdefault(name.rpartition(".")[0], []).append(name)
    plan = Plan(units, rest, None, {}, uses)
    plan.channels_last = _channels_last(model, inputs, output_grads, plan)
    return plan


def _channels_last(model: nn.Module, inputs: Inputs, output_grads: OutputGrads, plan: Plan) -> bool:
    """Whether channels can come last: on a CPU, where that is faster, in a network that permits it
    and whose gradients are then the same."""
    weights = [model.get_parameter(unit.parameters[0]) for unit in plan.units.values()]
    if not any(
        w.ndim == 4 and w.dtype == torch.float32 and w.device.type == "cpu" for w in weights
    ):
        return False
    norms: list[dict[str, torch.Tensor]] = []
    for last in (False, True):
        found: dict[str, torch.Tensor] = {}
        passes = FastPasses(model, inputs, output_grads, plan.units, {}, plan.uses, last)
        try:
            passes.visit(
                list(plan.units),
                slice(0, min(2, len(output_grads))),
                lambda name, some: found.update({name: some.squared_norms(2**20)}),  # noqa: B023
            )
        except RuntimeError as error:  # a view that is none of such a tensor, for example
            if out_of_memory(error):
                raise
            return False
        norms.append(found)
    usual, other = norms
    return all(torch.allclose(other[name], usual[name], rtol=_SAME) for name in plan.units)


def choose_form(unit: Unit, calls: list[Call], weight: torch.Tensor, partners: int) -> None:
    """Factors or rows by the number of operations, and rows at once or later by their size."""
    unit.calls = len(calls)
    unit.form = "factors"
    factors = gradients_of(calls, "factors")
    if isinstance(factors, Factors):
        (_, t, p), q = factors.a.shape, factors.d.shape[2]
        unit.pair_cost = t * t * (p + q)
        of_factors = partners * t * t * (p + q + ELEMENTWISE)
        if of_factors > partners * p * q + 2 * t * p * q:
            unit.form, unit.pair_cost = "rows", p * q
    elif isinstance(factors, Tied):
        (_, t, p), (_, s, q) = factors.e.shape, factors.d.shape
        unit.pair_cost = s * (s + 2 * t) * p + s * s * q
    elif isinstance(factors, Rows):
        unit.form, unit.pair_cost = "rows", factors.rows.shape[1]
    if unit.form == "rows":
        late = sum(a.numel() + d.numel() for _, a, d in calls)
        if unit.calls == 1 and weight.ndim > 1 and late < weight.numel():
            unit.form = "late rows"
    unit.size = gradients_of(calls, unit.form).nbytes


class Plans:
    """The plans of one network, made once and reused for all checkpoints of a series.

    A plan is made anew where shapes, types, the number of examples or the budget differ, or where a
    gradient that was 0 proved nothing about a fast path.
    """

    def __init__(self) -> None:
        self._plans: dict[Any, Plan] = {}

    def plan(
        self,
        model: nn.Module,
        inputs: Inputs,
        output_grads: OutputGrads,
        partners: int,
        budget: int,
    ) -> Plan:
        """A plan for ``model``; the arguments are those of ``make_plan``."""
        one = take(inputs, slice(0, 1))
        examples = {"": one} if isinstance(one, torch.Tensor) else one
        tensors = [*examples.items(), *model.named_parameters()]
        about = [(name, t.shape, t.dtype, t.device, t.requires_grad) for name, t in tensors]
        key = (partners, budget, *about)
        if key in self._plans:
            probe(model, inputs, output_grads)
            return self._plans[key]
        plan = make_plan(model, inputs, output_grads, partners, budget)
        if all(unit.proved for unit in plan.units.values()):
            self._plans[key] = plan
        return plan


class Shares:
    """How a budget is spent: bytes for ``gradients`` that are held and for ``passes``, numbers for
    a ``product``, and where blocks take turns, bytes for the gradients of a ``block`` and for what
    blocks take, which is ``stored``.

    Args:
        partners: examples that each is multiplied with; for many, products are wide.
    """

    def __init__(self, budget: int, element_size: int, partners: int = 1) -> None:
        self.budget = budget
        self.gradients = 40 * budget // 100
        self.passes = 12 * budget // 100
        self.stored = 30 * budget // 100
        # Beside what is stored; what no tensor shows hardly grows with the budget.
        self.block = (45 if budget >= _LARGE else 30) * budget // 100
        product = max(_PRODUCT, _COLUMNS * partners)
        self.product = max(1, min(product, budget // 10 // element_size))

    def chunk(self, working: int) -> int:
        """Examples per pass.

        Args:
            working: bytes per example that a pass takes.
        """
        if working > self.budget // 2:
            warnings.warn(
                f"memory_budget: {self.budget / 2**20:.4g} MiB are too few; a pass over one "
                f"example alone takes {working / 2**20:.4g} MiB. Going on one at a time",
                StiffnessWarning,
                stacklevel=2,
            )
        working = max(1, working)
        return max(1, min(self.passes // working, max(_CHUNK, _SMALL // working)))


def one_pass(source: Source, count: int, shares: Shares) -> bool:
    """Whether one pass over all examples, after which nothing is held, fits in memory.

    It may then have what is otherwise for gradients that are held. Texts of many lengths stay in
    chunks, each of which is cut to its longest.
    """
    if not isinstance(source, FastPasses):
        return False
    working = source.working(list(source.sizes))
    if count <= shares.chunk(working):
        return True
    together = count <= _MOST and source.tokens(slice(0, 1)) is None
    return together and count * working <= shares.gradients + shares.passes


def group_units(source: Source, count: int, shares: Shares, square: bool) -> list[list[str]]:
    """Units that share passes, in the order of the network: all of them, where all examples of a
    square fit in one pass."""
    if square and one_pass(source, count, shares):
        return [list(source.sizes)]
    return packed(source.sizes, count, shares.gradients)


def block_groups(
    sizes: Mapping[str, int], blocks: Blocks, count: int, shares: Shares
) -> list[int] | None:
    """The first block of each group whose gradients fit in memory; None where a block does not.

    With the gradients of a group are stored what it and the groups before it take, and the gradient
    of what the group after it takes. A block that is too large for its share alone may have what
    these leave.
    """
    by_segment = [sum(sizes[unit] for unit in units) for units in blocks.segments]
    by_block = by_segment[1:-1]
    by_block[0] += by_segment[0]
    by_block[-1] += by_segment[-1]
    after = [*blocks.sizes[1:], 0]
    room = shares.block + shares.stored
    starts, filled, stored = [0], 0, 0
    for number, size in enumerate(by_block):
        more = filled + size
        if filled and (
            more * count > shares.block or (more + stored + after[number]) * count > room
        ):
            starts.append(number)
            stored += blocks.sizes[number]
            filled = 0
        filled += size
        if (filled + stored + after[number]) * count > room:
            return None
    return starts
