"""The forms in which per-example gradients are held, and the products of each form.

Letters: n, m examples; t, s tokens (positions, pixels); p, q the two sides of a weight. A product
needs about ``room`` numbers beside its factors and its result: larger products are cut.
"""

import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

_SLABS = 4  # an upper triangle is covered by at least this many slabs of rows
_LEAST, _MOST = 32, 128  # rows of a slab: fewer are multiplied less well, more waste the corners
_SLAB = 2**22  # numbers in the largest intermediate of a product of factors; more gain nothing
_SQUARES = 16  # a square of a triangle takes at most this part of the room of a product
_SYRK = (torch.float32, torch.float64)
# The cost of the elementwise work of a pair of tokens, in multiplications of a product.
ELEMENTWISE = 32
_FEW = 8  # up to so many examples that share a row of a table are met pair by pair

# Parameters whose products are summed in single precision; sums over more of them are in double.
# Over 1.6 million parameters of three examples single precision alone was wrong by 2e-4.
_SPAN = 8192

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


def _add_matmul(left: torch.Tensor, right: torch.Tensor, out: torch.Tensor) -> None:
    """out [n, m] += left [n, P] right^T [P, m]."""
    if left.shape[1] <= _SPAN:
        out.addmm_(left, right.T)
        return
    total, product = out.double(), torch.empty_like(out)
    spans = -(-left.shape[1] // _SPAN)
    for one, other in zip(left.chunk(spans, 1), right.chunk(spans, 1), strict=True):
        total += torch.mm(one, other.T, out=product)
    out.copy_(total)


def _has_syrk(rows: torch.Tensor) -> bool:
    """Whether numpy's product of a matrix with its own transpose, which computes one triangle (BLAS
    syrk), is faster than PyTorch's, which has no such product.

    Only with one thread: numpy's BLAS has its own threads, which are in the way of PyTorch's. How
    many they are is set before Python starts.
    """
    threads = os.environ.get("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS"))
    one_thread = torch.get_num_threads() == 1 and threads == "1"
    return one_thread and rows.device.type == "cpu" and rows.dtype in _SYRK


