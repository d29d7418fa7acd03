"""The stiffest and the most anti-stiff examples and pairs of each class, to be looked at."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from stiffness.data.evaluation import Evaluation
from stiffness.stiffness.pairs import Floats, Ints

EXAMPLE, PAIR, OTHER = "example", "pair", "other class"
"""Groups: examples by their mean stiffness with the other set's examples of their class; pairs of
one class; pairs of an example of the class and one of another class."""
MOST, LEAST = "most", "least"
EXAMPLES, PAIRS = 3, 2
"""How many of each group, at either end."""

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


def extremes(
    cosines: Floats, evaluation: Evaluation, predictions: Ints | None = None
) -> list[dict[str, Any]]:
    """Of pairs of a training and a validation example, by cosine: most signs are alike.

    Args:
        cosines: [N, N], NaN where an example has no gradient.
        predictions: [N] classes.

    Returns:
        A row each: class_name, group, extreme ("most" or "least" stiff; of pairs of different
        classes the most alone), place from 0, value, the examples' numbers in the subset, first
        and second (-1 for an example alone), the names of the classes that they are taken for (""
        where that is not known), the second one's own class second_name, and class_mean, the
        class's mean. No example is in two pairs of
        one group and extreme.
    """
    classes, number = evaluation.targets.numpy(), evaluation.num_train
    block = np.asarray(cosines[:number, number:])
    names = evaluation.class_names
    train, validation = classes[:number], classes[number:]
    rows: list[dict[str, Any]] = []

    def predicted(example: int) -> str:
        return "" if predictions is None or example < 0 else names[int(predictions[example])]

    for label, name in enumerate(names):
        ours, theirs = np.flatnonzero(train == label), np.flatnonzero(validation == label)
        same = block[np.ix_(ours, theirs)]
        mean = _mean(same.ravel()[None])[0] if same.size else np.nan
        examples = np.concatenate([ours, theirs + number])
        means = np.concatenate([_mean(same), _mean(same.T)])
        # A class's pairs with others are those of its training and those of its validation images.
        others = np.flatnonzero(validation != label), np.flatnonzero(train != label)
        found: list[tuple[str, str, int, float, int, int]] = []
        for extreme, sign in ((MOST, 1), (LEAST, -1)):
            order = np.argsort(-sign * means, kind="stable")  # NaN last
            chosen = [place for place in order if np.isfinite(means[place])][:EXAMPLES]
            for place, row in enumerate(chosen):
                found.append((EXAMPLE, extreme, place, means[row], int(examples[row]), -1))
            for place, (i, j) in enumerate(_largest(sign * same)):
                pair = int(ours[i]), int(theirs[j] + number)
                found.append((PAIR, extreme, place, same[i, j], *pair))
        sides = [
            *(
                (block[ours[i], others[0][j]], int(ours[i]), int(others[0][j] + number))
                for i, j in _largest(block[np.ix_(ours, others[0])])
            ),
            *(
                (block[others[1][i], theirs[j]], int(theirs[j] + number), int(others[1][i]))
                for i, j in _largest(block[np.ix_(others[1], theirs)])
            ),
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
                    "second_name": names[classes[second]] if second >= 0 else "",
                    "class_mean": float(mean),
                }
            )
    return rows


def _mean(values: Floats) -> Floats:
    """[n]: of the rows of [n, m], over what is defined."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(defined, values, 0).sum(1, dtype=np.float64) / defined.sum(1))


def _largest(values: Floats) -> Iterator[tuple[int, int]]:
    """Places of the ``PAIRS`` largest of [n, m], no two in one row or column."""
    left = np.where(np.isfinite(values), values, -np.inf)
    for _ in range(min(PAIRS, *values.shape)):
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        if left[row, column] == -np.inf:
            return
        yield int(row), int(column)
        left[row], left[:, column] = -np.inf, -np.inf
