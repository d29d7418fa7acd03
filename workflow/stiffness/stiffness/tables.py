"""Tidy tables of one training segment: one row a step, pair mode, metric and quantity."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stiffness.data.evaluation import Evaluation, cosine_distances
from stiffness.data.hierarchy import Hierarchy
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors
from stiffness.stiffness.bootstrap import Singles, draw_weights
from stiffness.stiffness.classes import ClassStiffness, Estimate, class_stiffness
from stiffness.stiffness.distance import (
    Bins,
    CriticalLength,
    ResampledPairs,
    defined_pairs,
    distance_stiffness,
    same_class_pairs,
)
from stiffness.stiffness.extremes import COLUMNS as EXTREMES
from stiffness.stiffness.extremes import extremes
from stiffness.stiffness.pairs import METRICS, PAIR_MODES, Bools, Floats, select_pairs

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
        "max_distance",
        "n_pairs",
        "n_excluded",
    ],
    "extremes": ["step", "epoch", *EXTREMES],
}


@dataclass(frozen=True)
class Measured:
    """What ``measure_segment`` makes of a segment.

    Attributes:
        tables: "summary": within-class and between-classes stiffness, with a hierarchy that
            between the classes of its groups (section 4.2), and where training labels are wrong
            both for clean and for mislabelled training examples alone; "classes": the class
            stiffness matrix; "distance": same-class stiffness in bins of distance;
            "critical_length": xi by either estimator; "extremes": see there. ``low`` and ``high``
            bound a 95 % bootstrap interval over examples; ``n_pairs`` counts different pairs,
            ``n_excluded`` examples
            without a gradient.
        replicates: float32 [steps, R] by name: the resamples behind the intervals of the summary
            ("within/train-val/sign") and of xi ("xi/line/input/train-val/sign"; infinite where a
            resample has no crossing); and "steps", int64 [steps].
    """

    tables: dict[str, pd.DataFrame]
    replicates: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Space:
    """Same-class pairs by pair mode, with their distances in one space, and resamples of them."""

    pairs: dict[str, ResampledPairs]
    edges: Floats

    @classmethod
    def of(
        cls, distances: torch.Tensor, evaluation: Evaluation, bins: int, weights: Singles
    ) -> "Space":
        classes, number = evaluation.targets.numpy(), evaluation.num_train
        pairs = {
            mode: same_class_pairs(distances.numpy(), classes, number, mode) for mode in PAIR_MODES
        }
        farthest = max(float(one.distances.max(initial=0)) for one in pairs.values())
        edges = np.linspace(0, max(farthest, 1e-9), bins + 1)
        resampled = {mode: ResampledPairs(one, edges, weights) for mode, one in pairs.items()}
        return cls(resampled, edges)

    def defined(self, mode: str, defined: Bools) -> ResampledPairs:
        """The pairs of one mode without those of undefined examples."""
        whole = self.pairs[mode]
        if defined.all():
            return whole
        return ResampledPairs(defined_pairs(whole.pairs, defined), self.edges, whole.weights)


def example_weights(evaluation: Evaluation, resamples: int, seed: int) -> Singles:
    """float32 [N, R], ``bootstrap.draw_weights`` of a subset: strata are classes of either set."""
    classes = evaluation.targets.numpy()
    training = np.arange(len(classes)) < evaluation.num_train
    return draw_weights(classes * 2 + training, resamples, seed)


def measure_segment(
    cosines_folder: str | Path,
    evaluation: Evaluation,
    distance_bins: int,
    resamples: int,
    seed: int,
    hierarchy: Hierarchy | None = None,
    layers: Sequence[str] = (INPUT,),
    representations: str | Path | None = None,
) -> Measured:
    """Tables of the checkpoints in the folder ``cosines_folder``.

    Args:
        distance_bins: bins of equal width from 0 to the farthest same-class pair of the subset;
            of the input they are the same for every checkpoint.
        resamples, seed: of the bootstrap; the same draws serve all checkpoints of all runs on one
            evaluation subset.
        hierarchy: of the classes; for the quantities super_class and super_super_class.
        layers: where distances are measured: "input", or layers found in ``representations``.
        representations: folder of the layers' representations, a file a checkpoint.

    Raises:
        StiffnessError: a file is unreadable or was measured on another evaluation subset.
    """
    classes, num_train = evaluation.targets.numpy(), evaluation.num_train
    weights = example_weights(evaluation, resamples, seed)
    sides = {"train": weights[:num_train], "val": weights[num_train:]}
    at_input = (
        Space.of(evaluation.distances(), evaluation, distance_bins, weights)
        if INPUT in layers
        else None
    )
    inner = [layer for layer in layers if layer != INPUT]
    groups = hierarchy.cells(evaluation.class_names) if hierarchy else {}
    parts, num_classes = _parts_by_label(evaluation), len(evaluation.class_names)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS if name != "classes"}
    matrices: list[pd.DataFrame] = []
    steps: list[int] = []
    replicates: dict[str, list[Floats]] = {}
    for path in sorted(Path(cosines_folder).glob("step=*.safetensors")):
        tensors, metadata = read_tensors(path)
        if len(tensors["log_norms"]) != len(classes):
            raise StiffnessError(
                f"{path}: {len(tensors['log_norms'])} examples, but the evaluation subset has "
                f"{len(classes)}; delete the folder and run again"
            )
        steps.append(metadata["step"])
        checkpoint = {"step": metadata["step"], "epoch": metadata["epoch"]}
        spaces = {INPUT: at_input} if at_input else {}
        if inner:
            assert representations is not None
            vectors, _ = read_tensors(Path(representations) / path.name, inner)
            for name in inner:
                distances = cosine_distances(vectors[name])
                spaces[name] = Space.of(distances, evaluation, distance_bins, weights)
        cosines, log_norms = tensors["cosines"].numpy(), tensors["log_norms"].numpy()
        known = tensors.get("predictions")
        predictions = None if known is None else known.numpy()
        rows["extremes"] += [checkpoint | row for row in extremes(cosines, evaluation, predictions)]
        for mode in PAIR_MODES:
            row_side, column_side = mode.split("-")
            for metric in METRICS:
                pairs = select_pairs(cosines, log_norms, classes, num_train, mode, metric)
                key = checkpoint | {
                    "pair_mode": mode,
                    "metric": metric,
                    "n_excluded": pairs.num_excluded,
                }
                row_weights, column_weights = sides[row_side], sides[column_side]
                stiffness = class_stiffness(pairs, num_classes, row_weights, column_weights, groups)
                estimates = {"within": stiffness.within, "between": stiffness.between}
                summaries = [(key, estimates | stiffness.groups)]
                for part, chosen in parts.items() if row_side == "train" else ():
                    some = pairs.of_rows(chosen)
                    drawn = row_weights[chosen]
                    of_part = class_stiffness(
                        some, num_classes, drawn, drawn if some.same_set else column_weights
                    )
                    estimates = {
                        f"within_{part}": of_part.within,
                        f"between_{part}": of_part.between,
                    }
                    summaries.append((key | {"n_excluded": some.num_excluded}, estimates))
                for about, estimates in summaries:
                    for quantity, estimate in estimates.items():
                        rows["summary"].append(summary_row(about, quantity, estimate))
                        name = f"{quantity}/{mode}/{metric}"
                        replicates.setdefault(name, []).append(estimate.replicates)
                matrices.append(_class_table(key, stiffness, evaluation.class_names))
                counted = (
                    np.isfinite(log_norms) if metric == "cosine" else np.ones(len(classes), bool)
                )
                for layer in layers:
                    in_layer = key | {"layer": layer}
                    resampled = spaces[layer].defined(mode, counted)
                    first, second = resampled.pairs.first, resampled.pairs.second
                    values = cosines[first, second].astype(np.float64)
                    values = np.nan_to_num(np.sign(values) if metric == "sign" else values)
                    measured = distance_stiffness(resampled, values)
                    rows["distance"] += distance_rows(in_layer, measured.bins)
                    for length in measured.lengths:
                        rows["critical_length"].append(in_layer | length_row(length))
                        name = f"xi/{length.estimator}/{layer}/{mode}/{metric}"
                        replicates.setdefault(name, []).append(length.replicates)
    tables = {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in rows}
    empty = pd.DataFrame([], columns=COLUMNS["classes"])
    tables["classes"] = pd.concat(matrices, ignore_index=True) if matrices else empty
    stacked = {
        name: torch.from_numpy(np.stack(values).astype(np.float32))
        for name, values in replicates.items()
    }
    stacked["steps"] = torch.tensor(steps, dtype=torch.int64)
    return Measured({name: tables[name] for name in COLUMNS}, stacked)


def _parts_by_label(evaluation: Evaluation) -> dict[str, Bools]:
    """[num_train] masks of clean and of mislabelled training examples; none where all are clean."""
    wrong = evaluation.mislabelled
    if wrong is None or not wrong.any():
        return {}
    return {"clean": ~wrong.numpy(), "mislabelled": wrong.numpy()}


def length_row(length: CriticalLength) -> dict[str, Any]:
    row = {field.name: getattr(length, field.name) for field in fields(length)}
    del row["replicates"]
    row["n_pairs"] = row.pop("num_pairs")
    return row


def summary_row(key: dict[str, Any], quantity: str, estimate: Estimate) -> dict[str, Any]:
    return key | {
        "quantity": quantity,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n_pairs": estimate.num_pairs,
    }


def _class_table(key: dict[str, Any], stiffness: ClassStiffness, names: list[str]) -> pd.DataFrame:
    # Columns, not a dict a row: 100 classes are 60,000 rows a checkpoint.
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
    columns = zip(bins.distance, bins.value, bins.low, bins.high, bins.num_pairs, strict=True)
    names = ("distance", "value", "low", "high", "n_pairs")
    return [key | dict(zip(names, row, strict=True)) for row in columns]
