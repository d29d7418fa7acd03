"""Measures of the literature that the same cosines and gradient norms give at no further cost.

With cosines C_ij and gradient norms w_i the kernel matrix is K_ij = w_i C_ij w_j. Norms enter as
logarithms and are divided by the largest, so that nothing underflows; every quantity of a set is a
ratio in which that factor cancels. An example whose gradient is 0 contributes nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import log
from typing import Any

import numpy as np
import pandas as pd
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.gradients.arithmetic import output_gradients, relative_errors
from stiffness.measures.bootstrap import wilson_interval
from stiffness.measures.pairs import PAIR_MODES, Bools, Floats, Ints, Tile
from stiffness.measures.tiles import Checkpoint, WholeMatrix

CONFIDENT = 1e-7
"""An example with 1 - p_y below this is confident: Keras's clip leaves it no gradient."""
WRONG = 0.01
"""Relative error from which a loss gradient counts as wrong."""
COLUMNS = {
    "siblings": ["step", "epoch", "pair_mode", "quantity", "value", "n_examples"],
    "confidence": ["step", "epoch", "split", "quantity", "value", "low", "high", "n_examples"],
    "examples": [
        "step",
        "epoch",
        "example",
        "split",
        "class_name",
        "mislabelled",
        "log_norm",
        "loss",
        "el2n",
        "correct",
        "own_class_sign",
        "own_class_cosine",
    ],
}
_SPLITS = ("train", "validation")


