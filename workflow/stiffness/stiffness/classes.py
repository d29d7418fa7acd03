"""The class stiffness matrix and its summaries, with intervals (eq. 6, 7; section 4.2)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stiffness.stiffness.bootstrap import Singles, class_replicates, percentile_interval
from stiffness.stiffness.pairs import Bools, Floats, Ints, Pairs


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs and its 95 % bootstrap interval over examples (NaN where undefined).

    Attributes:
        replicates: [R], the same mean of every resample of the examples.
    """

    value: float
    low: float
    high: float
    num_pairs: int
    replicates: Floats


@dataclass(frozen=True)
class ClassStiffness:
    """Class stiffness matrix C(a, b) with rows a and columns b.

    Attributes:
        matrix, low, high: [C, C]; NaN where there is no pair, such as the diagonal entry of a class
            with one example. ``low`` and ``high`` are also NaN where a class has only one.
        num_pairs: [C, C]; different pairs, so that (i, j) and (j, i) of one class count once.
        within: mean of the diagonal, over the classes where it is defined.
        between: mean of the off-diagonal entries, likewise (eq. 7).
        groups: mean of the off-diagonal entries of each group of cells, likewise (section 4.2).
    """

    matrix: Floats
    low: Floats
    high: Floats
    num_pairs: Ints
    within: Estimate
    between: Estimate
    groups: dict[str, Estimate]


def class_stiffness(
    pairs: Pairs,
    num_classes: int,
    row_weights: Singles,
    column_weights: Singles,
    groups: Mapping[str, Bools] | None = None,
) -> ClassStiffness:
    """Means over the pairs of every two classes.

    Args:
        row_weights, column_weights: [n, R] and [m, R]; resamples of the row and of the column
            examples from ``bootstrap.draw_weights``, the same for both in one set.
        groups: symmetric [C, C] masks, such as those of a hierarchy of classes; their diagonals
            do not count.
    """
    rows = _one_hot(pairs.row_classes, pairs.row_defined, num_classes)
    columns = _one_hot(pairs.column_classes, pairs.column_defined, num_classes)
    sums = rows.T @ (pairs.values @ columns)
    counts = np.outer(rows.sum(0), columns.sum(0))
    if pairs.same_set:
        np.fill_diagonal(counts, rows.sum(0) * (rows.sum(0) - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = sums / counts  # 0 / 0 is NaN: no pair, undefined
    replicates = class_replicates(pairs, num_classes, row_weights, column_weights, groups)
    low, high = percentile_interval(replicates.cells)
    off_diagonal = ~np.eye(num_classes, dtype=bool)
    pair_counts = np.where(off_diagonal, counts, counts / 2) if pairs.same_set else counts

    def estimate(cells: Bools, means: Floats, shared: bool) -> Estimate:
        defined = cells & np.isfinite(matrix)
        if not defined.any():
            return Estimate(np.nan, np.nan, np.nan, 0, means)
        ends = percentile_interval(means)
        # In one set the cells (a, b) and (b, a) hold the same pairs.
        number = pair_counts[defined].sum() / (2 if shared and pairs.same_set else 1)
        value = float(matrix[defined].mean())
        return Estimate(value, float(ends[0]), float(ends[1]), int(number), means)

    return ClassStiffness(
        matrix,
        low,
        high,
        pair_counts.astype(np.int64),
        estimate(~off_diagonal, replicates.within, False),
        estimate(off_diagonal, replicates.between, True),
        {
            name: estimate(mask & off_diagonal, replicates.groups[name], True)
            for name, mask in (groups or {}).items()
        },
    )


def _one_hot(classes: Ints, defined: np.ndarray, num_classes: int) -> Floats:
    hot = np.zeros((len(classes), num_classes))
    hot[np.arange(len(classes)), classes] = defined
    return hot
