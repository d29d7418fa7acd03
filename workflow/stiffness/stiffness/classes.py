"""The class stiffness matrix and its summaries, with standard errors (eq. 6, 7; section 4.2).

Pairs that share an example are not independent. Errors are delete-one-example jackknife errors,
stratified by class as the subset was drawn; every quantity here is a mean of means over pairs, for
which the jackknife has the closed form used below.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stiffness.stiffness.pairs import Bools, Floats, Ints, Pairs


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs with its standard error over examples (NaN where undefined)."""

    value: float
    error: float
    num_pairs: int


@dataclass(frozen=True)
class ClassStiffness:
    """Class stiffness matrix C(a, b) with rows a and columns b.

    Attributes:
        matrix, error: [C, C]; NaN where there is no pair, such as the diagonal entry of a class
            with one example.
        num_pairs: [C, C]; different pairs, so that (i, j) and (j, i) of one class count once.
        within: mean of the diagonal, over the classes where it is defined.
        between: mean of the off-diagonal entries, likewise (eq. 7).
        groups: mean of the off-diagonal entries of each group of cells, likewise (section 4.2).
    """

    matrix: Floats
    error: Floats
    num_pairs: Ints
    within: Estimate
    between: Estimate
    groups: dict[str, Estimate]


def class_stiffness(
    pairs: Pairs, num_classes: int, groups: Mapping[str, Bools] | None = None
) -> ClassStiffness:
    """Means over the pairs of every two classes; O(n m C) time.

    Args:
        groups: symmetric [C, C] masks, such as those of a hierarchy of classes; their diagonals
            do not count.
    """
    rows = _one_hot(pairs.row_classes, pairs.row_defined, num_classes)
    columns = _one_hot(pairs.column_classes, pairs.column_defined, num_classes)
    row_sums = rows.sum(1, keepdims=True) * (pairs.values @ columns)  # [n, C]
    sums = rows.T @ row_sums
    counts = np.outer(rows.sum(0), columns.sum(0))
    if pairs.same_set:
        np.fill_diagonal(counts, rows.sum(0) * (rows.sum(0) - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        matrix = sums / counts  # 0 / 0 is NaN: no pair, undefined

    # Mean stiffness of one row example with the members of each class (itself excluded).
    row_means = _example_means(row_sums, rows, columns, pairs.same_set)
    if pairs.same_set:
        column_means, column_hot = row_means, rows
    else:
        column_sums = columns.sum(1, keepdims=True) * (pairs.values.T @ rows)
        column_means, column_hot = _example_means(column_sums, columns, rows, False), columns

    off_diagonal = ~np.eye(num_classes, dtype=bool)
    pair_counts = np.where(off_diagonal, counts, counts / 2) if pairs.same_set else counts
    variance = _cell_variance(row_means, rows) + _cell_variance(column_means, column_hot).T
    if pairs.same_set:
        np.fill_diagonal(variance, _within_variance(row_means, rows))
    within = _mean_of_cells(matrix, pair_counts, ~off_diagonal, np.sqrt(variance))

    def between(cells: Bools) -> Estimate:
        cells = cells & off_diagonal & np.isfinite(matrix)
        error = _sum_error(row_means, rows, column_means, column_hot, pairs.same_set, cells)
        # In one set the cells (a, b) and (b, a) hold the same pairs.
        once = pair_counts / 2 if pairs.same_set else pair_counts
        return _mean_of_cells(matrix, once, cells, error)

    return ClassStiffness(
        matrix,
        np.sqrt(variance),
        pair_counts.astype(np.int64),
        within,
        between(off_diagonal),
        {name: between(cells) for name, cells in (groups or {}).items()},
    )


def _one_hot(classes: Ints, defined: np.ndarray, num_classes: int) -> Floats:
    hot = np.zeros((len(classes), num_classes))
    hot[np.arange(len(classes)), classes] = defined
    return hot


def _example_means(sums: Floats, own: Floats, other: Floats, same_set: bool) -> Floats:
    """[n, C]: an example's mean stiffness with each class; NaN where that class is empty."""
    sizes = np.broadcast_to(other.sum(0), sums.shape)
    if same_set:
        sizes = sizes - own
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums / sizes


def _sample_variance_of_mean(means: Floats, hot: Floats) -> Floats:
    """[C, K]: s^2 / n of the K columns of ``means`` over the members of each class."""
    variance = np.full((hot.shape[1], means.shape[1]), np.nan)
    for label in range(hot.shape[1]):
        members = means[hot[:, label] > 0]
        if len(members) > 1:
            variance[label] = members.var(axis=0, ddof=1) / len(members)
    return variance


def _cell_variance(means: Floats, hot: Floats) -> Floats:
    """Deleting a member of a from C(a, b), a and b drawn independently."""
    return _sample_variance_of_mean(means, hot)


def _within_variance(means: Floats, hot: Floats) -> Floats:
    """[C]: deleting a member from C(a, a), where it takes part as row and as column."""
    sizes = hot.sum(0)
    simple = np.diagonal(_sample_variance_of_mean(means, hot))
    with np.errstate(divide="ignore", invalid="ignore"):
        # 4 s^2 / n, times the exact jackknife factor of a U-statistic of degree 2.
        return np.where(sizes > 2, 4 * simple * ((sizes - 1) / (sizes - 2)) ** 2, np.nan)


def _sum_error(
    row_means: Floats,
    rows: Floats,
    column_means: Floats,
    columns: Floats,
    same_set: bool,
    cells: Bools,
) -> float:
    """Standard error of the sum of ``cells``: defined, off the diagonal, symmetric in one set.

    An example of class a takes part in every C(a, b) and, in the same set, C(b, a): what it adds
    to their sum varies over the members of a.
    """
    total = 0.0
    if same_set:
        total += _stratum_sum(2 * row_means, rows, cells)
    else:
        total += _stratum_sum(row_means, rows, cells)
        total += _stratum_sum(column_means, columns, cells.T)
    return float(np.sqrt(total))


def _stratum_sum(means: Floats, hot: Floats, cells: Bools) -> float:
    """Sum over classes a of s^2 / n of sum_b means[i, b], i in a, over the cells (a, b)."""
    taken = hot @ cells  # [n, C]: 1 where example i's class a and b are one of the cells
    influence = np.where(taken > 0, np.nan_to_num(means), 0).sum(1, keepdims=True)
    variance = _sample_variance_of_mean(influence, hot)[:, 0]
    return float(variance[cells.any(1)].sum())


def _mean_of_cells(
    matrix: Floats, counts: Floats, cells: np.ndarray, error: Floats | float
) -> Estimate:
    """Mean over the defined cells; ``error`` is a cell's, independent of others, or the sum's."""
    defined = cells & np.isfinite(matrix)
    number = int(defined.sum())
    if number == 0:
        return Estimate(np.nan, np.nan, 0)
    value = float(matrix[defined].mean())
    total = float(np.sqrt((error[defined] ** 2).sum())) if np.ndim(error) else float(error)  # type: ignore[index]
    return Estimate(value, total / number, int(counts[defined].sum()))
