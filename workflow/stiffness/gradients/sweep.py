"""One block of a deep network after another, for all examples, where not all gradients fit memory.

Blocks are children of a ``Sequential`` or ``ModuleList``, each of which takes what the one before
it returns: one tensor. A forward pass stores what the first block of every group takes. Then the
groups are visited from the last to the first: each runs forward again from there and backward from
the gradient of what it returns, which the group after it has left in the same place. All examples
of a group are multiplied before the next group comes, so that there is one more forward pass
whatever the number of groups.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import call, take
from stiffness.errors import out_of_memory
from stiffness.gradients.memory import peak_bytes
from stiffness.gradients.multiply import Gradients
from stiffness.gradients.passes import FastPasses

_PROBE = 2  # examples on which the cuts are compared with an ordinary pass
_SAME = 1e-3  # relative difference of squared norms: a wrong cut is wrong by much more


@dataclass(frozen=True)
class Blocks:
    """Where a network can be cut.

    Attributes:
        container: the name of the module whose children the blocks are.
        segments: the units before the blocks, those of every block, and those after them.
        sizes: bytes per example of what every block takes.
    """

    container: str
    segments: list[list[str]]
    sizes: list[int]


class _Stopped(Exception):
    def __init__(self, value: torch.Tensor) -> None:
        self.value = value


class Part:
    """A forward pass of some blocks only.

    Args:
        begin: the first block; those before it are skipped. 0 for the whole beginning.
        end: the block before which the pass stops; None for the end of the network.
        given: what the block ``begin`` takes, if it is not the first.
        store: is given what a block takes, by its number, when the block is reached.
    """

    def __init__(
        self,
        blocks: list[nn.Module],
        begin: int,
        end: int | None,
        given: torch.Tensor | None = None,
        store: Callable[[int, torch.Tensor], None] | None = None,
    ) -> None:
        self.blocks, self.begin, self.end = blocks, begin, end
        self.given, self.store = given, store

    def run(self, forward: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What the model returns, or what the block ``end`` would take."""
        with ExitStack() as undo:
            for number, block in enumerate(self.blocks):
                if number < self.begin:
                    last = number == self.begin - 1
                    block.forward = _Skipped(self.given if last else None)
                    undo.callback(block.__dict__.pop, "forward")
                elif self.store or number == self.end:
                    hook = block.register_forward_pre_hook(self._hook_of(number), with_kwargs=True)
                    undo.callback(hook.remove)
            try:
                return forward()
            except _Stopped as stopped:
                return stopped.value

    def _hook_of(self, number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            taken = args[0] if args else next(iter(keywords.values()))
            if self.store:
                self.store(number, taken)
            if number == self.end:
                raise _Stopped(taken)

        return hook


class _Skipped:
    """Stands for the forward method of a block that is skipped."""

    def __init__(self, given: torch.Tensor | None) -> None:
        self.given = given

    def __call__(self, *args: Any, **keywords: Any) -> torch.Tensor:
        if self.given is not None:
            return self.given
        return args[0] if args else next(iter(keywords.values()))


def find_blocks(passes: FastPasses) -> Blocks | None:
    """The blocks at which the passes can be cut, if cutting before each of them changes nothing."""
    if passes.uses.layers:
        return None
    best: Blocks | None = None
    most = 0
    for name, module in passes.layers.items():
        if isinstance(module, (nn.Sequential, nn.ModuleList)) and len(module) > 1:
            found = _chain(passes, name, list(module.children()))
            inside = (
                sum(passes.sizes[u] for part in found.segments[1:-1] for u in part) if found else 0
            )
            if found and inside > most:
                best, most = found, inside
    return best if best and _agrees(passes, best) else None


def _chain(passes: FastPasses, container: str, blocks: list[nn.Module]) -> Blocks | None:
    """The blocks as they are called for one example; None where they are no chain."""
    place = [0]
    taken: list[tuple[int, Any]] = []
    given: list[tuple[int, Any]] = []
    seen: dict[str, set[int]] = {unit: set() for unit in passes.units}

    def enter(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, keywords: Any) -> None:
            first = args[0] if args else next(iter(keywords.values()), None)
            taken.append((number, first))
            place[0] = number + 1

        return hook

    def leave(number: int) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, output: Any) -> None:
            given.append((number, output))
            place[0] = len(blocks) + 1 if number == len(blocks) - 1 else -1

        return hook

    with ExitStack() as undo, torch.no_grad():
        for number, block in enumerate(blocks):
            hooks = [
                block.register_forward_pre_hook(enter(number), with_kwargs=True),
                block.register_forward_hook(leave(number)),
            ]
            for hook in hooks:
                undo.callback(hook.remove)
        for unit, about in passes.units.items():
            for layer in about.layers:
                note = passes.layers[layer].register_forward_pre_hook(
                    lambda *_, unit=unit: seen[unit].add(place[0])
                )
                undo.callback(note.remove)
        call(passes.model, take(passes.inputs, slice(0, 1)))
    numbers = list(range(len(blocks)))
    tensors = [*(value for _, value in taken), *(value for _, value in given)]
    if [n for n, _ in taken] != numbers or [n for n, _ in given] != numbers:
        return None
    if not all(isinstance(t, torch.Tensor) and t.is_floating_point() for t in tensors[1:]):
        return None
    if any(one[1] is not two[1] for one, two in zip(given, taken[1:], strict=False)):
        return None
    if any(len(places) != 1 or -1 in places for places in seen.values()):
        return None
    segments: list[list[str]] = [[] for _ in range(len(blocks) + 2)]
    for unit, places in seen.items():
        segments[places.pop()].append(unit)
    return Blocks(container, segments, [value.nbytes for _, value in taken])


