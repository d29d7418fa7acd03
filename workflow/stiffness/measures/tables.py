"""Tidy tables of a training segment: one row per step, pair mode, metric and quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from stiffness.data.evaluation import Evaluation, cosine_distances
from stiffness.data.hierarchy import Hierarchy
from stiffness.files import read_tensors
from stiffness.measures.bootstrap import Floats32, draw_weights
from stiffness.measures.classes import ClassStiffness, ClassSums, Estimate
from stiffness.measures.distance import (
    Bins,
    Distances,
    ResampledPairs,
    both_defined,
    defined_pairs,
    distances_from_matrix,
    near_radius,
    same_class_pairs,
)
from stiffness.measures.extremes import COLUMNS as EXTREMES
from stiffness.measures.extremes import Extremes
from stiffness.measures.lengths import (
    CriticalLength,
    DistanceStiffness,
    distance_stiffness,
    distance_stiffnesses,
)
from stiffness.measures.pairs import (
    METRICS,
    PAIR_MODES,
    Bools,
    Floats,
    Ints,
    Tile,
    mode_ranges,
    select_block,
    select_sides,
)
from stiffness.measures.siblings import COLUMNS as SIBLINGS
from stiffness.measures.siblings import Siblings
from stiffness.measures.tiles import Checkpoint, WholeMatrix, checkpoints

INPUT = "input"

_KEY = ["step", "epoch", "pair_mode", "metric"]
COLUMNS = {
    "summary": [*_KEY, "quantity", "value", "low", "high", "n_pairs", "n_excluded"],
    "classes": [*_KEY, "class_a", "class_b", "value", "low", "high", "n_pairs", "n_excluded"],
    "distance": [*_KEY, "layer", "distance", "value", "low", "high", "n_pairs", "n_excluded"],
    "critical_length": [
        *_KEY,
        "layer",
        "estimator",
        "crossing",
        "value",
        "low",
        "high",
        "slope",
        "slope_low",
        "slope_high",
        "intercept",
        "at_crossing",
        "at_crossing_low",
        "at_crossing_high",
        "floor",
        "floor_low",
        "floor_high",
        "radius",
        "max_distance",
        "n_pairs",
        "n_excluded",
    ],
    "extremes": ["step", "epoch", *EXTREMES],
    **SIBLINGS,
}


@dataclass(frozen=True)
class Measured:
    """The result of ``measure_segment``.

    Attributes:
        tables: by name. "summary" has within-class and between-classes stiffness (Eq. 7). An
            example whose gradient is 0 counts with sign 0, and has no cosine. With a hierarchy it
            also has the stiffness between the classes of its groups (Section 4.2), and with wrong
            training labels that of clean and of mislabelled training examples. "classes" has the
            class stiffness matrix (Eq. 6), "distance" same-class stiffness in bins of distance,
            "critical_length" the lengths of all estimators (Section 4.5), "extremes" the rows of
            ``extremes.Extremes``, and "siblings", "confidence" and "examples" those of
            ``siblings.Siblings``. ``low`` and ``high`` are the ends of a 95 % bootstrap interval
            over examples, ``n_pairs`` is a number of different pairs, and ``n_excluded`` one of
            examples whose gradient is 0.
        replicates: float32 [steps, R] by name, the resamples behind the intervals of the summary
            ("within/train-val/sign"), of the lengths ("xi/line/input/train-val/sign"; infinite
            where a resample has no crossing) and of the decay's floor ("floor/decay/input/...");
            and "steps", int64 [steps].
    """

    tables: dict[str, pd.DataFrame]
    replicates: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Space:
    """Same-class pairs with their distances in one space, and resamples of them.

    Attributes:
        pairs: by pair mode.
        edges: [B + 1], of the bins of distance.
        radius: the distance r of the areas L(r), within the data in every pair mode.
    """

    pairs: dict[str, ResampledPairs]
    edges: Floats
    radius: float

    @classmethod
    def from_matrix(
        cls, distances: torch.Tensor, evaluation: Evaluation, bins: int, weights: Floats32
    ) -> "Space":
        """Take the distances from a matrix [N, N] over the evaluation subset."""
        return cls.from_distances(
            distances_from_matrix(distances.numpy()), evaluation, bins, weights
        )

    @classmethod
    def from_distances(
        cls, distances: Distances, evaluation: Evaluation, bins: int, weights: Floats32
    ) -> "Space":
        """Compute the distances that are needed, block by block."""
        classes, number = evaluation.targets.numpy(), evaluation.num_train
        pairs = {mode: same_class_pairs(distances, classes, number, mode) for mode in PAIR_MODES}
        farthest = max(float(one.distances.max(initial=0)) for one in pairs.values())
        edges = np.linspace(0, max(farthest, 1e-9), bins + 1)
        radius = min(near_radius(one.distances) for one in pairs.values())
        resampled = {
            mode: ResampledPairs(one, edges, weights, radius) for mode, one in pairs.items()
        }
        return cls(resampled, edges, radius)

    def defined(self, mode: str, defined: Bools) -> ResampledPairs:
        """The pairs of one mode whose two examples are ``defined``, bool [N]."""
        whole = self.pairs[mode]
        if defined.all():
            return whole
        pairs = defined_pairs(whole.pairs, defined)
        return ResampledPairs(pairs, self.edges, whole.weights, self.radius)


def example_weights(evaluation: Evaluation, resamples: int, seed: int) -> Floats32:
    """Resamples of an evaluation subset, float32 [N, R]; its strata are the classes of each set."""
    classes = evaluation.targets.numpy()
    training = np.arange(len(classes)) < evaluation.num_train
    return draw_weights(classes * 2 + training, resamples, seed)


def measure_segment(
    folders: Sequence[str | Path],
    evaluation: Evaluation,
    distance_bins: int,
    resamples: int,
    seed: int,
    hierarchy: Hierarchy | None = None,
    layers: Sequence[str] = (INPUT,),
    representations: str | Path | None = None,
    arithmetic: str = "exact",
) -> Measured:
    """Measure stiffness at the checkpoints in ``folders``, with all quantities of the paper.

    The cosines are read tile by tile, once per pair mode. Memory holds one tile, the same-class
    pairs (22 bytes per pair and layer), the weights of the resamples (4 N R bytes) and sums
    [C, C, R], but no N x N matrix.

    Args:
        folders: each has one file of cosines per checkpoint. There is one folder of all pairs, or
            one folder per tile.
        distance_bins: number of bins of equal width from 0 to the farthest same-class pair; those
            of the input are the same for every checkpoint.
        resamples, seed: of the bootstrap; all checkpoints of all runs on one evaluation subset
            share the same draws.
        hierarchy: of the classes, for the quantities super_class and super_super_class.
        layers: the spaces of distances: "input", or layers found in ``representations``.
        representations: folder of the layers' representations, with one file per checkpoint.
        arithmetic: of the loss gradients.

    Raises:
        StiffnessError: a file is unreadable or was measured on another evaluation subset, or the
            folders are not those of all tiles.
    """
    tables = SegmentTables(
        evaluation, distance_bins, resamples, seed, hierarchy, layers, arithmetic
    )
    for checkpoint in checkpoints(folders, len(evaluation.targets)):
        vectors: Mapping[str, torch.Tensor] = {}
        if tables.inner:
            assert representations is not None
            vectors, _ = read_tensors(Path(representations) / checkpoint.name, tables.inner)
        tables.add(checkpoint, vectors)
    return tables.finish()


class SegmentTables:
    """``measure_segment`` checkpoint by checkpoint.

    Attributes:
        inner: the layers of distance whose representations ``add`` needs: all but the input.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        distance_bins: int,
        resamples: int,
        seed: int,
        hierarchy: Hierarchy | None = None,
        layers: Sequence[str] = (INPUT,),
        arithmetic: str = "exact",
    ) -> None:
        """As for ``measure_segment``; without layers no distance is measured."""
        self.evaluation, self.bins, self.layers = evaluation, distance_bins, layers
        self.weights = example_weights(evaluation, resamples, seed)
        self.inner = [layer for layer in layers if layer != INPUT]

        def at_input(rows: Ints, columns: Ints) -> npt.NDArray[np.floating]:
            return evaluation.distances(torch.from_numpy(rows), torch.from_numpy(columns)).numpy()

        self._of_input = {INPUT: self._space(at_input)} if INPUT in layers else {}
        self._groups = hierarchy.cells(evaluation.class_names) if hierarchy else {}
        self._rows: dict[str, list[dict[str, Any]]] = {
            name: [] for name in COLUMNS if name != "classes"
        }
        self._matrices: list[pd.DataFrame] = []
        self._steps: list[int] = []
        self._replicates: dict[str, list[Floats]] = {}
        self._siblings = Siblings(evaluation, arithmetic)

    def _space(self, distances: Distances) -> Space:
        return Space.from_distances(distances, self.evaluation, self.bins, self.weights)

    def add(
        self, checkpoint: Checkpoint | WholeMatrix, vectors: Mapping[str, torch.Tensor]
    ) -> list[dict[str, Any]]:
        """Measure a checkpoint.

        Args:
            vectors: [N, D] by name, the representations of the layers ``inner``.

        Returns:
            The checkpoint's rows of the table "summary".
        """
        rows, evaluation = self._rows, self.evaluation
        before = len(rows["summary"])
        self._steps.append(checkpoint.step)
        about = {"step": checkpoint.step, "epoch": checkpoint.epoch}
        spaces = dict(self._of_input)
        for name in self.inner:
            spaces[name] = self._space(partial(_distances_between, vectors[name]))
        found = Extremes(evaluation)
        for mode in PAIR_MODES:
            of_mode = _Mode(mode, checkpoint, evaluation, self.weights, spaces)
            for tile in checkpoint.tiles(of_mode.rows, of_mode.columns):
                of_mode.add(tile)
                if mode == "train-val":
                    found.add(tile)
            by_layer = {layer: of_mode.distances(layer) for layer in self.layers}
            for metric in METRICS:
                key = about | {
                    "pair_mode": mode,
                    "metric": metric,
                    "n_excluded": of_mode.sides[metric].num_excluded,
                }
                for part, sums in of_mode.sums[metric].items():
                    # The groups of classes are those of all examples alone.
                    stiffness = sums.finish({} if part else self._groups)
                    ending = f"_{part}" if part else ""
                    estimates = {
                        f"within{ending}": stiffness.within,
                        f"between{ending}": stiffness.between,
                    }
                    if not part:
                        estimates["positive_share"] = stiffness.positive
                    excluded = {"n_excluded": sums.sides.num_excluded}
                    for quantity, estimate in (estimates | stiffness.groups).items():
                        rows["summary"].append(summary_row(key | excluded, quantity, estimate))
                        name = f"{quantity}/{mode}/{metric}"
                        self._replicates.setdefault(name, []).append(estimate.replicates)
                    if not part:
                        self._matrices.append(_class_table(key, stiffness, evaluation.class_names))
                for layer in self.layers:
                    in_layer = key | {"layer": layer}
                    measured = by_layer[layer][metric]
                    rows["distance"] += distance_rows(in_layer, measured.bins)
                    for length in measured.lengths:
                        rows["critical_length"].append(in_layer | length_row(length))
                        name = f"xi/{length.estimator}/{layer}/{mode}/{metric}"
                        self._replicates.setdefault(name, []).append(length.replicates)
                        if len(length.floors):
                            name = f"floor/{length.estimator}/{layer}/{mode}/{metric}"
                            self._replicates.setdefault(name, []).append(length.floors)
        for name, further in self._siblings.add(checkpoint).items():
            rows[name] += further
        rows["extremes"] += [about | row for row in found.rows(checkpoint.predictions)]
        return rows["summary"][before:]

    def finish(self) -> Measured:
        """The tables of all checkpoints so far; more can follow."""
        tables = {
            name: pd.DataFrame(self._rows[name], columns=COLUMNS[name]) for name in self._rows
        }
        empty = pd.DataFrame([], columns=COLUMNS["classes"])
        matrices = self._matrices
        tables["classes"] = pd.concat(matrices, ignore_index=True) if matrices else empty
        stacked = {
            name: torch.from_numpy(np.stack(values).astype(np.float32))
            for name, values in self._replicates.items()
        }
        stacked["steps"] = torch.tensor(self._steps, dtype=torch.int64)
        return Measured({name: tables[name] for name in COLUMNS}, stacked)


