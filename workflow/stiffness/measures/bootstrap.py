"""Percentile intervals from a bootstrap over examples.

Pairs that share an example are not independent, so examples are drawn anew, not pairs: with
replacement, from each stratum (a class of the training or of the validation subset, as the subset
was drawn) one fewer than it holds. As many as it holds would make the variance of a mean of n
examples (n - 1) / n of what it is (McCarthy and Snowden 1985; Rao and Wu 1988). A pair counts as
often as both its examples were drawn together; two copies of one example form no pair. The same
draws serve every checkpoint, metric and learning rate, so that differences between them have
intervals too.

An example that is alone in its stratum is in no resample, since nothing says how another one in its
place would differ. A value that depends on such an example has no interval.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stiffness.measures.pairs import Bools, Floats, Ints, PairBlock, Sides

if TYPE_CHECKING:
    from scipy import sparse

Floats32 = npt.NDArray[np.float32]

COVERAGE = 0.95
_QUANTILE = NormalDist().inv_cdf((1 + COVERAGE) / 2)
_DEFINED = 0.9  # the smallest share of replicates


def draw_weights(strata: Ints, resamples: int, seed: int) -> Floats32:
    """Draw bootstrap resamples of N examples.

    Args:
        strata: [N], numbers of strata; a resample has one example fewer of each than there are.
        resamples: their number R.
        seed: of the draws.

    Returns:
        float32 [N, R], how often each example is in each resample.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((len(strata), resamples), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        even = np.full(len(members), 1 / len(members))
        weights[members] = generator.multinomial(len(members) - 1, even, size=resamples).T
    return weights


def lone_examples(weights: Floats32) -> Bools:
    """Which examples are alone in their strata, bool [N], from ``draw_weights`` [N, R]."""
    return np.asarray((weights == 0).all(axis=1))


def percentile_interval(replicates: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """95 % percentile interval over resamples.

    Args:
        replicates: [..., R]. Undefined (NaN) ones do not count. Infinite ones do: an interval may
            be open to one side.

    Returns:
        Lower and upper ends [...]; NaN where a tenth of the replicates or more are undefined.
    """
    ordered = np.sort(replicates, axis=-1)  # NaN last
    defined = replicates.shape[-1] - np.isnan(ordered).sum(-1)
    tail = (1 - COVERAGE) / 2

    def quantile(share: float) -> Floats:
        # Between the two nearest order statistics; the outer one where either is infinite.
        position = share * np.maximum(defined - 1, 0)
        below, above = np.floor(position).astype(int), np.ceil(position).astype(int)
        at_below = np.take_along_axis(ordered, below[..., None], -1)[..., 0].astype(np.float64)
        at_above = np.take_along_axis(ordered, above[..., None], -1)[..., 0].astype(np.float64)
        with np.errstate(invalid="ignore"):
            between = at_below + (position - below) * (at_above - at_below)
        outer = at_below if share < 0.5 else at_above
        finite = np.isfinite(at_below) & np.isfinite(at_above)
        return np.where(finite, between, outer)

    enough = defined > _DEFINED * replicates.shape[-1]
    return np.where(enough, quantile(tail), np.nan), np.where(enough, quantile(1 - tail), np.nan)


def interval_around(
    value: float, replicates: Floats, highest: Floats | None = None
) -> tuple[float, float]:
    """95 % percentile interval, widened to an estimate that resampling shifts out of it.

    Args:
        value: the estimate; an undefined one widens nothing.
        replicates: [R], as for ``percentile_interval``.
        highest: [R], those that the upper end is taken from; by default the same.

    Returns:
        Lower and upper end; NaN where ``percentile_interval`` gives none.
    """
    low = float(percentile_interval(replicates)[0])
    high = float(percentile_interval(replicates if highest is None else highest)[1])
    if np.isnan(value) or np.isnan(low):
        return low, high
    return min(low, value), max(high, value)


def wilson_interval(count: int, number: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of independent examples.

    Args:
        count, number: how many examples of how many.

    Returns:
        Lower and upper end; the share lies between them.

    Examples:
        >>> [round(end, 3) for end in wilson_interval(0, 10)]
        [0.0, 0.278]
    """
    share, squared = count / number, _QUANTILE**2
    middle = (share + squared / (2 * number)) / (1 + squared / number)
    spread = share * (1 - share) / number + squared / (4 * number**2)
    half = _QUANTILE * np.sqrt(spread) / (1 + squared / number)
    # Where all or none are counted an end is the share, but for rounding.
    return float(min(middle - half, share)), float(max(middle + half, share))


def unanimity_bound(examples: npt.ArrayLike) -> Floats:
    """Bound the mean stiffness with n examples that all agree, from one side.

    If a share q of examples disagrees with the rest, the mean sign of their pairs with others is
    1 - 2 q. Where none of n is seen to, Wilson's 95 % interval of q ends at z^2 / (n + z^2).

    Args:
        examples: numbers n, of any shape.

    Returns:
        1 - 2 q at that end; NaN where it is not above 0, which is for n below 4. A mean over pairs
        of two sets is bounded by the product of both sets' bounds.
    """
    n = np.asarray(examples, np.float64)
    squared = _QUANTILE**2
    bound = (n - squared) / (n + squared)
    return np.asarray(np.where(bound > 0, bound, np.nan))


def open_unanimous(values: Floats, low: Floats, high: Floats, bounds: Floats) -> None:
    """Widen the intervals of means of exactly 1 or -1, in place.

    All pairs agree, and so does every resample of them: a bootstrap would give no width. The
    interval then says what share of the examples may disagree with the rest although none of those
    seen does; see ``unanimity_bound``, which gives the ``bounds``. It is unknown where the bound
    is. All arguments have one shape.
    """
    known, unknown = np.isfinite(low), np.isnan(bounds)
    stiff, against = known & (values == 1), known & (values == -1)
    low[stiff] = bounds[stiff]
    high[against] = -bounds[against]
    low[against & unknown] = high[stiff & unknown] = np.nan


@dataclass(frozen=True)
class ClassReplicates:
    """Class stiffness of R resamples; see ``classes.ClassStiffness``.

    Attributes:
        cells: float32 [C, C, R]; NaN where a resample has no pair.
        within, between: [R], means over the cells that a resample has pairs of. All are NaN where
            the sample has pairs of some cell, but no resample has.
        positive: [R], the share of off-diagonal cells above 0.
        groups: [R] for each group of cells.
    """

    cells: Floats32
    within: Floats
    between: Floats
    positive: Floats
    groups: dict[str, Floats]


class ReplicateSums:
    """Class stiffness of R resamples, accumulated block by block.

    A block of n x m pairs costs O(R n m), in one matrix product per class. The sums take float32
    [C, C, R].
    """

    def __init__(
        self, sides: Sides, num_classes: int, row_weights: Floats32, column_weights: Floats32
    ) -> None:
        """``row_weights`` [n, R] and ``column_weights`` [m, R] come from ``draw_weights``."""
        self.sides, self.weights = sides, (row_weights, column_weights)
        resamples = row_weights.shape[1]
        self.sums = np.zeros((num_classes, num_classes, resamples), np.float32)

    def add(self, part: PairBlock) -> None:
        """Add a block of pairs."""
        num_classes = len(self.sums)
        rows = _class_indicator(self.sides.row_classes[part.rows], num_classes)
        classes = self.sides.column_classes[part.columns]
        left = _defined_weights(self.weights[0][part.rows], self.sides.row_defined[part.rows])
        right = _defined_weights(
            self.weights[1][part.columns], self.sides.column_defined[part.columns]
        )
        values = part.values.astype(np.float32)
        for b in np.unique(classes):
            members = np.flatnonzero(classes == b)
            met = values[:, members] @ right[members]  # [n, R]: with the drawn members of b
            met *= left
            sums = rows @ met
            self.sums[:, b] += sums
            if part.mirrored:
                self.sums[b] += sums

    def finish(self, groups: Mapping[str, Bools] | None = None) -> ClassReplicates:
        """Divide the sums, in place, by the numbers of pairs.

        Args:
            groups: as for ``classes.class_stiffness``.
        """
        sides, cells = self.sides, self.sums
        num_classes = len(cells)
        members = [
            _class_indicator(classes, num_classes, defined)
            for classes, defined in (
                (sides.row_classes, sides.row_defined),
                (sides.column_classes, sides.column_defined),
            )
        ]
        totals, columns = (
            one @ weights for one, weights in zip(members, self.weights, strict=True)
        )
        squares = members[0] @ self.weights[0] ** 2 if sides.same_set else None
        for b in range(num_classes):
            number = totals * columns[b]
            if squares is not None:
                number[b] -= squares[b]
            with np.errstate(divide="ignore", invalid="ignore"):
                np.divide(cells[:, b], number, out=cells[:, b])  # 0 / 0 is NaN: no pair
        sizes = [one.sum(axis=1) for one in members]
        held = np.outer(*sizes) > 0
        if sides.same_set:
            np.fill_diagonal(held, sizes[0] > 1)
        unknown = held & np.isnan(cells).all(-1)  # too few examples to draw from
        off_diagonal = ~np.eye(num_classes, dtype=bool)

        def mean(mask: Bools, positive: bool = False) -> Floats:
            """Mean [R] over the cells in ``mask`` that a resample has pairs of, or the share that
            is positive."""
            chosen = cells[mask]
            defined = ~np.isnan(chosen)
            if positive:
                chosen = (chosen > 0).astype(np.float32)
            if unknown[mask].any():
                return np.full(cells.shape[-1], np.nan)
            with np.errstate(invalid="ignore"):
                sums = np.where(defined, chosen, 0).sum(0, dtype=np.float64)
                return np.asarray(sums / defined.sum(0))

        means = {name: mean(mask & off_diagonal) for name, mask in (groups or {}).items()}
        own, others = mean(~off_diagonal), mean(off_diagonal)
        return ClassReplicates(cells, own, others, mean(off_diagonal, True), means)


def _defined_weights(weights: Floats32, defined: Bools) -> Floats32:
    """Weights with 0 for undefined examples; the same array where all are defined."""
    return weights if defined.all() else weights * defined[:, None]


def _class_indicator(
    classes: Ints, num_classes: int, defined: Bools | None = None
) -> "sparse.csr_array":
    """Indicator matrix [C, n] of (defined) class members; a product with it sums over them."""
    from scipy import sparse  # figures that need a constant of this room do without

    ones = np.ones(len(classes), np.float32) if defined is None else defined.astype(np.float32)
    places = (classes, np.arange(len(classes)))
    return sparse.csr_array((ones, places), shape=(num_classes, len(classes)))
