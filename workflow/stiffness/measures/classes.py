"""The class stiffness matrix and its summaries, with intervals (Eq. 6, 7; Section 4.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stiffness.measures.bootstrap import (
    Floats32,
    ReplicateSums,
    interval_around,
    open_unanimous,
    percentile_interval,
    unanimity_bound,
)
from stiffness.measures.pairs import Bools, Floats, Ints, PairBlock, Pairs, Sides


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs, with its 95 % bootstrap interval over examples; NaN where undefined.

    Attributes:
        value, low, high: the mean, and the ends of the interval.
        num_pairs: number of different pairs.
        replicates: [R], the same mean in every resample of the examples.
    """

    value: float
    low: float
    high: float
    num_pairs: int
    replicates: Floats


@dataclass(frozen=True)
class ClassStiffness:
    """Class stiffness matrix C(a, b) with rows a and columns b (Eq. 6).

    Attributes:
        matrix, low, high: [C, C]; NaN where there is no pair, such as the diagonal entry of a class
            with one example. ``low`` and ``high`` are also NaN where a class has one example only,
            or where all pairs of fewer than four examples of a class agree in sign.
        num_pairs: int64 [C, C]; (i, j) and (j, i) of one set are the same pair.
        within: mean of the diagonal entries that are defined.
        between: mean of the off-diagonal entries that are defined (Eq. 7).
        positive: share of the off-diagonal entries that is above 0 (claim C1).
        groups: mean of the defined off-diagonal entries of each group of cells (Section 4.2).
    """

    matrix: Floats
    low: Floats
    high: Floats
    num_pairs: Ints
    within: Estimate
    between: Estimate
    positive: Estimate
    groups: dict[str, Estimate]


def class_stiffness(
    pairs: Pairs,
    num_classes: int,
    row_weights: Floats32,
    column_weights: Floats32,
    groups: Mapping[str, Bools] | None = None,
) -> ClassStiffness:
    """Mean stiffness of the pairs of every two classes (Eq. 6).

    Args:
        pairs: of one mode and metric.
        num_classes: C.
        row_weights, column_weights: float32 [n, R] and [m, R], the resamples of the row and of the
            column examples from ``bootstrap.draw_weights``; in one set both are the same.
        groups: symmetric masks, bool [C, C], such as those of a hierarchy of classes; their
            diagonals do not count.
    """
    sums = ClassSums(pairs, num_classes, row_weights, column_weights)
    n, m = pairs.values.shape
    sums.add(PairBlock(pairs.values, slice(0, n), slice(0, m)))
    return sums.finish(groups)


class ClassSums:
    """``class_stiffness`` block by block; the sums take O(C^2 R) memory."""

    def __init__(
        self, sides: Sides, num_classes: int, row_weights: Floats32, column_weights: Floats32
    ) -> None:
        """The arguments are those of ``class_stiffness``."""
        self.sides, self.num_classes = sides, num_classes
        self.sums = np.zeros((num_classes, num_classes))
        self.replicates = ReplicateSums(sides, num_classes, row_weights, column_weights)

    def add(self, part: PairBlock) -> None:
        """Add a block of pairs."""
        sides = self.sides
        rows = self._one_hot(sides.row_classes[part.rows], sides.row_defined[part.rows])
        columns = self._one_hot(
            sides.column_classes[part.columns], sides.column_defined[part.columns]
        )
        sums = rows.T @ (part.values @ columns)
        self.sums += sums + sums.T if part.mirrored else sums
        self.replicates.add(part)

    def finish(self, groups: Mapping[str, Bools] | None = None) -> ClassStiffness:
        """Means and intervals; this uses up the sums."""
        sides = self.sides
        sizes = [
            np.bincount(classes, defined, self.num_classes)
            for classes, defined in (
                (sides.row_classes, sides.row_defined),
                (sides.column_classes, sides.column_defined),
            )
        ]
        counts = np.outer(*sizes)
        if sides.same_set:
            np.fill_diagonal(counts, sizes[0] * (sizes[0] - 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = self.sums / counts  # 0 / 0 is NaN: no pair, undefined
        replicates = self.replicates.finish(groups)
        low, high = percentile_interval(replicates.cells)
        factors = [unanimity_bound(size) for size in sizes]
        open_unanimous(matrix, low, high, np.outer(*factors))
        whole = float(np.prod([unanimity_bound(size.sum()) for size in sizes]))
        off_diagonal = ~np.eye(self.num_classes, dtype=bool)
        pair_counts = np.where(off_diagonal, counts, counts / 2) if sides.same_set else counts

        def estimate(entries: Floats, cells: Bools, means: Floats, shared: bool) -> Estimate:
            defined = cells & np.isfinite(matrix)
            if not defined.any():
                return Estimate(np.nan, np.nan, np.nan, 0, means)
            # In one set the cells (a, b) and (b, a) hold the same pairs.
            number = pair_counts[defined].sum() / (2 if shared and sides.same_set else 1)
            value = float(entries[defined].mean())
            low, high = (np.array(end) for end in interval_around(value, means))
            if entries is matrix:
                open_unanimous(np.array(value), low, high, np.array(whole))
            return Estimate(value, float(low), float(high), int(number), means)

        return ClassStiffness(
            matrix,
            low,
            high,
            pair_counts.astype(np.int64),
            estimate(matrix, ~off_diagonal, replicates.within, False),
            estimate(matrix, off_diagonal, replicates.between, True),
            estimate((matrix > 0).astype(np.float64), off_diagonal, replicates.positive, True),
            {
                name: estimate(matrix, mask & off_diagonal, replicates.groups[name], True)
                for name, mask in (groups or {}).items()
            },
        )

    def _one_hot(self, classes: Ints, defined: Bools) -> Floats:
        hot = np.zeros((len(classes), self.num_classes))
        hot[np.arange(len(classes)), classes] = defined
        return hot
