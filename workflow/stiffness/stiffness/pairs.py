"""Stiffness of pairs: the metric, the pair mode, and which pairs count (eq. 4, 5; section 2.2)."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

METRICS = ("sign", "cosine")
PAIR_MODES = ("train-train", "train-val", "val-val")


@dataclass(frozen=True)
class Pairs:
    """All pairs of one mode and metric, as a matrix of rows by columns.

    Attributes:
        values: [n, m]; 0 where a pair does not count.
        row_classes, column_classes: [n], [m].
        row_defined, column_defined: [n], [m]; an example whose gradient is 0 has no cosine.
        same_set: rows and columns are the same examples, and an example is no pair with itself.
    """

    values: Floats
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

    def of_rows(self, chosen: Bools) -> "Pairs":
        """The pairs of the chosen rows [n]; in one set, those of which both are chosen."""
        columns = chosen if self.same_set else np.ones(len(self.column_classes), bool)
        return Pairs(
            self.values[np.ix_(chosen, columns)],
            self.row_classes[chosen],
            self.column_classes[columns],
            self.row_defined[chosen],
            self.column_defined[columns],
            self.same_set,
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
        log_norms: [N], -inf where a gradient is 0. With the sign metric such a pair counts as
            sign(0) = 0; with the cosine it is undefined and excluded.
        mode: "train-train", "train-val" (rows are training examples) or "val-val".
    """
    train, validation = slice(0, num_train), slice(num_train, None)
    rows = validation if mode == "val-val" else train
    columns = train if mode == "train-train" else validation
    # One float64 copy of the block, changed in place: 72 MB of 3,000 x 3,000.
    values = cosines[rows, columns].astype(np.float64)
    values[np.isnan(values)] = 0
    if metric == "sign":
        np.sign(values, out=values)
    defined = np.isfinite(log_norms) if metric == "cosine" else np.ones(len(log_norms), bool)
    same_set = mode != "train-val"
    if same_set:
        np.fill_diagonal(values, 0)
    return Pairs(values, classes[rows], classes[columns], defined[rows], defined[columns], same_set)
