"""The stiffest and the least stiff examples and pairs of each class, to be looked at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from stiffness.data.evaluation import Evaluation
from stiffness.measures.pairs import Ints, Tile

EXAMPLE, PAIR, OTHER = "example", "pair", "other class"
"""Groups: examples, by their mean stiffness with the other set's examples of their class; pairs of
one class; and pairs of an example of the class and one of another class."""
MOST, LEAST = "most", "least"
EXAMPLES, PAIRS = 3, 2
"""Numbers of examples and of pairs at each end."""

COLUMNS = [
    "class_name",
    "group",
    "extreme",
    "place",
    "value",
    "first",
    "second",
    "predicted_first",
    "predicted_second",
    "second_name",
    "class_mean",
]


class _Largest:
    """The two largest entries of a matrix, in different rows and columns, found block by block.

    The largest comes first; of equal ones that in the first row, then in the first column. Then
    the largest of what is left without its row and column. For two it is enough to know of every
    block the largest, and the largest outside its row, outside its column and outside both: the
    matrix's largest shares a row and a column with a block only where it is that block's own.
    """

    def __init__(self) -> None:
        self._known: list[tuple[float, int, int]] = []  # value below 0, row, column

    def add(self, values: npt.NDArray[np.floating], rows: Ints, columns: Ints) -> None:
        """A block [n, m], NaN where undefined, by the numbers [n] and [m] of rows and columns."""
        left = np.where(np.isfinite(values), values, -np.inf)
        first = self._note(left, rows, columns)
        if first is None:
            return
        row, column = first
        whole_row = left[row].copy()
        left[row] = -np.inf
        self._note(left, rows, columns)  # outside its row
        left[:, column] = -np.inf
        self._note(left, rows, columns)  # outside both
        left[row] = whole_row
        left[row, column] = -np.inf
        self._note(left, rows, columns)  # outside its column

    def _note(
        self, left: npt.NDArray[np.floating], rows: Ints, columns: Ints
    ) -> tuple[int, int] | None:
        if not left.size:
            return None
        row, column = divmod(int(left.argmax()), left.shape[1])
        if left[row, column] == -np.inf:
            return None
        self._known.append((-float(left[row, column]), int(rows[row]), int(columns[column])))
        return row, column

    def two(self) -> list[tuple[float, int, int]]:
        """Value, row and column of the two entries."""
        chosen: list[tuple[float, int, int]] = []
        for negative, row, column in sorted(set(self._known)):
            if len(chosen) < PAIRS and all(row != r and column != c for _, r, c in chosen):
                chosen.append((-negative, row, column))
        return chosen


@dataclass
class _Class:
    """The largest pairs of one class so far, among its own examples and with others."""

    most: _Largest = field(default_factory=_Largest)
    least: _Largest = field(default_factory=_Largest)
    of_train: _Largest = field(default_factory=_Largest)
    of_validation: _Largest = field(default_factory=_Largest)


class Extremes:
    """Find extreme pairs of a training and a validation example, tile by tile.

    They are ordered by cosine, since most signs are equal. Memory holds O(N) numbers, and a few
    pairs per tile and class.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self.evaluation = evaluation
        self.classes = evaluation.targets.numpy()
        self.sums = np.zeros(len(self.classes))  # over an example's defined partners of its class
        self.counts = np.zeros(len(self.classes), np.int64)
        self.found = [_Class() for _ in evaluation.class_names]

    def add(self, tile: Tile) -> None:
        """Add a tile whose rows are training examples and whose columns are validation examples."""
        train, validation = self.classes[tile.rows], self.classes[tile.columns]
        start = tile.rows.start, tile.columns.start
        for label, found in enumerate(self.found):
            ours, theirs = np.flatnonzero(train == label), np.flatnonzero(validation == label)
            same = tile.values[np.ix_(ours, theirs)]
            for axis, members in ((1, ours + start[0]), (0, theirs + start[1])):
                defined = np.isfinite(same)
                self.sums[members] += np.where(defined, same, 0).sum(axis, dtype=np.float64)
                self.counts[members] += defined.sum(axis)
            # A class's pairs with others are those of its training and those of its validation
            # images.
            others = np.flatnonzero(validation != label), np.flatnonzero(train != label)
            for largest, sign, rows, columns in (
                (found.most, 1, ours, theirs),
                (found.least, -1, ours, theirs),
                (found.of_train, 1, ours, others[0]),
                (found.of_validation, 1, others[1], theirs),
            ):
                values = sign * tile.values[np.ix_(rows, columns)]
                largest.add(values, rows + start[0], columns + start[1])

    def rows(self, predictions: Ints | None = None) -> list[dict[str, Any]]:
        """The extremes as rows of a table.

        Args:
            predictions: [N], predicted classes.

        Returns:
            class_name, group, extreme ("most" or "least" stiff; of pairs of different classes the
            most alone), place from 0, value, the examples' numbers in the subset, first and second
            (-1 for an example alone), the names of the classes that they are taken for ("" where
            that is not known), the second one's own class second_name, and class_mean, the class's
            mean. No example is in two pairs of one group and extreme.
        """
        names, number = self.evaluation.class_names, self.evaluation.num_train
        rows: list[dict[str, Any]] = []

        def predicted(example: int) -> str:
            return "" if predictions is None or example < 0 else names[int(predictions[example])]

        with np.errstate(divide="ignore", invalid="ignore"):
            means = self.sums / self.counts
        for label, (name, of_class) in enumerate(zip(names, self.found, strict=True)):
            examples = np.flatnonzero(self.classes == label)
            ours = examples[examples < number]
            pairs = self.counts[ours].sum()
            mean = self.sums[ours].sum() / pairs if pairs else np.nan
            found: list[tuple[str, str, int, float, int, int]] = []
            for extreme, sign, largest in ((MOST, 1, of_class.most), (LEAST, -1, of_class.least)):
                order = np.argsort(-sign * means[examples], kind="stable")  # NaN last
                chosen = [one for one in examples[order] if np.isfinite(means[one])][:EXAMPLES]
                for place, example in enumerate(chosen):
                    found.append((EXAMPLE, extreme, place, means[example], int(example), -1))
                for place, (value, first, second) in enumerate(largest.two()):
                    found.append((PAIR, extreme, place, sign * value, first, second))
            sides = [
                *of_class.of_train.two(),
                *((value, own, other) for value, other, own in of_class.of_validation.two()),
            ]
            for place, (value, first, second) in enumerate(sorted(sides, reverse=True)[:PAIRS]):
                found.append((OTHER, MOST, place, value, first, second))
            for group, extreme, place, value, first, second in found:
                rows.append(
                    {
                        "class_name": name,
                        "group": group,
                        "extreme": extreme,
                        "place": place,
                        "value": float(value),
                        "first": first,
                        "second": second,
                        "predicted_first": predicted(first),
                        "predicted_second": predicted(second),
                        "second_name": names[self.classes[second]] if second >= 0 else "",
                        "class_mean": float(mean),
                    }
                )
        return rows