class Siblings:
    """Further measures of the checkpoints of a segment, in order.

    ``add`` makes the rows of three tables.

    ``siblings``, by pair mode. Of all modes, with K and w restricted to its pairs of different
    examples: ``norm_weighted``, sum K_ij / sum w_i w_j, and the same over pairs of one class
    (``norm_weighted_within``) and of different classes (``norm_weighted_between``). Cosine
    stiffness within and between classes (Eq. 7) where pairs of an example whose gradient is 0 count
    as 0 and are not left out: ``cosine_within_with_zeros``, ``cosine_between_with_zeros``. Of
    train-train and val-val also, over all examples of the set:

    * ``m_coherence``: sum K_ij / sum K_ii (Chatterjee and Zielinski, arXiv:2008.01217);
    * ``noise_scale``: tr(S) / |G|^2, the trace of the gradients' covariance over the squared norm
      of their mean, both without bias (McCandlish et al., arXiv:1812.06162); NaN where the estimate
      of |G|^2 is not positive;
    * ``gradient_confusion``: the least cosine of two examples (Sankararaman et al.,
      arXiv:1904.06963);
    * ``effective_rank``: N^2 / sum C_ij^2, between 1 and N;
    * ``label_alignment``: the cosine of the matrices C and Y, where Y_ij is 1 within a class and
      -1 / (classes - 1) between classes, the cosines of loss gradients at uniform outputs;
    * ``kernel_velocity``: 1 minus the cosine of C and the matrix of the checkpoint before; NaN at
      the first checkpoint of a segment.

    ``confidence``, by split: the shares of examples with 1 - p_y < 1e-7 (``confident``), with a
    gradient of exactly 0 (``zero``), and with a loss gradient with respect to the outputs that the
    arithmetic gets wrong by more than 1 % (``wrong``), with 95 % Wilson intervals. They assume
    cross-entropy.

    ``examples``, one row per example: ``log_norm`` of its gradient (GraNd is its exponential;
    Paul et al., arXiv:2107.07075), cross-entropy ``loss``, ``el2n``, the norm of p - y (the same
    source), whether it is ``correct`` for the label it is trained with, and its mean stiffness with
    the other examples of its class and set by both metrics.
    """

    def __init__(self, evaluation: Evaluation, arithmetic: str = "exact") -> None:
        """Take the classes and sets of the examples.

        Args:
            arithmetic: in which gradients were measured; it decides which are ``wrong``.
        """
        self.evaluation, self.arithmetic = evaluation, arithmetic
        classes, train = evaluation.targets.numpy(), evaluation.num_train
        self._classes = len(evaluation.class_names)
        self._validation = np.arange(len(classes)) >= train
        self._group: Ints = classes + self._classes * self._validation
        self._hot = np.eye(2 * self._classes)[self._group]
        self._sets = {"train-train": slice(0, train), "val-val": slice(train, len(classes))}
        self._previous: Checkpoint | WholeMatrix | None = None

    def add(self, checkpoint: Checkpoint | WholeMatrix) -> dict[str, list[dict[str, Any]]]:
        """Rows of the three tables, by the names of the tables."""
        about = {"step": checkpoint.step, "epoch": checkpoint.epoch}
        defined = np.isfinite(checkpoint.log_norms)
        largest = checkpoint.log_norms[defined].max(initial=-np.inf)
        weights = np.zeros(len(defined))
        weights[defined] = np.exp(checkpoint.log_norms[defined] - largest)
        sums = _Sums(weights, self._hot, self._sets)
        for tile, before in self._tiles(checkpoint):
            sums.add(tile, before)
        self._previous = checkpoint
        rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
        for mode, values in self._values(sums, weights, defined).items():
            number = int(defined[self._sets[mode]].sum() if mode in self._sets else defined.sum())
            for quantity, value in values.items():
                key = {"pair_mode": mode, "quantity": quantity}
                rows["siblings"].append(about | key | {"value": value, "n_examples": number})
        outputs = self._outputs(checkpoint)
        rows["confidence"] = [about | row for row in self._confidence(defined, outputs)]
        rows["examples"] = [about | row for row in self._examples(checkpoint, sums, outputs)]
        return rows

    def _tiles(self, checkpoint: Checkpoint | WholeMatrix) -> Iterator[tuple[Tile, Tile | None]]:
        """Tiles of the whole matrix, each with that of the checkpoint before."""
        everything = slice(0, len(self._group))
        tiles = checkpoint.tiles(everything, everything)
        if self._previous is None:
            yield from ((tile, None) for tile in tiles)
        else:
            yield from zip(tiles, self._previous.tiles(everything, everything), strict=True)

    def _values(
        self, sums: "_Sums", weights: Floats, defined: Bools
    ) -> dict[str, dict[str, float]]:
        count = self._classes
        groups = {"train": slice(0, count), "val": slice(count, 2 * count)}
        squares, norms = self._hot.T @ weights**2, self._hot.T @ weights
        off_diagonal = ~np.eye(count, dtype=bool)
        found = {}
        for mode in PAIR_MODES:
            first, second = (groups[side] for side in mode.split("-"))
            products, pairs = sums.products[first, second], np.outer(norms[first], norms[second])
            if mode in self._sets:
                products = products - np.diag(squares[first])
                pairs = pairs - np.diag(squares[first])
            within = np.trace(products), np.trace(pairs)
            means = self._means_with_zeros(sums, mode)
            total = products.sum(), pairs.sum()
            found[mode] = {
                "norm_weighted": _ratio(*total),
                "norm_weighted_within": _ratio(*within),
                "norm_weighted_between": _ratio(total[0] - within[0], total[1] - within[1]),
                "cosine_within_with_zeros": _mean(means.diagonal()),
                "cosine_between_with_zeros": _mean(means[off_diagonal]),
            }
        for place, (mode, part) in enumerate(self._sets.items()):
            first = groups[mode.split("-")[0]]
            trace, number, size = squares[first].sum(), defined[part].sum(), part.stop - part.start
            total_sum = sums.products[first, first].sum()
            mean_square = _ratio(total_sum - trace, size * (size - 1))
            counts = (self._hot[part, first] * defined[part, None]).sum(0)
            same, all_pairs = (counts**2).sum(), counts.sum() ** 2
            other = 1 / max(count - 1, 1)
            aligned = np.trace(sums.cosines[first, first])
            aligned -= other * (sums.cosines[first, first].sum() - aligned)
            length = sums.squares[place] * (same + other**2 * (all_pairs - same))
            noise = _ratio(trace, size) - mean_square
            moved = sums.squares[place] * sums.squares_before[place]
            found[mode] |= {
                "m_coherence": _ratio(total_sum, trace),
                "noise_scale": noise / mean_square if mean_square > 0 else np.nan,
                "gradient_confusion": sums.least[place] if number > 1 else np.nan,
                "effective_rank": _ratio(number**2, sums.squares[place]),
                "label_alignment": _ratio(aligned, np.sqrt(length)),
                "kernel_velocity": 1 - _ratio(sums.overlap[place], np.sqrt(moved)),
            }
        return found

    def _means_with_zeros(self, sums: "_Sums", mode: str) -> Floats:
        """[C, C]: mean cosines, where pairs of examples without a gradient count as 0."""
        count = self._classes
        groups = {"train": slice(0, count), "val": slice(count, 2 * count)}
        first, second = (groups[side] for side in mode.split("-"))
        sizes = self._hot.sum(0)
        means, pairs = sums.cosines[first, second], np.outer(sizes[first], sizes[second])
        if mode in self._sets:
            means = means - np.diag((self._hot.T @ sums.diagonal)[first])
            pairs = pairs - np.diag(sizes[first])
        return np.divide(means, pairs, out=np.full_like(means, np.nan), where=pairs > 0)

    def _outputs(self, checkpoint: Checkpoint | WholeMatrix) -> "_Outputs | None":
        outputs, targets = checkpoint.outputs, self.evaluation.targets
        if outputs is None or outputs.ndim != 2 or int(targets.max()) >= outputs.shape[1]:
            return None
        logits = torch.from_numpy(outputs)
        own = logits.double().gather(1, targets[:, None]).squeeze(1)
        others = logits.double().scatter(1, targets[:, None], -torch.inf).logsumexp(1)
        both = torch.logaddexp(own, others)
        wrong = relative_errors(logits, targets, self.arithmetic) > WRONG
        _, log_norms = output_gradients(logits, targets)
        return _Outputs(
            (others - both).numpy() < log(CONFIDENT),
            wrong.numpy(),
            (both - own).numpy(),
            log_norms.exp().numpy(),
            (logits.argmax(1) == targets).numpy(),
        )

    def _confidence(self, defined: Bools, outputs: "_Outputs | None") -> Iterator[dict[str, Any]]:
        shares = {"zero": ~defined}
        if outputs:
            shares |= {"confident": outputs.confident, "wrong": outputs.wrong}
        for split, part in zip(_SPLITS, self._sets.values(), strict=True):
            for quantity, hit in shares.items():
                count, number = int(hit[part].sum()), len(hit[part])
                low, high = wilson_interval(count, number)
                yield {
                    "split": split,
                    "quantity": quantity,
                    "value": count / number,
                    "low": low,
                    "high": high,
                    "n_examples": number,
                }

    def _examples(
        self, checkpoint: Checkpoint | WholeMatrix, sums: "_Sums", outputs: "_Outputs | None"
    ) -> list[dict[str, Any]]:
        evaluation, number = self.evaluation, len(self._group)
        wrong = np.zeros(number, bool)
        if evaluation.mislabelled is not None:
            wrong[: evaluation.num_train] = evaluation.mislabelled.numpy()
        unknown = np.full(number, np.nan)
        signs, cosines = sums.own_class(np.isfinite(checkpoint.log_norms), self._group)
        columns = {
            "example": np.arange(number),
            "split": np.where(self._validation, *_SPLITS[::-1]),
            "class_name": np.array(evaluation.class_names)[self._group % self._classes],
            "mislabelled": wrong,
            "log_norm": checkpoint.log_norms,
            "loss": outputs.losses if outputs else unknown,
            "el2n": outputs.el2n if outputs else unknown,
            "correct": outputs.correct.astype(float) if outputs else unknown,
            "own_class_sign": signs,
            "own_class_cosine": cosines,
        }
        return pd.DataFrame(columns).to_dict("records")  # type: ignore[return-value]


