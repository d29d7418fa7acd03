"""The forms in which per-example gradients are held, and the products of each form.

Letters: n, m examples; t, s tokens (positions, pixels); p, q the two sides of a weight. A product
needs about ``room`` numbers beside its factors and its result: larger products are cut.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import torch
from torch import nn

from stiffness.gradients.products import add_matmul, add_triangle_with_numpy, suits_numpy

_SLABS = 4  # an upper triangle is covered by at least this many slabs of rows
_LEAST, _MOST = 32, 128  # rows of a slab: fewer are multiplied less well, more waste the corners
SLAB = 2**22  # numbers in the largest intermediate of a product of factors; more gain nothing
# The cost of the elementwise work of a pair of tokens, in multiplications of a product.
ELEMENTWISE = 32

Form = Literal["factors", "late rows", "rows"]
# Columns of rows: how many, and what writes them to a tensor [n, w].
Piece = tuple[int, Callable[[torch.Tensor], object]]
G = TypeVar("G", bound="Gradients")


@dataclass(frozen=True)
class Gradients:
    """Some examples' gradients of one unit: the first axis of every tensor is the example."""

    def add_product(self, other: Any, out: torch.Tensor, room: int) -> None:
        """out [n, m] += g_i . g_j."""
        raise NotImplementedError

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        """out [n, n] += g_i . g_j on and above the diagonal, in slabs of rows."""
        count = len(out)
        size = max(_LEAST, min(_MOST, -(-count // _SLABS)))
        for begin in range(0, count, size):
            rows, rest = slice(begin, min(begin + size, count)), slice(begin, count)
            self[rows].add_product(self[rest], out[rows, rest], room)

    def squared_norms(self, room: int) -> torch.Tensor:
        """float64 [n]: g_i . g_i."""
        raise NotImplementedError

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        """sums [classes, P] (float64) += the weighted sums of the gradients of every class.

        Args:
            labels: the class of every example, integers [n].
            weights: [n].
        """
        raise NotImplementedError

    def __add__(self, other: Any) -> "Gradients":
        """The sum with the gradients of the same examples from another call of the layer."""
        raise NotImplementedError

    def tensors(self) -> dict[str, torch.Tensor]:
        entries = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return {name: value for name, value in entries.items() if isinstance(value, torch.Tensor)}

    @property
    def nbytes(self) -> int:
        return sum(value.nbytes for value in self.tensors().values())

    def __getitem__(self: G, rows: slice) -> G:
        return replace(self, **{name: value[rows] for name, value in self.tensors().items()})

    def __setitem__(self: G, rows: slice, values: G) -> None:
        """Put ``values`` in their place; those of texts may have fewer tokens than there is room
        for, or more."""
        for name, value in values.tensors().items():
            whole = getattr(self, name)
            if value.shape[1:] != whole.shape[1:]:
                empty = 0 if value.is_floating_point() else -1
                more = value.shape[1] - whole.shape[1]
                if more > 0:
                    rest = whole.new_full((len(whole), more, *whole.shape[2:]), empty)
                    whole = torch.cat([whole, rest], 1)
                    object.__setattr__(self, name, whole)
                whole[rows, value.shape[1] :] = empty
                whole[rows, : value.shape[1]] = value
            else:
                whole[rows] = value

    def empty(self, count: int) -> "Gradients":
        """Room for gradients of ``count`` examples in the same form and order of axes."""
        return replace(self, **{n: _empty_like(v, count) for n, v in self.tensors().items()})


def _order(value: torch.Tensor) -> list[int]:
    """The axes, the examples' first, in the order in which they lie in memory."""
    strides = value.stride()
    return [0, *sorted(range(1, value.ndim), key=lambda axis: -strides[axis])]


def _empty_like(value: torch.Tensor, count: int) -> torch.Tensor:
    shape = (count, *value.shape[1:])
    return torch.empty_permuted(shape, _order(value), dtype=value.dtype, device=value.device)


def _dense(value: torch.Tensor) -> list[int]:
    """Strides of a copy in the same order of axes."""
    strides, step = [0] * value.ndim, 1
    for axis in reversed(_order(value)):
        strides[axis], step = step, step * value.shape[axis]
    return strides


@dataclass(frozen=True)
class Rows(Gradients):
    """Every example's gradient, ``rows`` [n, P]. A product costs n m P multiplications."""

    rows: torch.Tensor

    def add_product(self, other: "Rows", out: torch.Tensor, room: int) -> None:
        add_matmul(self.rows, other.rows, out)

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        """By numpy, where that suits."""
        if suits_numpy(self.rows):
            add_triangle_with_numpy(self.rows, out, room)
        else:
            super().add_triangle(out, room)

    def squared_norms(self, room: int) -> torch.Tensor:
        width = max(1, room // (2 * len(self.rows)))  # a float64 counts twice
        parts = self.rows.split(width, 1)
        return sum((part.double() ** 2).sum(1) for part in parts)

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        chosen = nn.functional.one_hot(labels.long(), len(sums)).to(weights) * weights[:, None]
        width = max(1, room // (2 * len(sums)))
        for begin in range(0, sums.shape[1], width):
            part = slice(begin, begin + width)
            sums[:, part] += chosen.T @ self.rows[:, part]

    def __add__(self, other: Any) -> Gradients:
        return Rows(self.rows + other.rows) if isinstance(other, Rows) else other + self


class _Late(Gradients):
    """Rows that are formed in pieces, some columns at a time."""

    def __len__(self) -> int:
        raise NotImplementedError

    def _pieces(self, width: int) -> Iterator[torch.Tensor]:
        raise NotImplementedError

    def add_product(self, other: "_Late", out: torch.Tensor, room: int) -> None:
        width = room // (len(self) + len(other))
        for left, right in zip(self._pieces(width), other._pieces(width), strict=True):
            add_matmul(left, right, out)

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        rest = room // 4
        for piece in self._pieces((room - rest) // len(self)):
            Rows(piece).add_triangle(out, rest)


@dataclass(frozen=True)
class LateRows(_Late):
    """A layer's inputs a and output gradients d, from which rows are formed for each product.

    A product costs as many operations as one of ``Rows``, and less memory where tokens are few and
    the weight is large: the Gram matrix is a sum over parameters, so the rows are formed some
    columns at a time.

    ``columns(a, d, width)`` gives the rows [n, P] in pieces [n, w], w about ``width``. The order of
    the columns may depend on ``width``, where that is less than P.
    """

    a: torch.Tensor
    d: torch.Tensor
    columns: Callable[[torch.Tensor, torch.Tensor, int], Iterator[Piece]]

    def __len__(self) -> int:
        return len(self.a)

    def squared_norms(self, room: int) -> torch.Tensor:
        pieces = self._pieces(room // (2 * len(self.a)))
        return sum(Rows(piece).squared_norms(room // 2) for piece in pieces)  # type: ignore[return-value]

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        """Some examples at a time, whose rows are formed at once: only then is the order of the
        columns that of other chunks, which have other numbers of examples."""
        size = max(1, room // (2 * sums.shape[1]))
        for begin in range(0, len(self), size):
            some = slice(begin, begin + size)
            self[some].as_rows().add_sums(labels[some], weights[some], sums, room // 2)

    def _pieces(self, width: int) -> Iterator[torch.Tensor]:
        return _in_place([self], width)

    def as_rows(self) -> "Rows":
        """Formed at once."""
        pieces = list(self.columns(self.a, self.d, sys.maxsize))
        rows = self.a.new_empty(len(self), sum(size for size, _ in pieces))
        for part, (_, write) in zip(
            rows.split([size for size, _ in pieces], 1), pieces, strict=True
        ):
            write(part)
        return Rows(rows)

    def empty(self, count: int) -> "LateParts":
        stores = [x.new_empty(count * x[0].numel()) for x in (self.a, self.d)]
        return LateParts(count, stores)

    def __add__(self, other: Any) -> Gradients:
        return self.as_rows() + (other.as_rows() if isinstance(other, LateRows) else other)


@dataclass(frozen=True)
class LateParts(_Late):
    """``LateRows`` of chunks of examples, which may have different numbers of tokens.

    Attributes:
        count: examples, when all chunks are there.
        stores: of a and d of all chunks, one after another, reserved at once.
    """

    count: int
    stores: list[torch.Tensor]
    parts: list[LateRows] = field(default_factory=list)
    filled: list[int] = field(default_factory=lambda: [0, 0])

    def __setitem__(self, rows: slice, values: LateRows) -> None:  # type: ignore[override]
        del rows  # chunks come in their order
        a, d = (self._stored(which, x) for which, x in enumerate((values.a, values.d)))
        self.parts.append(replace(values, a=a, d=d))

    def _stored(self, which: int, values: torch.Tensor) -> torch.Tensor:
        begin, end = self.filled[which], self.filled[which] + values.numel()
        if end > len(self.stores[which]):  # more tokens than the first example has
            return values.clone()
        self.filled[which] = end
        place = self.stores[which][begin:end].as_strided(values.shape, _dense(values))
        return place.copy_(values)

    def squared_norms(self, room: int) -> torch.Tensor:
        return torch.cat([part.squared_norms(room) for part in self.parts])

    def _pieces(self, width: int) -> Iterator[torch.Tensor]:
        return _in_place(self.parts, width)

    def __len__(self) -> int:
        return self.count


def _in_place(parts: list[LateRows], width: int) -> Iterator[torch.Tensor]:
    """The rows of all parts together, in pieces: each is used before the next takes its place."""
    counts = [len(part) for part in parts]
    buffer = parts[0].a.new_empty(0)
    for pieces in zip(*(part.columns(part.a, part.d, width) for part in parts), strict=True):
        size = pieces[0][0]
        if len(buffer) < sum(counts) * size:
            buffer = buffer.new_empty(sum(counts) * size)
        whole = buffer[: sum(counts) * size].view(-1, size)
        for place, (_, write) in zip(whole.split(counts), pieces, strict=True):
            write(place)
        yield whole


@dataclass(frozen=True)
class Factors(Gradients):
    """g = sum over t of d_t (x) [a_t, 1]: inputs a [n, t, p] and output gradients d [n, t, q].

    g_i . g_j = sum over t, s of (a_it . a_js + bias) (d_it . d_js). A product costs
    n m t s (p + q) multiplications, and no gradient is formed.
    """

    a: torch.Tensor
    d: torch.Tensor
    bias: bool

    def add_product(self, other: "Factors", out: torch.Tensor, room: int) -> None:
        """Products of one slab of pairs at a time."""
        (n, t, p), (m, s, _) = self.a.shape, other.a.shape
        q, pairs = self.d.shape[2], max(1, min(room // 2, SLAB) // (t * s))
        columns = min(m, pairs)
        rows = max(1, pairs // columns)
        for right in (slice(at, at + columns) for at in range(0, m, columns)):
            other_a, other_d = other.a[right].reshape(-1, p).T, other.d[right].reshape(-1, q).T
            for left in (slice(at, at + rows) for at in range(0, n, rows)):
                products = self.a[left].reshape(-1, p) @ other_a  # [n t, m s]
                if self.bias:
                    products += 1
                products *= self.d[left].reshape(-1, q) @ other_d
                if t == s == 1:
                    out[left, right] += products
                else:
                    out[left, right] += (
                        products.unflatten(0, (-1, t)).unflatten(2, (-1, s)).sum((1, 3))
                    )

    def squared_norms(self, room: int) -> torch.Tensor:
        """The sums of n matrices [t, t]."""
        t = self.a.shape[1]
        norms = []
        size = max(1, room // (4 * t * t))
        for a, d in zip(self.a.split(size), self.d.split(size), strict=True):
            products = a @ a.transpose(1, 2)
            if self.bias:
                products += 1
            products *= d @ d.transpose(1, 2)
            norms.append(products.sum((1, 2), dtype=torch.float64))
        return torch.cat(norms)

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        """One product per class."""
        (_, _, p), q = self.a.shape, self.d.shape[2]
        for label in labels.unique().tolist():
            rows = (labels == label).nonzero().flatten()
            d = (self.d[rows] * weights[rows, None, None]).reshape(-1, q)
            sums[label, : q * p] += (d.T @ self.a[rows].reshape(-1, p)).flatten()
            if self.bias:
                sums[label, q * p :] += d.sum(0)

    def __add__(self, other: Any) -> Gradients:
        """Another call's tokens are further tokens; the cross terms follow."""
        if not isinstance(other, Factors):
            return other + self
        return Factors(torch.cat([self.a, other.a], 1), torch.cat([self.d, other.d], 1), self.bias)
