"""Percentile intervals from a bootstrap over examples.

Pairs that share an example are not independent, so examples are drawn anew, not pairs: with
replacement, as many as there were in each stratum (a class of the training or of the validation
subset, as the subset was drawn). A pair counts as often as both its examples were drawn together;
two copies of one example are no pair. The same draws serve every checkpoint, metric and learning
rate, so that differences between them have intervals too.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stiffness.stiffness.pairs import Bools, Floats, Ints, Pairs

Singles = npt.NDArray[np.float32]

COVERAGE = 0.95
_NUMBERS = 2**24  # in the largest intermediate


def draw_weights(strata: Ints, resamples: int, seed: int) -> Singles:
    """float32 [B, N]: how often each of the N examples is in each of B resamples.

    Args:
        strata: [N]; every resample has as many examples of each as there are.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((resamples, len(strata)), np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        even = np.full(len(members), 1 / len(members))
        weights[:, members] = generator.multinomial(len(members), even, size=resamples)
    return weights


def percentile_interval(replicates: npt.NDArray[np.floating]) -> tuple[Floats, Floats]:
    """95 % interval along the first axis of [B, ...]; NaN where a tenth or more are undefined.

    Infinite replicates are numbers like others: an interval may be open to one side.
    """
    count = len(replicates)
    ordered = np.sort(np.asarray(replicates, np.float64), axis=0)  # NaN last
    defined = np.isfinite(replicates).sum(0) + np.isinf(replicates).sum(0)
    tail = (1 - COVERAGE) / 2

    def quantile(share: float) -> Floats:
        # Between the two nearest order statistics; an infinite one is taken as it is.
        position = share * np.maximum(defined - 1, 0)
        below, above = np.floor(position).astype(int), np.ceil(position).astype(int)
        at_below = np.take_along_axis(ordered, below[None], 0)[0]
        at_above = np.take_along_axis(ordered, above[None], 0)[0]
        with np.errstate(invalid="ignore"):
            between = at_below + (position - below) * (at_above - at_below)
        nearest = np.where(share < 0.5, at_below, at_above)
        return np.where(np.isfinite(between), between, nearest)

    enough = defined > 0.9 * count
    return np.where(enough, quantile(tail), np.nan), np.where(enough, quantile(1 - tail), np.nan)


@dataclass(frozen=True)
class ClassReplicates:
    """Class stiffness of B resamples; see ``classes.ClassStiffness``.

    Attributes:
        cells: float32 [B, C, C]; NaN where a resample holds no pair.
        within, between: [B].
        groups: [B] each.
    """

    cells: Singles
    within: Floats
    between: Floats
    groups: dict[str, Floats]


def class_replicates(
    pairs: Pairs,
    num_classes: int,
    row_weights: Singles,
    column_weights: Singles,
    groups: Mapping[str, Bools] | None = None,
) -> ClassReplicates:
    """Class stiffness matrices and their summaries; O(B n m) in one matrix product a class.

    Args:
        row_weights, column_weights: [B, n] and [B, m] from ``draw_weights``; the same of one set.
        groups: as ``classes.class_stiffness``.
    """
    resamples = len(row_weights)
    left = (row_weights * pairs.row_defined).T  # [n, B]
    right = (column_weights * pairs.column_defined).T
    values = pairs.values.astype(np.float32)
    cells = np.full((resamples, num_classes, num_classes), np.nan, np.float32)
    row_members = [np.flatnonzero(pairs.row_classes == label) for label in range(num_classes)]
    totals = np.stack([left[members].sum(0) for members in row_members])  # [C, B]
    for b in range(num_classes):
        members = np.flatnonzero(pairs.column_classes == b)
        met = values[:, members] @ right[members]  # [n, B]: with the drawn members of b
        met *= left
        count = right[members].sum(0)
        for a, mine in enumerate(row_members):
            number = totals[a] * count
            if pairs.same_set and a == b:
                number = number - (left[mine] ** 2).sum(0)
            with np.errstate(divide="ignore", invalid="ignore"):
                cells[:, a, b] = met[mine].sum(0) / number
    off_diagonal = ~np.eye(num_classes, dtype=bool)
    return ClassReplicates(
        cells,
        _mean_over(cells, ~off_diagonal),
        _mean_over(cells, off_diagonal),
        {name: _mean_over(cells, mask & off_diagonal) for name, mask in (groups or {}).items()},
    )


def _mean_over(cells: Singles, mask: Bools) -> Floats:
    """[B]: mean over the defined cells in ``mask``; NaN where there is none."""
    chosen = cells[:, mask]
    defined = ~np.isnan(chosen)
    with np.errstate(invalid="ignore"):
        sums = np.where(defined, chosen, 0).sum(1, dtype=np.float64)
        return np.asarray(sums / np.where(defined.any(1), defined.sum(1), np.nan))
