"""What is kept of some examples' gradients, and the blocks of the Gram matrix that follow from it.

Letters: n, m examples; t, s tokens (positions, pixels); p, q the two sides of a weight.
"""

from dataclasses import dataclass

import torch

# Numbers in the largest intermediate of a product with factors.
_SLAB = 2**22


@dataclass(frozen=True)
class Rows:
    """Every example's gradient [n, P]. A product costs n m P."""

    rows: torch.Tensor

    def add_product(self, other: "Rows", out: torch.Tensor) -> None:
        """out [n, m] += g_i . g_j."""
        out.addmm_(self.rows, other.rows.T)

    def squared_norms(self) -> torch.Tensor:
        """[n]: g_i . g_i."""
        return (self.rows.double() ** 2).sum(1)

    def numbers(self) -> int:
        return self.rows.numel()

    def plus(self, other: "Rows") -> "Rows":
        """The same examples and parameters, seen by another call."""
        return Rows(self.rows + other.rows)


@dataclass(frozen=True)
class Factors:
    """g = sum over t of d_t (x) [a_t, 1]: inputs a [n, t, p] and output gradients d [n, t, q].

    g_i . g_j = sum over t, s of (a_it . a_js + bias) (d_it . d_js). A product costs
    n m t s (p + q), and no gradient is formed.
    """

    a: torch.Tensor
    d: torch.Tensor
    bias: bool

    def add_product(self, other: "Factors", out: torch.Tensor) -> None:
        """out [n, m] += g_i . g_j, a slab of examples at a time."""
        (n, t, p), (m, s, _) = self.a.shape, other.a.shape
        q = self.d.shape[2]
        slab = max(1, _SLAB // (t * m * s))
        other_a, other_d = other.a.reshape(m * s, p).T, other.d.reshape(m * s, q).T
        for begin in range(0, n, slab):
            part = slice(begin, min(begin + slab, n))
            products = self.a[part].reshape(-1, p) @ other_a  # [n t, m s]
            if self.bias:
                products += 1
            products *= self.d[part].reshape(-1, q) @ other_d
            if t == s == 1:
                out[part] += products
            else:
                out[part] += products.view(-1, t, m, s).sum((1, 3))

    def squared_norms(self) -> torch.Tensor:
        """[n]: g_i . g_i, from n matrices [t, t]."""
        products = self.a @ self.a.transpose(1, 2)
        if self.bias:
            products += 1
        return (products * (self.d @ self.d.transpose(1, 2))).double().sum((1, 2))

    def numbers(self) -> int:
        return self.a.numel() + self.d.numel()

    def plus(self, other: "Factors") -> "Factors":
        """Another call's tokens are further tokens; the cross terms follow."""
        return Factors(torch.cat([self.a, other.a], 1), torch.cat([self.d, other.d], 1), self.bias)


@dataclass(frozen=True)
class Tokens:
    """An embedding's gradient: d [n, t, q] added to row ``index`` [n, t] of the table (-1: none).

    g_i . g_j = sum over t, s with the same index of d_it . d_js. Tokens are sorted, so only equal
    ones meet.
    """

    index: torch.Tensor
    d: torch.Tensor

    def add_product(self, other: "Tokens", out: torch.Tensor) -> None:
        """out [n, m] += g_i . g_j, a row of the table at a time."""
        mine, other_rows = self._by_row(), other._by_row()
        for row, (examples, sums) in mine.items():
            if row in other_rows:
                others, other_sums = other_rows[row]
                out[examples[:, None], others[None, :]] += sums @ other_sums.T

    def _by_row(self) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """For each row of the table, the examples that use it and the sums of their d."""
        n, t = self.index.shape
        flat = self.index.reshape(-1)
        example = torch.arange(n, device=flat.device).repeat_interleave(t)
        # One entry an (row, example): a token repeated within an example is summed first.
        keys, place = torch.unique(flat * n + example, return_inverse=True)
        sums = self.d.new_zeros(len(keys), self.d.shape[2])
        sums.index_add_(0, place, self.d.reshape(n * t, -1))
        rows, counts = torch.unique_consecutive(
            torch.div(keys, n, rounding_mode="floor"), return_counts=True
        )
        sizes = counts.tolist()
        pieces = zip(
            rows.tolist(), torch.remainder(keys, n).split(sizes), sums.split(sizes), strict=True
        )
        return {row: (examples, d) for row, examples, d in pieces if row >= 0}

    def squared_norms(self) -> torch.Tensor:
        """[n]: g_i . g_i, from n matrices [t, t]."""
        valid = self.index >= 0
        same = (self.index[:, :, None] == self.index[:, None, :]) & valid[:, :, None]
        return ((self.d @ self.d.transpose(1, 2)) * same).double().sum((1, 2))

    def numbers(self) -> int:
        return 2 * self.index.numel() + self.d.numel()

    def plus(self, other: "Tokens") -> "Tokens":
        return Tokens(torch.cat([self.index, other.index], 1), torch.cat([self.d, other.d], 1))


Kept = Rows | Factors | Tokens