class _Mode:
    """One pair mode of a checkpoint, measured tile by tile.

    Attributes:
        rows, columns: of the mode, in the whole matrix.
        sides: by metric.
        sums: by metric and subset of the training examples (clean, mislabelled); "" is all of them.
    """

    def __init__(
        self,
        mode: str,
        checkpoint: Checkpoint | WholeMatrix,
        evaluation: Evaluation,
        weights: Floats32,
        spaces: Mapping[str, Space],
    ) -> None:
        classes, num_train = evaluation.targets.numpy(), evaluation.num_train
        num_classes = len(evaluation.class_names)
        self.mode, self.log_norms, self.spaces = mode, checkpoint.log_norms, spaces
        self.rows, self.columns = mode_ranges(num_train, len(classes), mode)
        self.sides = {
            metric: select_sides(self.log_norms, classes, num_train, mode, metric)
            for metric in METRICS
        }
        self.chosen = _training_masks(evaluation) if mode != "val-val" else {}
        drawn = weights[self.rows], weights[self.columns]
        self.sums = {
            metric: {"": ClassSums(self.sides[metric], num_classes, *drawn)} for metric in METRICS
        }
        for metric, sides in self.sides.items():
            for part, chosen in self.chosen.items():
                of_part = drawn[0][chosen], drawn[1][sides.paired_columns(chosen)]
                self.sums[metric][part] = ClassSums(
                    sides.select_rows(chosen), num_classes, *of_part
                )
        # The cosines of same-class pairs, in each space's order of distance.
        self.values = {
            layer: np.empty(len(space.pairs[mode].pairs.distances), np.float32)
            for layer, space in spaces.items()
        }

    def add(self, tile: Tile) -> None:
        """Add a tile that lies within the mode's rows and columns."""
        for metric, sums in self.sums.items():
            part = select_block(tile, self.rows, self.columns, metric)
            for name, of_part in sums.items():
                if name:
                    chosen = self.chosen[name]
                    columns = self.sides[metric].paired_columns(chosen)
                    of_part.add(part.select(chosen, columns))
                else:
                    of_part.add(part)
        for layer, values in self.values.items():
            self.spaces[layer].pairs[self.mode].pairs.fill(values, tile)

    def distances(self, layer: str) -> dict[str, DistanceStiffness]:
        """Stiffness against the distance in a layer by metric, when all tiles have been added."""
        space, values = self.spaces[layer], self.values[layer]
        defined = np.isfinite(self.log_norms)
        signs = np.nan_to_num(np.sign(values))
        if defined.all():
            found = distance_stiffnesses(space.pairs[self.mode], np.stack([signs, values]))
            return dict(zip(METRICS, found, strict=True))
        # An example whose gradient is 0 has sign 0 with all others, and no cosine.
        values = values[both_defined(space.pairs[self.mode].pairs, defined)]
        return {
            "sign": distance_stiffness(space.pairs[self.mode], signs),
            "cosine": distance_stiffness(space.defined(self.mode, defined), values),
        }


