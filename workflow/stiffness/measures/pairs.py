"""Stiffness of pairs: the metric, the pair mode, and which pairs count (eq. 4, 5; section 2.2).

The matrix of cosines comes in tiles, which are the whole of it or blocks of its upper triangle: a
mode's pairs are what its rows and columns cut out of each.
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
    """Cosines of some examples with others.

    Attributes:
        rows, columns: their numbers; the same, or all rows before all columns.
        values: [n, m], NaN where a gradient is 0.
    """

    rows: slice
    columns: slice
    values: npt.NDArray[np.floating]

    def within(self, rows: slice, columns: slice) -> "Tile | None":
        """What it holds of these rows and columns, without a copy; None where that is nothing."""
        held, met = _common(self.rows, rows), _common(self.columns, columns)
        if held.start >= held.stop or met.start >= met.stop:
            return None
        values = self.values[_shifted(held, self.rows.start), _shifted(met, self.columns.start)]
        return Tile(held, met, values)


def mode_ranges(num_train: int, examples: int, mode: str) -> tuple[slice, slice]:
    """The rows and columns of a mode in the matrix over [training subset ; validation subset].

    Args:
        mode: "train-train", "train-val" (rows are training examples) or "val-val".
    """
    sides = {"train": slice(0, num_train), "val": slice(num_train, examples)}
    row, column = mode.split("-")
    return sides[row], sides[column]


@dataclass(frozen=True)
class Part:
    """Pairs of one mode and metric, as a block of their matrix.

    Attributes:
        values: float64 [n, m]; 0 where a pair does not count.
        rows, columns: where it stands among the mode's rows and columns.
        mirrored: the block counts twice, as it stands and transposed.
    """

    values: Floats
    rows: slice
    columns: slice
    mirrored: bool = False

    def of(self, rows: Bools, columns: Bools) -> "Part":
        """The pairs of the chosen ones among all rows and all columns of the mode."""
        chosen = np.ix_(rows[self.rows], columns[self.columns])
        places = _among(rows, self.rows), _among(columns, self.columns)
        return Part(self.values[chosen], *places, self.mirrored)


@dataclass(frozen=True)
class Sides:
    """The examples that one mode and metric pairs.

    Attributes:
        row_classes, column_classes: [n], [m].
        row_defined, column_defined: [n], [m]; an example whose gradient is 0 has no cosine.
        same_set: rows and columns are the same examples, and an example is no pair with itself.
    """

    row_classes: Ints
    column_classes: Ints
    row_defined: Bools
    column_defined: Bools
    same_set: bool

    @property
    def num_excluded(self) -> int:
        """Examples left out because their gradient is 0."""
        excluded = int((~self.row_defined).sum())
        return excluded if self.same_set else excluded + int((~self.column_defined).sum())

    def columns_of(self, rows: Bools) -> Bools:
        """[m]: the columns that the chosen rows [n] meet; in one set, those that are chosen."""
        return rows if self.same_set else np.ones(len(self.column_classes), bool)

    def of_rows(self, rows: Bools) -> "Sides":
        """Without the other rows, and their columns."""
        columns = self.columns_of(rows)
        return Sides(
            self.row_classes[rows],
            self.column_classes[columns],
            self.row_defined[rows],
            self.column_defined[columns],
            self.same_set,
        )


@dataclass(frozen=True)
class Pairs(Sides):
    """All pairs of one mode and metric, as a matrix of rows by columns.

    Attributes:
        values: [n, m]; 0 where a pair does not count.
    """

    values: Floats


def select_sides(log_norms: Floats, classes: Ints, num_train: int, mode: str, metric: str) -> Sides:
    """Who is paired in a mode.

    Args:
        log_norms: [N], -inf where a gradient is 0. With the sign metric such a pair counts as
            sign(0) = 0; with the cosine it is undefined and excluded.
        mode: as ``mode_ranges``.
    """
    rows, columns = mode_ranges(num_train, len(classes), mode)
    defined = np.isfinite(log_norms) if metric == "cosine" else np.ones(len(log_norms), bool)
    return Sides(
        classes[rows], classes[columns], defined[rows], defined[columns], mode != "train-val"
    )


def select_part(tile: Tile, rows: slice, columns: slice, metric: str) -> Part:
    """The pairs in a tile ``within`` the rows and columns of a mode."""
    # One float64 copy of the block, changed in place: 72 MB of 3,000 x 3,000.
    values = tile.values.astype(np.float64)
    values[np.isnan(values)] = 0
    if metric == "sign":
        np.sign(values, out=values)
    if tile.rows == tile.columns:
        np.fill_diagonal(values, 0)
    return Part(
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
    """Cut one pair mode out of the matrix over [training subset ; validation subset].

    Args:
        cosines: [N, N], NaN where a gradient is 0.
        log_norms, mode: as ``select_sides``.
    """
    sides = select_sides(log_norms, classes, num_train, mode, metric)
    rows, columns = mode_ranges(num_train, len(classes), mode)
    part = select_part(Tile(rows, columns, cosines[rows, columns]), rows, columns, metric)
    return Pairs(**vars(sides), values=part.values)


def _among(chosen: Bools, part: slice) -> slice:
    """The chosen ones of a part, counted among all chosen ones."""
    return slice(int(chosen[: part.start].sum()), int(chosen[: part.stop].sum()))


def _common(one: slice, other: slice) -> slice:
    return slice(max(one.start, other.start), min(one.stop, other.stop))


def _shifted(part: slice, start: int) -> slice:
    return slice(part.start - start, part.stop - start)
