"""Same-class pairs in the order of their distance, in bins, and resampled (Sections 2.5, 4.4).

``lengths`` turns them into critical lengths. Intervals are bootstrap percentiles; see
``bootstrap``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from stiffness.measures.bootstrap import Floats32, lone_examples, unanimity_bound
from stiffness.measures.pairs import Bools, Floats, Ints, Tile, mode_ranges

Numbers = npt.NDArray[np.integer]
Distances = Callable[[Ints, Ints], npt.NDArray[np.floating]]
"""Gives the distances [n, m] between examples, from their numbers [n] and [m]."""

_CHUNK = 2**17  # weights of pairs held at once, 4 bytes each
_BLOCK = 2**20  # pairs whose float64 terms are held at once
_CUTS = 512

NEAREST_SHARE = 0.9  # of the pairs that lie within the radius of L(r)

ESTIMATORS = ("line", "monotone", "area", "decay", "fixed_effects")
MEASURED, MISFIT, EXTRAPOLATED, BEYOND, NONE = (
    "measured",
    "misfit",
    "extrapolated",
    "beyond the data",
    "none",
)
"""What the value of a critical length is; see ``lengths.CriticalLength``."""


@dataclass(frozen=True)
class ClassPairs:
    """The P same-class pairs of one mode, in the order of distance.

    Attributes:
        first, second: [P], example numbers in the evaluation subset.
        distances: [P], in [0, 2] (Eq. 8), ascending.
        classes: [P]; None where all pairs are of one class.
        same_set: whether both examples of a pair come from one set; otherwise the first comes from
            the training and the second from the validation subset.
    """

    first: Numbers
    second: Numbers
    distances: Floats
    classes: Numbers | None = None
    same_set: bool = True

    def fill(self, values: npt.NDArray[np.floating], tile: Tile) -> None:
        """Copy the cosines of the pairs that a tile has to ``values`` [P]."""
        rows, columns = tile.rows, tile.columns
        for part in blocks(len(values)):
            first, second = self.first[part], self.second[part]
            there = (first >= rows.start) & (first < rows.stop)
            there &= (second >= columns.start) & (second < columns.stop)
            values[part][there] = tile.values[
                first[there] - rows.start, second[there] - columns.start
            ]


def distances_from_matrix(matrix: npt.NDArray[np.floating]) -> Distances:
    """Look distances up in a matrix [N, N] over [training subset ; validation subset]."""
    return lambda rows, columns: matrix[np.ix_(rows, columns)]


def same_class_pairs(distances: Distances, classes: Ints, num_train: int, mode: str) -> ClassPairs:
    """List the same-class pairs of a mode: each unordered pair once, no example with itself.

    This works class by class. Memory holds the pairs, 18 bytes each, and a block of distances.

    Args:
        distances: between examples of the evaluation subset.
        classes: [N].
        num_train, mode: as for ``pairs.mode_ranges``.
    """
    rows, columns = mode_ranges(num_train, len(classes), mode)
    members = [
        (
            rows.start + np.flatnonzero(classes[rows] == label),
            columns.start + np.flatnonzero(classes[columns] == label),
        )
        for label in np.unique(classes)
    ]
    # In one set (i, j) and (j, i) are one pair; training examples come before the others.
    number = sum(int((ours[:, None] < theirs).sum()) for ours, theirs in members)
    first, second = np.empty(number, np.int32), np.empty(number, np.int32)
    apart, labels = np.empty(number), np.empty(number, np.int16)
    begin = 0
    for label, (ours, theirs) in enumerate(members):
        size = max(1, _BLOCK // max(1, len(theirs)))
        for some in (ours[at : at + size] for at in range(0, len(ours), size)):
            i, j = np.nonzero(some[:, None] < theirs)
            part = slice(begin, begin + len(i))
            first[part], second[part] = some[i], theirs[j]
            apart[part], labels[part] = distances(some, theirs)[i, j], label
            begin = part.stop
    order = np.argsort(apart, kind="stable")
    return ClassPairs(first[order], second[order], apart[order], labels[order], rows == columns)


def both_defined(pairs: ClassPairs, defined: Bools) -> Bools:
    """Which pairs have two examples that are ``defined`` [N], bool [P]."""
    return np.asarray(defined[pairs.first] & defined[pairs.second])


def defined_pairs(pairs: ClassPairs, defined: Bools) -> ClassPairs:
    """Drop the pairs of examples that are not ``defined``, bool [N]."""
    keep = both_defined(pairs, defined)
    classes = None if pairs.classes is None else pairs.classes[keep]
    kept = (pairs.first[keep], pairs.second[keep], pairs.distances[keep])
    return ClassPairs(*kept, classes, pairs.same_set)


def near_radius(distances: Floats) -> float:
    """Return the distance within which nine tenths of the pairs lie; NaN where there is none."""
    return float(np.quantile(distances, NEAREST_SHARE)) if len(distances) else np.nan


def blocks(number: int) -> list[slice]:
    """Cut ``number`` pairs into blocks whose float64 terms fit the memory."""
    return [slice(at, min(at + _BLOCK, number)) for at in range(0, number, _BLOCK)]


@dataclass(frozen=True)
class Bins:
    """Mean stiffness in bins of distance; empty bins are left out.

    Attributes:
        distance, value: [B], means over the pairs of a bin.
        low, high: [B], ends of a 95 % bootstrap interval over examples; where all pairs of a bin
            agree in sign they follow from ``bootstrap.unanimity_bound``.
        num_pairs: [B].
    """

    distance: Floats
    value: Floats
    low: Floats
    high: Floats
    num_pairs: Ints


class ResampledPairs:
    """Pairs in bins of distance, with resamples of the examples.

    One object serves all checkpoints and metrics for which the pairs are the same. Since pairs are
    in the order of distance, bins and runs are ranges of them and take no memory per pair.

    Attributes:
        bins: the range of pairs of each bin that has any.
        cuts: [K], the first pair of each of K runs of pairs; every bin begins a run. The monotone
            fits of the resamples resolve distance by these runs.
        lone: [B'], whether a bin has a pair of an example that is alone in its stratum.
        bounds: [B'], of the mean stiffness of a bin whose pairs all agree; see
            ``bootstrap.unanimity_bound``.
        radius: the distance r up to which the area L(r) averages stiffness.
        decay: what ``lengths`` has worked out for decays through these pairs, whatever the values.
    """

    def __init__(
        self, pairs: ClassPairs, edges: Floats, weights: Floats32, radius: float | None = None
    ) -> None:
        """Put the pairs in bins.

        Args:
            pairs: the pairs.
            edges: [B + 1] of the bins, the last one closed.
            weights: [N, R] of examples, from ``bootstrap.draw_weights``.
            radius: see the class; by default ``near_radius`` of the pairs.
        """
        self.pairs, self.weights = pairs, weights
        distances = pairs.distances
        self.radius = near_radius(distances) if radius is None else radius
        number = len(distances)
        self.center = float(distances.mean()) if number else 0.0
        ends = [0, *np.searchsorted(distances, edges[1:-1]).tolist(), number]
        self.bins = [slice(begin, end) for begin, end in pairwise(ends) if begin < end]
        alone, lone, bounds = lone_examples(weights), [], []
        for part in self.bins:
            sides = (pairs.first[part], pairs.second[part])
            rows, columns = (np.bincount(side, minlength=len(weights)) > 0 for side in sides)
            both = rows | columns
            lone.append((alone & both).any())
            sets = (both, both) if pairs.same_set else (rows, columns)
            bounds.append(unanimity_bound([one.sum() for one in sets]).prod())
        self.lone, self.bounds = np.array(lone, bool), np.array(bounds, np.float64)
        self.cuts = self._runs()
        labels = pairs.classes
        self._labels = np.zeros(number, np.int16) if labels is None else labels
        self._num_classes = int(self._labels.max(initial=0)) + 1
        self._counts: tuple[Floats, Floats, Floats] | None = None  # filled with the first values
        self.decay: tuple[Floats, Floats, Floats] | None = None  # likewise

    def _runs(self) -> Ints:
        """Where runs begin: in even steps and with every bin, but pairs at one distance stay
        together."""
        distances = self.pairs.distances
        number = len(distances)
        even = np.arange(0, number, max(1, -(-number // _CUTS)))
        wanted = np.union1d(even, [part.start for part in self.bins]).astype(np.int64)
        split = (wanted > 0) & (distances[wanted] == distances[wanted - 1])
        after = np.searchsorted(distances, distances[wanted], side="right")
        begins = np.where(split, after, wanted)
        return np.unique(begins[begins < number])

    def moved(self, part: slice) -> Floats:
        """Distances from their mean, which keeps the sums of a flat line exact."""
        return self.pairs.distances[part] - self.center

    def totals(self, values: npt.NDArray[np.floating]) -> Floats:
        """Sums of n, x, x x, y, x y for the line's normal equations, [5]."""
        totals = np.zeros(5)
        for part in blocks(len(values)):
            x, y = self.moved(part), values[part].astype(np.float64)
            totals += (len(x), x.sum(), (x**2).sum(), y.sum(), (x * y).sum())
        return totals

    def class_sums(self, values: npt.NDArray[np.floating]) -> Floats:
        """Of every class: n, the sum of x and of y over all its pairs, [3, C]."""
        labels = self._labels
        y = values.astype(np.float64)
        terms = (np.ones(len(y)), self.moved(slice(None)), y)
        return np.stack([np.bincount(labels, term, self._num_classes) for term in terms])

    def sums(
        self, values: npt.NDArray[np.floating]
    ) -> tuple[Floats, list[tuple[Floats, Floats, Floats]]]:
        """Sums of every resample.

        Args:
            values: [V, P], stiffness of the pairs by V metrics.

        Returns:
            The number of pairs in each run [K, R]; and for each metric the sum of its values over
            the runs [K, R]; the sums of the line's normal equations, [5, R]: n, x, x x, y, x y; and
            those of each class, [3, C, R]: n, x, y.
        """

        def ones(part: slice) -> tuple[Floats, Floats]:
            x = self.moved(part)
            return np.ones((1, len(x))), np.stack([x, x**2])

        def measured(part: slice) -> tuple[Floats, Floats]:
            y = values[:, part].astype(np.float64)
            return y, self.moved(part) * y

        if self._counts is None:
            (counts,), line = self._products(ones, 1, 2)
            x = self.moved(slice(None))
            classes = np.stack([self._class_products(one) for one in (np.ones(len(x)), x)])
            self._counts = counts, np.concatenate([counts.sum(0)[None], line]), classes
        counts, line, classes = self._counts
        by_cut, xy = self._products(measured, len(values), len(values))
        found = []
        for y, of_cuts, both in zip(values, by_cut, xy, strict=True):
            equations = np.concatenate([line, of_cuts.sum(0)[None], both[None]])
            of_classes = np.concatenate([classes, self._class_products(y)[None]])
            found.append((of_cuts, equations, of_classes))
        return counts, found

    def _products(
        self, terms: Callable[[slice], tuple[Floats, Floats]], by_run: int, others: int
    ) -> tuple[Floats, Floats]:
        """Weighted sums over each run [B, K, R], and over all pairs [M, R].

        ``terms`` gives the summands of a range of c pairs: [B, c] with B = ``by_run`` for the runs,
        and [M, c] with M = ``others``. In chunks of pairs that fit a cache: the weights of all
        pairs are never held.
        """
        resamples, number = self.weights.shape[1], len(self.pairs.distances)
        size = max(1, _CHUNK // resamples)
        first, second = (np.empty((size, resamples), np.float32) for _ in range(2))
        by_cut = np.zeros((by_run, len(self.cuts), resamples))
        totals = np.zeros((others, resamples))
        for begin in range(0, number, size):
            end = min(begin + size, number)
            weights, by = first[: end - begin], second[: end - begin]
            np.take(self.weights, self.pairs.first[begin:end], axis=0, out=weights, mode="clip")
            np.take(self.weights, self.pairs.second[begin:end], axis=0, out=by, mode="clip")
            weights *= by
            places = np.arange(end - begin)
            runs = np.searchsorted(self.cuts, places + begin, side="right") - 1
            touched = slice(int(runs[0]), int(runs[-1]) + 1)
            values, rest = terms(slice(begin, end))
            # One row for each run that the chunk touches, and each summand: one matrix product.
            summands = np.zeros((by_run, touched.stop - touched.start, len(places)), np.float32)
            summands[:, runs - touched.start, places] = values
            rows = summands.reshape(-1, len(places))
            made = np.concatenate([rows, rest.astype(np.float32)]) @ weights
            by_cut[:, touched] += made[: len(rows)].reshape(*summands.shape[:2], resamples)
            totals += made[len(rows) :]
        return by_cut, totals

    def _class_products(self, values: npt.NDArray[np.floating]) -> Floats:
        """Weighted sums of ``values`` [P] over the pairs of each class, [C, R].

        Those of a class are a matrix, which is formed and multiplied in blocks of its rows.
        """
        sums = np.zeros((self._num_classes, self.weights.shape[1]))
        for label in range(self._num_classes):
            members = np.flatnonzero(self._labels == label)
            members = members[np.argsort(self.pairs.first[members], kind="stable")]
            rows, begins = np.unique(self.pairs.first[members], return_index=True)
            columns, places = np.unique(self.pairs.second[members], return_inverse=True)
            ends, weights = np.append(begins, len(members)), self.weights[columns]
            step = max(1, _BLOCK // max(1, len(columns)))
            for first in range(0, len(rows), step):
                last = min(first + step, len(rows))
                block = slice(ends[first], ends[last])
                numbers = np.diff(ends[first : last + 1])
                matrix = np.zeros((last - first, len(columns)), np.float32)
                matrix[np.repeat(np.arange(last - first), numbers), places[block]] = values[
                    members[block]
                ]
                met = matrix @ weights
                met *= self.weights[rows[first:last]]
                sums[label] += met.sum(0, dtype=np.float64)
        return sums
