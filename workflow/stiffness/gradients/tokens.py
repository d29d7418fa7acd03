"""Gradients of tables that are looked up (embeddings), alone or tied to the weight of a head."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from stiffness.gradients.multiply import ELEMENTWISE, SLAB, Factors, Gradients, LateRows, Rows

_FEW = 8  # up to so many examples that share a row of a table are met pair by pair


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
        if isinstance(other, Rows):
            return self.as_rows(other.rows.shape[1]) + other
        if isinstance(other, Factors):
            return Tied(self.index, self.d, other.a, other.d)
        if isinstance(other, (LateRows, Tied)):
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
    pairs = max(1, min(room // 3, SLAB) // (t * s))
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
