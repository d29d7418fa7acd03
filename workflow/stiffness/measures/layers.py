"""Stiffness layer by layer (first version of the paper).

One part measures the stiffness of each layer's own block of the gradient, the other that of the
whole gradient against the distance between the layer's inputs.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors
from stiffness.measures.bootstrap import Floats32
from stiffness.measures.classes import class_stiffness
from stiffness.measures.lengths import distance_stiffness
from stiffness.measures.pairs import METRICS, PAIR_MODES, Floats, select_pairs
from stiffness.measures.tables import (
    COLUMNS as WHOLE,
)
from stiffness.measures.tables import (
    Space,
    distance_rows,
    example_weights,
    length_row,
    summary_row,
)

_LAYER = ["step", "epoch", "depth", "layer", "kind"]


def _columns(name: str) -> list[str]:
    return [*_LAYER, *(column for column in WHOLE[name] if column not in _LAYER)]


COLUMNS = {
    "summary": _columns("summary"),
    "distance": _columns("distance"),
    "critical_length": [*_columns("critical_length"), "median_distance", "limit"],
}


def layer_tables(
    folder: str | Path, evaluation: Evaluation, distance_bins: int, resamples: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Measure stiffness of every layer at the checkpoints in ``folder``.

    Args:
        folder: of a segment, with one file per checkpoint from ``gradients.by_layer``.
        distance_bins, resamples, seed: as for ``tables.measure_segment``.

    Returns:
        "summary": within-class and between-classes stiffness of each layer's block; "distance" and
        "critical_length": of the whole gradient, against the distance between what the layer reads.
        ``depth`` counts layers from 0 in the order of their calls, ``kind`` is a layer's type.
        ``median_distance`` is that of the pairs that xi is fitted to, and ``limit`` the largest
        distance there can be, 1 where nothing that the layer reads is negative, else 2.

    Raises:
        StiffnessError: a file is unreadable or was measured on another evaluation subset.
    """
    weights = example_weights(evaluation, resamples, seed)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in COLUMNS}
    for path in sorted(Path(folder).glob("step=*.safetensors")):
        tensors, metadata = read_tensors(path)
        layers = metadata["layers"]
        sizes = {len(tensors[f"log_norms/{layer['name']}"]) for layer in layers}
        if sizes != {len(evaluation.targets)}:
            raise StiffnessError(
                f"{path}: {max(sizes)} examples, but the evaluation subset has "
                f"{len(evaluation.targets)}; delete the folder and run again"
            )
        cosines, log_norms = whole_cosines(tensors, [layer["name"] for layer in layers])
        for depth, layer in enumerate(layers):
            name = layer["name"]
            key = {"step": metadata["step"], "epoch": metadata["epoch"]}
            key |= {"depth": depth, "layer": name, "kind": layer["kind"]}
            block = tensors[f"cosines/{name}"].numpy(), tensors[f"log_norms/{name}"].numpy()
            rows["summary"] += _summary(key, *block, evaluation, weights)
            if f"distances/{name}" in tensors:
                space = Space.from_matrix(
                    tensors[f"distances/{name}"], evaluation, distance_bins, weights
                )
                found = _distance(
                    key, space, cosines, log_norms, evaluation.num_train, layer["limit"]
                )
                rows["distance"] += found[0]
                rows["critical_length"] += found[1]
    return {name: pd.DataFrame(rows[name], columns=COLUMNS[name]) for name in COLUMNS}


def whole_cosines(
    tensors: Mapping[str, torch.Tensor], layers: Sequence[str]
) -> tuple[Floats, Floats]:
    """Cosines and norms of the whole gradient from those of its blocks.

    If s_b = |g_b| / |g| is block b's share of the norm, the cosine of examples i and j is the sum
    over blocks of s_b(i) s_b(j) cos_b(i, j).

    Args:
        tensors: "cosines/<layer>" [N, N] and "log_norms/<layer>" [N] of every layer.
        layers: their names.

    Returns:
        Cosines [N, N], NaN where all blocks are 0, and log-norms [N], -inf there.
    """
    blocks = torch.stack([tensors[f"log_norms/{name}"].double() for name in layers])
    log_norms = torch.logsumexp(2 * blocks, 0) / 2
    defined = torch.isfinite(log_norms)
    number = blocks.shape[1]
    cosines = torch.zeros(number, number, dtype=torch.float64)
    for name, block in zip(layers, blocks, strict=True):
        share = torch.where(torch.isfinite(block), (block - log_norms).exp(), 0.0)
        part = tensors[f"cosines/{name}"].double().nan_to_num_(0)
        cosines += part.mul_(share[:, None]).mul_(share)
    cosines[~defined] = cosines[:, ~defined] = torch.nan
    return cosines.clamp_(-1, 1).numpy(), log_norms.numpy()


def _summary(
    key: dict[str, Any],
    cosines: Floats,
    log_norms: Floats,
    evaluation: Evaluation,
    weights: Floats32,
) -> list[dict[str, Any]]:
    classes, number = evaluation.targets.numpy(), evaluation.num_train
    sides = {"train": weights[:number], "val": weights[number:]}
    rows = []
    for mode in PAIR_MODES:
        row_side, column_side = mode.split("-")
        for metric in METRICS:
            pairs = select_pairs(cosines, log_norms, classes, number, mode, metric)
            stiffness = class_stiffness(
                pairs, len(evaluation.class_names), sides[row_side], sides[column_side]
            )
            about = {"pair_mode": mode, "metric": metric, "n_excluded": pairs.num_excluded}
            for quantity in ("within", "between"):
                rows.append(summary_row(key | about, quantity, getattr(stiffness, quantity)))
    return rows


def _distance(
    key: dict[str, Any],
    space: Space,
    cosines: Floats,
    log_norms: Floats,
    num_train: int,
    limit: float,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of the tables of distance and of critical lengths."""
    bins, lengths = [], []
    for mode in PAIR_MODES:
        for metric in METRICS:
            defined = np.isfinite(log_norms) | (metric == "sign")
            sets = {"train": defined[:num_train], "val": defined[num_train:]}
            excluded = sum(int((~sets[name]).sum()) for name in set(mode.split("-")))
            resampled = space.defined(mode, defined)
            pairs = resampled.pairs
            values = cosines[pairs.first, pairs.second]
            values = np.nan_to_num(np.sign(values) if metric == "sign" else values)
            about = key | {"pair_mode": mode, "metric": metric, "n_excluded": excluded}
            measured = distance_stiffness(resampled, values)
            bins += distance_rows(about, measured.bins)
            median = float(np.median(pairs.distances)) if len(values) else np.nan
            scale = {"median_distance": median, "limit": limit}
            lengths += [about | length_row(length) | scale for length in measured.lengths]
    return bins, lengths