def _agrees(passes: FastPasses, blocks: Blocks) -> bool:
    """Whether gradients are the same with a cut before every block."""
    count = min(_PROBE, len(passes.output_grads))
    usual: dict[str, torch.Tensor] = {}
    found: dict[str, torch.Tensor] = {}

    def noting(into: dict[str, torch.Tensor]) -> Callable[[str, Gradients], None]:
        return lambda name, some: into.update({name: some.squared_norms(2**20)})

    passes.visit(list(passes.units), slice(0, count), noting(usual))
    sweep = Sweep(passes, blocks, list(range(len(blocks.sizes))), count)
    try:
        sweep.forward(count)
        for group in reversed(range(len(blocks.sizes))):
            sweep.visit(group, slice(0, count), noting(found))
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
        if out_of_memory(error):
            raise
        return False
    return usual.keys() == found.keys() and all(
        torch.allclose(found[name], usual[name], rtol=_SAME, atol=0) for name in usual
    )


class Sweep:
    """Visits of groups of blocks, the last first.

    Args:
        starts: the first block of each group; the first is 0.
        count: how many examples there are.
    """

    def __init__(self, passes: FastPasses, blocks: Blocks, starts: list[int], count: int) -> None:
        self.passes, self.starts, self.count = passes, starts, count
        self.blocks = list(passes.layers[blocks.container].children())
        edges = [*starts, len(self.blocks)]
        self.units = [
            [unit for part in blocks.segments[begin + 1 : end + 1] for unit in part]
            for begin, end in pairwise(edges)
        ]
        self.units[0] = blocks.segments[0] + self.units[0]
        self.units[-1] = self.units[-1] + blocks.segments[-1]
        self.taken: dict[int, torch.Tensor] = {}
        self.axis: int | None = None  # of tokens, if their number is seen to differ

    def forward(self, chunk: int) -> None:
        """Store what the first block of every group but the first takes."""
        if len(self.starts) == 1:
            return
        for begin in range(0, self.count, chunk):
            self._forward(slice(begin, min(begin + chunk, self.count)))
        if self.passes.tokens(slice(0, 1)) is not None:  # the shortest text shows the axis
            self._forward(slice(self.count - 1, self.count))

    def forward_bytes(self) -> int:
        """Bytes per example of a forward pass."""
        self._forward(slice(0, 1))  # reserves what is stored of all
        return peak_bytes(lambda: self._forward(slice(0, 1)))

    def _forward(self, rows: slice) -> None:
        def store(number: int, taken: torch.Tensor) -> None:
            if number in self.starts[1:]:
                if number not in self.taken:
                    self.taken[number] = taken.new_empty(self.count, *taken.shape[1:])
                self._put(number, rows, taken)

        part = Part(self.blocks, 0, self.starts[-1], store=store)
        with torch.no_grad():
            self.passes.forward(rows, part)

    def visit(
        self,
        group: int,
        rows: slice,
        receive: Callable[[str, Gradients], None],
        keep: bool = False,
    ) -> None:
        """Give ``receive`` the gradients of the units of a group, and leave the gradient of what
        the group takes for the group before it, unless ``keep``."""
        begin = self.starts[group]
        end = self.starts[group + 1] if group + 1 < len(self.starts) else None
        given = self._get(begin, rows).clone() if group else None
        after = None if end is None else self._get(end, rows)

        def leave(gradient: torch.Tensor) -> None:
            if not keep:
                self._put(begin, rows, gradient)

        self.passes.visit_part(
            self.units[group], rows, receive, Part(self.blocks, begin, end, given), after, leave
        )

    def _put(self, number: int, rows: slice, values: torch.Tensor) -> None:
        whole = self.taken[number][rows]
        if values.shape != whole.shape:  # shorter texts than the first, which is the longest
            pairs = enumerate(zip(values.shape, whole.shape, strict=True))
            self.axis = next(axis for axis, (few, many) in pairs if few != many)
            whole.zero_()
            whole = whole.narrow(self.axis, 0, values.shape[self.axis])
        whole.copy_(values)

    def _get(self, number: int, rows: slice) -> torch.Tensor:
        values = self.taken[number][rows]
        tokens = self.passes.tokens(rows)
        if self.axis is None or tokens is None:
            return values
        return values.narrow(self.axis, 0, tokens)

    def free(self, group: int) -> None:
        """Give up the gradient of what comes after a group of which all examples are visited."""
        if group + 1 < len(self.starts):
            del self.taken[self.starts[group + 1]]
