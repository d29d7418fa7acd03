"""Products of rows, which are summed over their columns: PyTorch's, and numpy's of a triangle."""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from threadpoolctl import ThreadpoolController

# Columns whose products are summed in single precision; sums over more of them are in double.
# Over 1.6 million parameters of three examples single precision alone was wrong by 2e-4.
_SPAN = 8192
_SYRK = (torch.float32, torch.float64)
_LONG = 2**33  # multiplications of a product that takes about 0.1 s with two threads
_LEAST, _SQUARE = 32, 2048  # rows of a square that numpy multiplies: more gain nothing

Spans = Sequence[tuple[np.ndarray, np.ndarray]]


def add_matmul(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out [n, m] += left [n, P] right^T [P, m]."""
    spans = _spans(left, right)
    if len(spans) == 1:
        out.addmm_(left, right.T)
        return
    total, product = out.double(), torch.empty_like(out)
    for one, other in spans:
        total += torch.mm(one, other.T, out=product)
    out.copy_(total)


def suits_numpy(rows: torch.Tensor) -> bool:
    """Whether the triangle of rows rows^T is left to numpy, whose product of a matrix with its own
    transpose computes one triangle (BLAS syrk). PyTorch has no such product."""
    long = torch.get_num_threads() == 1 or len(rows) * rows.numel() >= _LONG
    return long and rows.device.type == "cpu" and rows.dtype in _SYRK


def add_triangle_with_numpy(rows: torch.Tensor, out: torch.Tensor, room: int) -> None:
    """out [n, n] += rows [n, P] rows^T on and above the diagonal, in squares.

    Every thread multiplies columns of its own, with one thread of numpy's BLAS. With threads of its
    own numpy's BLAS doubles the time of what PyTorch does next: they spin for a while when they are
    done. So do PyTorch's, in the way of ours, which are worth it for long products only.
    """
    number = torch.get_num_threads()
    # Numbers of every thread's product and its sum, and of the whole sum, in double precision.
    most = min(_SQUARE, max(_LEAST, math.isqrt(room // (3 * number + 2))))
    size = -(-len(out) // -(-len(out) // most))
    parts = list(zip(rows.split(size), out.split(size), strict=True))
    with ThreadPoolExecutor(number) as threads, _pools().limit(limits=1):
        for place, (own, slab) in enumerate(parts):
            columns = slab.split(size, 1)[place:]
            for (other, _), square in zip(parts[place:], columns, strict=True):
                _add_with_numpy(own, other, square, threads, number)


def _spans(*rows: torch.Tensor, threads: int = 1) -> list[tuple[torch.Tensor, ...]]:
    """The same columns of all, in even parts of at most ``_SPAN``, as many for every thread."""
    number = threads * max(1, -(-rows[0].shape[1] // (threads * _SPAN)))
    return list(zip(*(one.chunk(number, 1) for one in rows), strict=True))


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def _add_with_numpy(
    left: torch.Tensor,
    right: torch.Tensor,
    out: torch.Tensor,
    threads: ThreadPoolExecutor,
    number: int,
) -> None:
    """out [n, m] += left [n, P] right^T [P, m]; one triangle where both are the same."""
    spans = [(one.numpy(), other.numpy()) for one, other in _spans(left, right, threads=number)]
    # With fewer columns than threads, some have nothing to do.
    shares = [spans[first::number] for first in range(min(number, len(spans)))]
    result, wide = out.numpy(), left.shape[1] > _SPAN
    total = result.astype(np.float64) if wide else result
    for product in threads.map(_sum_of_products, shares):
        total += product
    if wide:
        result[...] = total


def _sum_of_products(spans: Spans) -> np.ndarray:
    """In double precision where there are several."""
    product = np.matmul(spans[0][0], spans[0][1].T)
    total = product if len(spans) == 1 else product.astype(np.float64)
    for left, right in spans[1:]:
        total += np.matmul(left, right.T, out=product)
    return total
