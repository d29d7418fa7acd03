"""Class stiffness and critical length from a matrix of cosines and labels, without files."""

from typing import Any

import numpy as np
import numpy.typing as npt

from stiffness.errors import StiffnessError
from stiffness.measures.bootstrap import draw_weights
from stiffness.measures.classes import ClassStiffness
from stiffness.measures.classes import class_stiffness as stiffness_of_classes
from stiffness.measures.distance import (
    ResampledPairs,
    defined_pairs,
    distances_from_matrix,
    same_class_pairs,
)
from stiffness.measures.lengths import DistanceStiffness, distance_stiffness
from stiffness.measures.pairs import METRICS, PAIR_MODES, Floats, Ints, select_pairs


def class_stiffness(
    cosines: npt.ArrayLike,
    labels: npt.ArrayLike,
    metric: str = "sign",
    num_train: int | None = None,
    pair_mode: str = "train-val",
    resamples: int = 1000,
    seed: int = 0,
) -> ClassStiffness:
    """Mean stiffness of the pairs of every two classes (eq. 6), with 95 % intervals.

    Args:
        cosines: [N, N], as ``gradient_cosines`` gives them; NaN where a gradient is 0.
        labels: [N], the class of each example: numbers or names.
        metric: "sign" (eq. 4) or "cosine" (eq. 5).
        num_train: the number of training examples, where they come first and validation examples
            follow. By default all examples are one set.
        pair_mode: with ``num_train``: "train-train", "train-val" (rows are training examples) or
            "val-val".
        resamples: of the bootstrap over examples.
        seed: of the bootstrap.

    Returns:
        ``matrix``, ``low`` and ``high``, float64 [classes, classes], with classes in the order of
        ``np.unique(labels)``; ``within``, the mean of the diagonal, and ``between``, that of all
        other entries (eq. 7), each with ``value``, ``low`` and ``high``. No example is a pair with
        itself. An entry without a pair is NaN.

    Raises:
        StiffnessError: the arguments do not fit together.

    Examples:
        >>> import numpy as np
        >>> from stiffness import class_stiffness
        >>> gradients = np.array([[1.0, 0.1], [1.0, -0.1], [-0.1, 1.0], [0.1, 1.0]])
        >>> units = gradients / np.linalg.norm(gradients, axis=1, keepdims=True)
        >>> stiffness = class_stiffness(units @ units.T, ["cat", "cat", "dog", "dog"], "cosine")
        >>> stiffness.matrix.round(2)
        array([[0.98, 0.  ],
               [0.  , 0.98]])
        >>> round(stiffness.within.value, 2)
        0.98
    """
    matrix, classes, names = _checked(cosines, labels, metric)
    mode, number = _one_set(num_train, pair_mode, len(classes))
    pairs = select_pairs(matrix, _log_norms(matrix), classes, number, mode, metric)
    weights = _weights(classes, number, resamples, seed)
    row_side, column_side = mode.split("-")
    sides = {"train": weights[:number], "val": weights[number:]}
    return stiffness_of_classes(pairs, len(names), sides[row_side], sides[column_side])


def critical_length(
    cosines: npt.ArrayLike,
    labels: npt.ArrayLike,
    distances: npt.ArrayLike,
    metric: str = "sign",
    num_train: int | None = None,
    pair_mode: str = "train-val",
    bins: int = 16,
    resamples: int = 1000,
    seed: int = 0,
) -> DistanceStiffness:
    """Stiffness of same-class pairs against their distance, and where it ends (Section 4.5).

    Args:
        cosines: [N, N], as ``gradient_cosines`` gives them; NaN where a gradient is 0.
        labels: [N], the class of each example: numbers or names.
        distances: [N, N]; ``cosine_distances`` has those of the paper (eq. 8), in the input or
            between what a layer makes of it.
        bins: the number of bins of distance, of equal width from 0 to the farthest same-class pair.
            The line, the decay and the monotone fit do not depend on it; the area L(r) does, and
            whether the line is a misfit.

    Other arguments are those of ``class_stiffness``.

    Returns:
        ``line`` is the critical length xi of the paper, where a line through all pairs crosses 0;
        its ``crossing`` says whether that is measured, a misfit, extrapolated or not there at all.
        ``of("area")`` is the mean stiffness up to a distance within the data, and ``of("decay")``
        the length over which stiffness decays. Each has ``value``, ``low`` and ``high``;
        ``lengths`` has all estimates, and ``bins`` the mean stiffness by distance.

    Raises:
        StiffnessError: the arguments do not fit together.

    Examples:
        Gradients that point where their inputs do agree up to a distance of 1, a right angle:

        >>> import torch
        >>> from stiffness import cosine_distances, critical_length
        >>> inputs = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
        >>> distances = cosine_distances(inputs)
        >>> lengths = critical_length(1 - distances, torch.zeros(60), distances, "cosine")
        >>> lengths.line.crossing, round(lengths.line.value, 2)
        ('measured', 1.0)
    """
    matrix, classes, _ = _checked(cosines, labels, metric)
    apart = np.asarray(distances)
    if apart.shape != matrix.shape:
        raise StiffnessError(
            f"distances: {list(matrix.shape)} are needed, as for cosines, got {list(apart.shape)}"
        )
    mode, number = _one_set(num_train, pair_mode, len(classes))
    pairs = same_class_pairs(distances_from_matrix(apart), classes, number, mode)
    if metric == "cosine":
        pairs = defined_pairs(pairs, np.isfinite(_log_norms(matrix)))
    values = np.nan_to_num(matrix[pairs.first, pairs.second])
    edges = np.linspace(0, max(float(pairs.distances.max(initial=0)), 1e-9), bins + 1)
    resampled = ResampledPairs(pairs, edges, _weights(classes, number, resamples, seed))
    return distance_stiffness(resampled, np.sign(values) if metric == "sign" else values)


def _checked(
    cosines: npt.ArrayLike, labels: npt.ArrayLike, metric: str
) -> tuple[npt.NDArray[np.floating], Ints, list[Any]]:
    matrix, given = np.asarray(cosines), np.asarray(labels)
    if metric not in METRICS:
        raise StiffnessError(f"metric: unknown {metric!r}; known: {', '.join(METRICS)}")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or given.shape != matrix.shape[:1]:
        raise StiffnessError(
            "cosines, labels: [N, N] and [N] are needed, "
            f"got {list(matrix.shape)} and {list(given.shape)}"
        )
    names, classes = np.unique(given, return_inverse=True)
    return matrix, classes.astype(np.int64), list(names)


def _one_set(num_train: int | None, pair_mode: str, examples: int) -> tuple[str, int]:
    """The mode and the number of training examples; without the latter all examples are one set."""
    if num_train is None:
        return "train-train", examples
    if pair_mode not in PAIR_MODES:
        raise StiffnessError(f"pair_mode: unknown {pair_mode!r}; known: {', '.join(PAIR_MODES)}")
    if not 0 < num_train < examples:
        raise StiffnessError(f"num_train: must lie between 0 and {examples}, got {num_train}")
    return pair_mode, num_train


def _log_norms(cosines: npt.NDArray[np.floating]) -> Floats:
    """Where a gradient is 0 an example has no cosine with itself; other norms do not matter."""
    return np.where(np.isfinite(cosines.diagonal()), 0.0, -np.inf)


def _weights(classes: Ints, num_train: int, resamples: int, seed: int) -> Any:
    training = np.arange(len(classes)) < num_train
    return draw_weights(classes * 2 + training, resamples, seed)