@dataclass(frozen=True)
class _Outputs:
    """What the outputs of the network say of each example, all [N]."""

    confident: Bools
    wrong: Bools
    losses: Floats
    el2n: Floats
    correct: Bools


class _Sums:
    """Sums over a matrix of cosines, tile by tile.

    Attributes:
        products, cosines: [2 C, 2 C], sums of K and of C between classes of both sets.
        squares, squares_before, overlap, least: [2], of train-train and val-val: the sums of the
            squares of C, of those of the matrix before, of the products of both, and the least
            entry off the diagonal.
        sign_rows, cosine_rows: [N, 2 C], of each example the sums of signs and of cosines with the
            examples of every class of both sets.
        diagonal: [N].
    """

    def __init__(self, weights: Floats, hot: Floats, sets: dict[str, slice]) -> None:
        self.weights, self.hot, self.sets = weights, hot, list(sets.values())
        groups = hot.shape[1]
        self.products, self.cosines = np.zeros((2, groups, groups))
        self.squares, self.squares_before, self.overlap = np.zeros((3, 2))
        self.least = np.full(2, np.inf)
        self.sign_rows, self.cosine_rows = np.zeros((2, *hot.shape))
        self.diagonal = np.zeros(len(weights))

    def add(self, tile: Tile, before: Tile | None) -> None:
        """Add a tile, and that of the checkpoint before."""
        on_diagonal = tile.rows == tile.columns
        rows, columns = self.hot[tile.rows], self.hot[tile.columns]
        values = np.nan_to_num(tile.values, nan=0.0).astype(np.float64)
        of_columns, signs = values @ columns, np.sign(values)
        self._count(self.cosines, rows.T @ of_columns, on_diagonal)
        weighted = rows * self.weights[tile.rows, None], columns * self.weights[tile.columns, None]
        self._count(self.products, weighted[0].T @ (values @ weighted[1]), on_diagonal)
        self.cosine_rows[tile.rows] += of_columns
        self.sign_rows[tile.rows] += signs @ columns
        if on_diagonal:
            self.diagonal[tile.rows] = values.diagonal()
        else:
            self.cosine_rows[tile.columns] += values.T @ rows
            self.sign_rows[tile.columns] += signs.T @ rows
        times = 1 if on_diagonal else 2
        for place, part in enumerate(self.sets):
            own = tile.within(part, part)
            if own is None:
                continue
            kept = np.nan_to_num(own.values, nan=0.0).astype(np.float64)
            self.squares[place] += times * np.vdot(kept, kept)
            # np.fmin passes over NaN: pairs of an example without a gradient are none.
            different = np.array(own.values, np.float64)  # a copy
            if on_diagonal:
                np.fill_diagonal(different, np.nan)
            self.least[place] = np.fmin(self.least[place], np.fmin.reduce(different, axis=None))
            former = before.within(part, part) if before else None
            if former is not None:
                past = np.nan_to_num(former.values, nan=0.0).astype(np.float64)
                self.squares_before[place] += times * np.vdot(past, past)
                self.overlap[place] += times * np.vdot(kept, past)

    def own_class(self, defined: Bools, group: Ints) -> tuple[Floats, Floats]:
        """Mean sign and cosine with the other examples of one's class and set, [N] each."""
        place = np.arange(len(group))
        signs = self.sign_rows[place, group] - np.sign(self.diagonal)
        cosines = self.cosine_rows[place, group] - self.diagonal
        everybody = self.hot.sum(0)[group] - 1
        others = (self.hot * defined[:, None]).sum(0)[group] - defined
        with np.errstate(divide="ignore", invalid="ignore"):
            return signs / everybody, np.where(defined, cosines / others, np.nan)

    @staticmethod
    def _count(total: Floats, part: Floats, on_diagonal: bool) -> None:
        total += part if on_diagonal else part + part.T


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else np.nan


def _mean(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan
