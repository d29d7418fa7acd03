"""Stiffness of pairs: the metric, the pair mode, and which pairs count (Eq. 4, 5; Section 2.2).

The matrix of cosines comes as one tile, or as tiles that are blocks of its upper triangle. The rows
and columns of a pair mode cut a block of pairs out of each tile.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

METRICS = ("sign", "cosine")
PAIR_MODES = ("train-train", "train-val", "val-val")


@dataclass(frozen=True)
class Tile:
    """Gradient cosines of some examples with others.

    Attributes:
        rows, columns: ranges of example numbers; equal, or all rows before all columns.
        values: [n, m], cosines; NaN where a gradient is 0.
    """

    rows: slice
    columns: slice
    values: npt.NDArray[np.floating]

    def within(self, rows: slice, columns: slice) -> "Tile | None":
        """The part of the tile in these rows and columns, without a copy; None if it is empty."""
        held, met = _common(self.rows, rows), _common(self.columns, columns)
        if held.start >= held.stop or met.start >= met.stop:
            return None
        values = self.values[_shifted(held, self.rows.start), _shifted(met, self.columns.start)]
        return Tile(held, met, values)


def mode_ranges(num_train: int, examples: int, mode: str) -> tuple[slice, slice]:
    """The rows and columns of a pair mode in the matrix over [training ; validation subset].

    Args:
        num_train: number of training examples; they come first.
        examples: number of all examples.
        mode: "train-train", "train-val" (rows are training examples) or "val-val".
    """
    sides = {"train": slice(0, num_train), "val": slice(num_train, examples)}
    row, column = mode.split("-")
    return sides[row], sides[column]


@dataclass(frozen=True)
class PairBlock:
    """A block of the matrix of pairs of one mode and metric.

    Attributes:
        values: float64 [n, m], stiffness; 0 where a pair does not count.
        rows, columns: the block's ranges within the mode's rows and columns.
        mirrored: whether the block counts twice, as it is and transposed.
    """

    values: Floats
    rows: slice
    columns: slice
    mirrored: bool = False

    def select(self, rows: Bools, columns: Bools) -> "PairBlock":
        """The pairs of chosen examples, by masks over all rows and columns of the mode."""
        chosen = np.ix_(rows[self.rows], columns[self.columns])
        places = _range_among(rows, self.rows), _range_among(columns, self.columns)
        return PairBlock(self.values[chosen], *places, self.mirrored)


@dataclass(frozen=True)
class Sides:
    """The examples that form pairs in one mode and metric.

    Attributes:
        row_classes, column_classes: int64 [n] and [m].
        row_defined, column_defined: bool [n] and [m]; an example whose gradient is 0 has no cosine.
        same_set: whether rows and columns are the same examples; none is a pair with itself.
    """

    row_classes: Ints
    column_classes: Ints
    row_defined: Bools
    column_defined: Bools
    same_set: bool

    @property
    def num_excluded(self) -> int:
        """Number of examples that are left out because their gradient is 0."""
        excluded = int((~self.row_defined).sum())
        return excluded if self.same_set else excluded + int((~self.column_defined).sum())

    def paired_columns(self, rows: Bools) -> Bools:
        """The columns, bool [m], that chosen rows [n] form pairs with: in one set the same ones."""
        return rows if self.same_set else np.ones(len(self.column_classes), bool)

    def select_rows(self, rows: Bools) -> "Sides":
        """Keep the chosen rows [n], and the columns that they form pairs with."""
        columns = self.paired_columns(rows)
        return Sides(
            self.row_classes[rows],
            self.column_classes[columns],
            self.row_defined[rows],
            self.column_defined[columns],
            self.same_set,
        )


@dataclass(frozen=True)
class Pairs(Sides):
    """All pairs of one mode and metric.

    Attributes:
        values: float64 [n, m], stiffness; 0 where a pair does not count.
    """

    values: Floats


def select_sides(log_norms: Floats, classes: Ints, num_train: int, mode: str, metric: str) -> Sides:
    """Find the examples that form pairs in a mode (Section 2.2).

    Args:
        log_norms: [N], logarithms of gradient norms; -inf where a gradient is 0. Pairs of such an
            example count as sign(0) = 0 with the sign metric; they have no cosine.
        classes: [N].
        num_train, mode: as for ``mode_ranges``.
        metric: "sign" (Eq. 4) or "cosine" (Eq. 5).
    """
    rows, columns = mode_ranges(num_train, len(classes), mode)
    defined = np.isfinite(log_norms) if metric == "cosine" else np.ones(len(log_norms), bool)
    return Sides(
        classes[rows], classes[columns], defined[rows], defined[columns], mode != "train-val"
    )


def select_block(tile: Tile, rows: slice, columns: slice, metric: str) -> PairBlock:
    """Turn a tile that lies within the rows and columns of a mode into stiffness of pairs.

    Args:
        rows, columns: of the mode.
        metric: "sign" (Eq. 4) or "cosine" (Eq. 5).
    """
    # One float64 copy of the block, changed in place: 72 MB of 3,000 x 3,000.
    values = tile.values.astype(np.float64)
    values[np.isnan(values)] = 0
    if metric == "sign":
        np.sign(values, out=values)
    if tile.rows == tile.columns:
        np.fill_diagonal(values, 0)
    return PairBlock(
        values,
        _shifted(tile.rows, rows.start),
        _shifted(tile.columns, columns.start),
        rows == columns and tile.rows != tile.columns,
    )


def select_pairs(
    cosines: npt.NDArray[np.floating],
    log_norms: Floats,
    classes: Ints,
    num_train: int,
    mode: str,
    metric: str,
) -> Pairs:
    """Cut one pair mode out of the matrix over [training ; validation subset].

    Args:
        cosines: [N, N]; NaN where a gradient is 0.
        log_norms, classes, num_train, mode, metric: as for ``select_sides``.
    """
    sides = select_sides(log_norms, classes, num_train, mode, metric)
    rows, columns = mode_ranges(num_train, len(classes), mode)
    part = select_block(Tile(rows, columns, cosines[rows, columns]), rows, columns, metric)
    return Pairs(**vars(sides), values=part.values)


def _range_among(chosen: Bools, part: slice) -> slice:
    """The range that the chosen examples of a range have among all chosen examples."""
    return slice(int(chosen[: part.start].sum()), int(chosen[: part.stop].sum()))


def _common(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)
