"""How much memory a budget is, and how much a pass takes: measured, not guessed."""

import re
import warnings
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from stiffness.errors import StiffnessError, StiffnessWarning, out_of_memory

_LEAST = 2**25  # bytes of a budget that is not worth halving

Result = TypeVar("Result")


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


def within_memory(budget: int, compute: Callable[[int], Result]) -> tuple[Result, int]:
    """What ``compute`` makes of a budget in bytes, and the budget that was small enough.

    A budget may be more than a device has left, since others may use it too: it is halved until
    the device has room. The answer does not depend on it.

    Raises:
        RuntimeError: as PyTorch raises it, where the smallest budget is still too much.

    Warns:
        StiffnessWarning: a budget was too much.
    """
    while True:
        try:
            return compute(budget), budget
        except RuntimeError as error:
            if not out_of_memory(error) or budget < 2 * _LEAST:
                raise
        # After the except clause, whose traceback holds on to tensors.
        budget //= 2
        torch.cuda.empty_cache()  # nothing where there is no GPU
        warnings.warn(
            f"memory_budget: the device has no room for twice as much; going on with "
            f"{budget / 2**20:.4g} MiB",
            StiffnessWarning,
            stacklevel=2,
        )


def packed(sizes: Mapping[str, int], count: int, room: int) -> list[list[str]]:
    """Names in their order, in groups of at most ``room`` bytes for ``count`` examples.

    Args:
        sizes: bytes per example by name; a name that is too large stands alone.
    """
    groups: list[list[str]] = []
    filled = 0
    for name, size in sizes.items():
        if groups and filled + size * count <= room:
            groups[-1].append(name)
            filled += size * count
        else:
            groups.append([name])
            filled = size * count
    return groups


def peak_bytes(function: Callable[[], object]) -> int:
    """The most bytes that tensors made inside ``function`` take at any one time."""
    with _Live() as live:
        function()
    return live.peak


def traffic(function: Callable[[], object]) -> tuple[int, int]:
    """Bytes of all tensors that operators make inside ``function``, and the operators' number."""
    with _Live() as live:
        function()
    return live.total, live.operators


class _Live(TorchDispatchMode):
    """Counts the storages that operators return, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = self.total = self.operators = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, new=False)  # of the model or the data
        self.operators += 1
        result = function(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._meet(tensor, new=True)
        return result

    def _meet(self, tensor: torch.Tensor, new: bool) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.known:
            return
        size = storage.nbytes() if new else 0
        self.known.add(key)
        self.now += size
        self.total += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
