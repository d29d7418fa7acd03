"""Tidy tables of one training segment: one row a step, pair mode, metric and quantity."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stiffness.data.evaluation import Evaluation, cosine_distances
from stiffness.data.hierarchy import Hierarchy
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors
from stiffness.stiffness.classes import ClassStiffness, class_stiffness
from stiffness.stiffness.distance import (
    ClassPairs,
    binned,
    critical_length,
    defined_pairs,
    same_class_pairs,
)
from stiffness.stiffness.pairs import METRICS, PAIR_MODES, Floats, interval, select_pairs

INPUT = "input"

_KEY = ["step", "epoch", "pair_mode", "metric"]
COLUMNS = {
    "summary": [*_KEY, "quantity", "value", "low", "high", "n_pairs", "n_excluded"],
    "classes": [*_KEY, "class_a", "class_b", "value", "low", "high", "n_pairs", "n_excluded"],
    "distance": [*_KEY, "layer", "distance", "value", "low", "high", "n_pairs", "n_excluded"],
    "critical_length": [
        *_KEY,
        "layer",
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
}


@dataclass(frozen=True)
class _Space:
    """Same-class pairs by pair mode, with their distances in one space."""

    pairs: dict[str, ClassPairs]
    farthest: float

    @classmethod
    def of(cls, distances: torch.Tensor, evaluation: Evaluation) -> "_Space":
        classes, number = evaluation.targets.numpy(), evaluation.num_train
        pairs = {
            mode: same_class_pairs(distances.numpy(), classes, number, mode) for mode in PAIR_MODES
        }
        farthest = max(float(one.distances.max(initial=0)) for one in pairs.values())
        return cls(pairs, max(farthest, 1e-9))


def segment_tables(
    cosines_folder: str | Path,
    evaluation: Evaluation,
    distance_bins: int,
    hierarchy: Hierarchy | None = None,
    layers: Sequence[str] = (INPUT,),
    representations: str | Path | None = None,
) -> dict[str, pd.DataFrame]:
    """All tables of the checkpoints in the folder ``cosines_folder``.

    Args:
        distance_bins: bins of equal width from 0 to the farthest same-class pair of the subset;
            of the input they are the same for every checkpoint.
        hierarchy: of the classes; for the quantities super_class and super_super_class.
        layers: where distances are measured: "input", or layers found in ``representations``.
        representations: folder of the layers' representations, a file a checkpoint.

    Returns:
        "summary": within-class and between-classes stiffness, and with a hierarchy that between
        the classes of its groups (section 4.2); "classes": the class stiffness
        matrix; "distance": same-class stiffness in bins of distance; "critical_length": the
        linear fit and xi. ``low`` and ``high`` bound a 95 % interval over examples; ``n_pairs``
        counts different pairs, ``n_excluded`` examples without a gradient.

    Raises:
        StiffnessError: a file is unreadable or was measured on another evaluation subset.
    """
    classes = evaluation.targets.numpy()
    at_input = _Space.of(evaluation.distances(), evaluation) if INPUT in layers else None
    inner = [layer for layer in layers if layer != INPUT]
    groups = hierarchy.cells(evaluation.class_names) if hierarchy else {}
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS if name != "classes"}
    matrices: list[pd.DataFrame] = []
    for path in sorted(Path(cosines_folder).glob("step=*.safetensors")):
        tensors, metadata = read_tensors(path)
        if len(tensors["log_norms"]) != len(classes):
            raise StiffnessError(
                f"{path}: {len(tensors['log_norms'])} examples, but the evaluation subset has "
                f"{len(classes)}; delete the folder and run again"
            )
        checkpoint = {"step": metadata["step"], "epoch": metadata["epoch"]}
        spaces = {INPUT: at_input} if at_input else {}
        if inner:
            assert representations is not None
            vectors, _ = read_tensors(Path(representations) / path.name, inner)
            spaces |= {
                name: _Space.of(cosine_distances(vectors[name]), evaluation) for name in inner
            }
        cosines, log_norms = tensors["cosines"].numpy(), tensors["log_norms"].numpy()
        for mode in PAIR_MODES:
            for metric in METRICS:
                pairs = select_pairs(
                    cosines, log_norms, classes, evaluation.num_train, mode, metric
                )
                key = checkpoint | {
                    "pair_mode": mode,
                    "metric": metric,
                    "n_excluded": pairs.num_excluded,
                }
                stiffness = class_stiffness(pairs, len(evaluation.class_names), groups)
                rows["summary"] += _summary_rows(key, stiffness)
                matrices.append(_class_table(key, stiffness, evaluation.class_names))
                for layer in layers:
                    close, in_layer = spaces[layer].pairs[mode], key | {"layer": layer}
                    if metric == "cosine":
                        close = defined_pairs(close, np.isfinite(log_norms))
                    values = cosines[close.first, close.second].astype(np.float64)
                    values = np.nan_to_num(np.sign(values) if metric == "sign" else values)
                    edges = np.linspace(0, spaces[layer].farthest, distance_bins + 1)
                    rows["distance"] += _distance_rows(in_layer, close, values, edges)
                    rows["critical_length"].append(
                        in_layer | _renamed(asdict(critical_length(close, values)))
                    )
    tables = {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in rows}
    empty = pd.DataFrame([], columns=COLUMNS["classes"])
    tables["classes"] = pd.concat(matrices, ignore_index=True) if matrices else empty
    return {name: tables[name] for name in COLUMNS}


def _renamed(row: dict[str, Any]) -> dict[str, Any]:
    row["n_pairs"] = row.pop("num_pairs")
    return row


def _summary_rows(key: dict[str, Any], stiffness: ClassStiffness) -> list[dict[str, Any]]:
    estimates = {"within": stiffness.within, "between": stiffness.between} | stiffness.groups
    rows = []
    for quantity, estimate in estimates.items():
        low, high = interval(estimate.value, estimate.error)
        rows.append(
            key
            | {
                "quantity": quantity,
                "value": estimate.value,
                "low": float(low),
                "high": float(high),
                "n_pairs": estimate.num_pairs,
            }
        )
    return rows


def _class_table(key: dict[str, Any], stiffness: ClassStiffness, names: list[str]) -> pd.DataFrame:
    # Columns, not a dict a row: 100 classes are 60,000 rows a checkpoint.
    low, high = interval(stiffness.matrix, stiffness.error)
    cells = {
        "class_a": np.repeat(names, len(names)),
        "class_b": np.tile(names, len(names)),
        "value": stiffness.matrix.ravel(),
        "low": low.ravel(),
        "high": high.ravel(),
        "n_pairs": stiffness.num_pairs.ravel(),
    }
    return pd.DataFrame(key | cells, columns=COLUMNS["classes"])


def _distance_rows(
    key: dict[str, Any], pairs: ClassPairs, values: Floats, edges: Floats
) -> list[dict[str, Any]]:
    bins = binned(pairs, values, edges)
    low, high = interval(bins.value, bins.error)
    columns = zip(bins.distance, bins.value, low, high, bins.num_pairs, strict=True)
    names = ("distance", "value", "low", "high", "n_pairs")
    return [key | dict(zip(names, row, strict=True)) for row in columns]