def _distances_between(
    vectors: torch.Tensor, rows: Ints, columns: Ints
) -> npt.NDArray[np.floating]:
    return cosine_distances(vectors[rows], vectors[columns]).numpy()


def _training_masks(evaluation: Evaluation) -> dict[str, Bools]:
    """Masks [num_train] of clean and of mislabelled training examples; none if all are clean."""
    wrong = evaluation.mislabelled
    if wrong is None or not wrong.any():
        return {}
    return {"clean": ~wrong.numpy(), "mislabelled": wrong.numpy()}


def length_row(length: CriticalLength) -> dict[str, Any]:
    """A critical length as columns of the table "critical_length"."""
    row = {field.name: getattr(length, field.name) for field in fields(length)}
    del row["replicates"], row["floors"]
    row["n_pairs"] = row.pop("num_pairs")
    return row


def summary_row(key: dict[str, Any], quantity: str, estimate: Estimate) -> dict[str, Any]:
    """An estimate as a row of the table "summary"; ``key`` has the other columns."""
    return key | {
        "quantity": quantity,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n_pairs": estimate.num_pairs,
    }


def _class_table(key: dict[str, Any], stiffness: ClassStiffness, names: list[str]) -> pd.DataFrame:
    # Columns, not one dict per row: 100 classes give 60,000 rows per checkpoint.
    cells = {
        "class_a": np.repeat(names, len(names)),
        "class_b": np.tile(names, len(names)),
        "value": stiffness.matrix.ravel(),
        "low": stiffness.low.ravel(),
        "high": stiffness.high.ravel(),
        "n_pairs": stiffness.num_pairs.ravel(),
    }
    return pd.DataFrame(key | cells, columns=COLUMNS["classes"])


def distance_rows(key: dict[str, Any], bins: Bins) -> list[dict[str, Any]]:
    """Bins as rows of the table "distance"; ``key`` has the other columns."""
    columns = zip(bins.distance, bins.value, bins.low, bins.high, bins.num_pairs, strict=True)
    names = ("distance", "value", "low", "high", "n_pairs")
    return [key | dict(zip(names, row, strict=True)) for row in columns]