def _add_square(rows: torch.Tensor, out: torch.Tensor) -> None:
    """out [n, n] += rows rows^T."""
    total, product = out.double(), torch.empty_like(out)
    for part in rows.chunk(max(1, -(-rows.shape[1] // _SPAN)), 1):
        matrix = part.numpy()
        np.matmul(matrix, matrix.T, out=product.numpy())
        total += product
    out.copy_(total)


@dataclass(frozen=True)
class Rows(Gradients):
    """Every example's gradient, ``rows`` [n, P]. A product costs n m P multiplications."""

    rows: torch.Tensor

    def add_product(self, other: "Rows", out: torch.Tensor, room: int) -> None:
        _add_matmul(self.rows, other.rows, out)

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        if not _has_syrk(self.rows):
            super().add_triangle(out, room)
            return
        count = len(out)
        size = max(_LEAST, room // (_SQUARES * count))
        for begin in range(0, count, size):
            end = min(begin + size, count)
            own, rest = self.rows[begin:end], self.rows[end:]
            _add_square(own, out[begin:end, begin:end])
            if end < count:
                _add_matmul(own, rest, out[begin:end, end:])

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
        if isinstance(other, LateRows):
            return other + self
        rows = other.as_rows(self.rows.shape[1]) if isinstance(other, Tokens) else other
        return Rows(self.rows + rows.rows)


@dataclass(frozen=True)
class LateRows(Gradients):
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

    def add_product(self, other: "LateRows", out: torch.Tensor, room: int) -> None:
        width = room // (len(self) + len(other))
        for left, right in zip(self._pieces(width), other._pieces(width), strict=True):
            _add_matmul(left, right, out)

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        for piece in self._pieces(room // len(self.a)):
            Rows(piece).add_triangle(out, room)

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
class LateParts(Gradients):
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

    def add_product(self, other: "LateRows | LateParts", out: torch.Tensor, room: int) -> None:
        width = room // (len(self) + len(other))
        for left, right in zip(self._pieces(width), other._pieces(width), strict=True):
            _add_matmul(left, right, out)

    def add_triangle(self, out: torch.Tensor, room: int) -> None:
        for piece in self._pieces(room // len(self)):
            Rows(piece).add_triangle(out, room)

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
        q, pairs = self.d.shape[2], max(1, min(room // 2, _SLAB) // (t * s))
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


@dataclass(frozen=True)
class Tokens(Gradients):
    """An embedding's gradient: d [n, t, q] added to row ``index`` [n, t] of the table (-1: none).

    g_i . g_j = sum over t, s with the same index of d_it . d_js. An index occurs once in an
    example, and tokens are sorted by it, so that only equal ones meet.
    """

    index: torch.Tensor
    d: torch.Tensor

    @classmethod
    def of(cls, index: torch.Tensor, d: torch.Tensor) -> "Tokens":
        """Gradients of tokens that an example may repeat: equal ones are summed in one place."""
        n, t = index.shape
        if t == 1:
            return cls(index, d)
        order = index.argsort(dim=1, stable=True)
        sorted_index = index.gather(1, order)
        first = torch.ones_like(sorted_index, dtype=torch.bool)
        first[:, 1:] = sorted_index[:, 1:] != sorted_index[:, :-1]
        # Where in the sorted row the first of each token's equals stands.
        places = torch.arange(t, device=index.device).expand(n, t)
        place = torch.where(first, places, 0).cummax(1).values
        row = torch.arange(n, device=index.device)[:, None] * t
        goal = torch.empty_like(place).scatter_(1, order, place) + row
        summed = torch.zeros_like(d)
        summed.flatten(0, 1).index_add_(0, goal.flatten(), d.flatten(0, 1))
        return cls(sorted_index.masked_fill(~first, -1), summed)

    def add_product(self, other: "Tokens", out: torch.Tensor, room: int) -> None:
        """Sum over rows of the table: by lists of pairs where few examples share a row, else one
        product per row."""
        mine, theirs = self._by_row(), other._by_row()
        both = torch.isin(mine.rows, theirs.rows, assume_unique=True)
        there = torch.isin(theirs.rows, mine.rows, assume_unique=True)
        begin, count = mine.begin[both], mine.count[both]
        other_begin, other_count = theirs.begin[there], theirs.count[there]
        few = (count <= _FEW) & (other_count <= _FEW)
        i, j = _pairs(begin[few], count[few], other_begin[few], other_count[few])
        size = max(1, room // (3 * self.d.shape[2]))
        for left, right in zip(i.split(size), j.split(size), strict=True):
            at, to = mine.entries[left], theirs.entries[right]
            dots = (self.d[at[:, 0], at[:, 1]] * other.d[to[:, 0], to[:, 1]]).sum(1)
            out.index_put_((at[:, 0], to[:, 0]), dots, accumulate=True)
        many = torch.stack([begin, count, other_begin, other_count], 1)[~few]
        for ranges, width, other_width in _of_similar_sizes(many.tolist(), room, self.d.shape[2]):
            places = torch.tensor(ranges, device=out.device)
            at, mine_there = mine.padded(places[:, 0], places[:, 1], width)
            to, theirs_there = theirs.padded(places[:, 2], places[:, 3], other_width)
            dots = self.d[at[..., 0], at[..., 1]] @ other.d[to[..., 0], to[..., 1]].mT
            dots *= mine_there[:, :, None] & theirs_there[:, None, :]
            out.index_put_((at[:, :, None, 0], to[:, None, :, 0]), dots, accumulate=True)

    def _by_row(self) -> "_Sorted":
        """The tokens in the order of their rows."""
        flat = self.index.flatten()
        order = flat.argsort(dim=0, stable=True)[int((flat < 0).sum()) :]
        rows, count = torch.unique_consecutive(flat[order], return_counts=True)
        t = self.index.shape[1]
        entries = torch.stack([order.div(t, rounding_mode="floor"), order % t], 1)
        return _Sorted(rows, count.cumsum(0) - count, count, entries)

    def squared_norms(self, room: int) -> torch.Tensor:
        valid = (self.index >= 0)[:, :, None]
        size = max(1, room // (4 * self.d[0].numel()))
        return torch.cat(
            [
                (d.double().square() * mask).sum((1, 2))
                for d, mask in zip(self.d.split(size), valid.split(size), strict=True)
            ]
        )

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        width = self.d.shape[2]
        table = sums.view(-1, width)  # the rows of all classes
        valid = self.index >= 0
        index = (labels[:, None] * (len(table) // len(sums)) + self.index)[valid]
        values = (self.d * weights[:, None, None])[valid]
        table.index_add_(0, index, values.to(sums))

    def as_rows(self, size: int) -> "Rows":
        """With the whole table, of ``size`` numbers, for every example."""
        n, width = len(self.d), self.d.shape[2]
        rows = self.d.new_zeros(n, size // width, width)
        index, d = self.index[..., None], self.d.masked_fill(self.index[..., None] < 0, 0)
        return Rows(rows.scatter_add_(1, index.clamp_min(0).expand_as(d), d).flatten(1))

    def __add__(self, other: Any) -> "Gradients":
        if isinstance(other, (Rows, LateRows)):
            return other + self
        if isinstance(other, Factors):
            return Tied(self.index, self.d, other.a, other.d)
        if isinstance(other, Tied):
            return other + self
        index = torch.cat([self.index, other.index], 1)
        return Tokens.of(index, torch.cat([self.d, other.d], 1))


@dataclass(frozen=True)
class Tied(Gradients):
    """A table [v, p] that is looked up, as ``Tokens`` (index, e), and multiplied by, as ``Factors``
    (a, d): its gradient is the sum of both.

    The cross terms are sums over looked-up t and multiplied s of (e_it . a_js) d_js[index_it].
    """

    index: torch.Tensor
    e: torch.Tensor
    a: torch.Tensor
    d: torch.Tensor

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.index, self.e)

    @property
    def factors(self) -> Factors:
        return Factors(self.a, self.d, False)

    def add_product(self, other: "Tied", out: torch.Tensor, room: int) -> None:
        if self._rows_pay(len(self.a), len(other.a)):
            n, m = len(self.a), len(other.a)
            step = max(1, room // ((n + m) * self.a.shape[2] + n * m))
            # One product per row of the table. Few rows have nearly all of the sum, and the others
            # would be lost to rounding if they were added to it one by one.
            for left, right in zip(self._pieces(step), other._pieces(step), strict=True):
                out += torch.bmm(left, right.transpose(1, 2)).sum(0)
            return
        self.tokens.add_product(other.tokens, out, room)
        self.factors.add_product(other.factors, out, room)
        _add_cross(self.tokens, other.factors, out, room)
        _add_cross(other.tokens, self.factors, out.T, room)

    def _rows_pay(self, n: int, m: int) -> bool:
        """Whether a product costs less with rows of the table formed for it."""
        (t, p), (s, q) = self.e.shape[1:], self.d.shape[1:]
        of_factors = n * m * s * (s * (p + q + ELEMENTWISE) + 2 * t * (p + ELEMENTWISE))
        return (n + m) * s * p * q + n * m * p * q < of_factors

    def _pieces(self, step: int) -> Iterator[torch.Tensor]:
        """Every example's gradient of ``step`` rows of the table at a time: [w, n, p]."""
        for begin in range(0, self.d.shape[2], step):
            rows = self.d[..., begin : begin + step].transpose(1, 2) @ self.a
            inside = (self.index >= begin) & (self.index < begin + step)
            example, token = inside.nonzero(as_tuple=True)
            # A row occurs once in an example.
            rows[example, self.index[example, token] - begin] += self.e[example, token]
            yield rows.transpose(0, 1)

    def squared_norms(self, room: int) -> torch.Tensor:
        cross = []
        size = max(1, room // (4 * self.e.shape[1] * self.a.shape[1]))
        for index, e, a, d in zip(
            *(tensor.split(size) for tensor in (self.index, self.e, self.a, self.d)), strict=True
        ):
            at = index.clamp_min(0)[:, None].expand(-1, d.shape[1], -1)
            products = (a @ e.transpose(1, 2)) * d.gather(2, at)  # [n, s, t]
            products = products.masked_fill((index < 0)[:, None], 0)
            cross.append(products.sum((1, 2), dtype=torch.float64))
        norms = self.tokens.squared_norms(room) + self.factors.squared_norms(room)
        return norms + 2 * torch.cat(cross)

    def add_sums(
        self, labels: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor, room: int
    ) -> None:
        self.tokens.add_sums(labels, weights, sums, room)
        self.factors.add_sums(labels, weights, sums, room)

    def __add__(self, other: Any) -> "Tied":
        tokens: Any = self.tokens + other if isinstance(other, Tokens) else self.tokens
        factors: Any = self.factors + other if isinstance(other, Factors) else self.factors
        return Tied(tokens.index, tokens.d, factors.a, factors.d)


def _add_cross(tokens: Tokens, factors: Factors, out: torch.Tensor, room: int) -> None:
    """out [n, m] += products of gradients of a table that is looked up with such of a weight."""
    (n, t, p), (m, s, q) = tokens.d.shape, factors.d.shape
    pairs = max(1, min(room // 3, _SLAB) // (t * s))
    columns = min(m, pairs)
    rows = max(1, pairs // columns)
    valid = (tokens.index >= 0).to(tokens.d)
    for right in (slice(at, at + columns) for at in range(0, m, columns)):
        a, d = factors.a[right].reshape(-1, p).T, factors.d[right].reshape(-1, q)
        for left in (slice(at, at + rows) for at in range(0, n, rows)):
            index, mask = tokens.index[left].flatten(), valid[left].flatten()
            products = (tokens.d[left].reshape(-1, p) @ a) * mask[:, None]  # [n t, m s]
            products *= d.index_select(1, index.clamp_min(0)).T
            out[left, right] += products.unflatten(0, (-1, t)).unflatten(2, (-1, s)).sum((1, 3))


@dataclass(frozen=True)
class _Sorted:
    """Tokens sorted by row of the table: the ``rows`` [r] in use, where each begins among
    ``entries``, the ``count`` of its tokens, and the example and position of each in ``entries``
    [e, 2]."""

    rows: torch.Tensor
    begin: torch.Tensor
    count: torch.Tensor
    entries: torch.Tensor

    def padded(
        self, begin: torch.Tensor, count: torch.Tensor, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The entries [k, width, 2] of k ranges, and which of them [k, width] are in their range.

        After its last entry a range repeats it.
        """
        place = torch.arange(width, device=begin.device)
        there = place < count[:, None]
        return self.entries[begin[:, None] + place.minimum(count[:, None] - 1)], there


def _of_similar_sizes(
    ranges: list[list[int]], room: int, numbers: int
) -> Iterator[tuple[list[list[int]], int, int]]:
    """Pairs of ranges (begin, count, other begin, other count) that one batched product serves.

    Ranges that are too long are cut. Sizes are padded by a quarter at most: many products of few
    tokens each would leave a GPU waiting.

    Yields:
        Pairs of ranges, and the sizes that both sides are padded to.
    """
    longest = max(1, min(room // (4 * numbers), math.isqrt(room // 2)))
    groups: dict[tuple[int, int], list[list[int]]] = {}
    for begin, count, other_begin, other_count in ranges:
        for at in range(0, count, longest):
            for to in range(0, other_count, longest):
                sizes = min(longest, count - at), min(longest, other_count - to)
                pair = [begin + at, sizes[0], other_begin + to, sizes[1]]
                groups.setdefault((_rounded(sizes[0]), _rounded(sizes[1])), []).append(pair)
    for (width, other_width), pairs in groups.items():
        size = max(1, room // (2 * (width + other_width) * numbers + 2 * width * other_width))
        for first in range(0, len(pairs), size):
            yield pairs[first : first + size], width, other_width


def _rounded(size: int) -> int:
    """Up, to three binary digits."""
    step = 1 << max(0, size.bit_length() - 3)
    return -(-size // step) * step


def _pairs(
    begin: torch.Tensor, count: torch.Tensor, other_begin: torch.Tensor, other_count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """All pairs (i, j) of i in the k-th range and j in the k-th other range, for every k."""
    number = count * other_count
    first = number.cumsum(0) - number
    place = torch.arange(int(number.sum()), device=begin.device) - first.repeat_interleave(number)
    width = other_count.repeat_interleave(number)
    return (
        begin.repeat_interleave(number) + place.div(width, rounding_mode="floor"),
        other_begin.repeat_interleave(number) + place % width,
    )
