"""Cosine stiffness of the evaluation subset against the whole training set's (section 3.2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stiffness.figures import style
from stiffness.files import rows
from stiffness.training.stages import Stage, reference_stages

METRIC, PAIR_MODE = "cosine", "train-train"
"""The subset's estimate that is compared: the mean cosine over pairs of training examples."""


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    classes: pd.DataFrame,
    whole_set: pd.DataFrame,
    learning_rate: str,
    stages: Sequence[Any],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw averages over classes at each stage (left) and all cells of the class matrix (right).

    Args:
        runs, history, summary: an experiment's tables.
        classes, whole_set: class stiffness of the reference learning rate, of the subset and of all
            training examples, each with a column seed.
        options: width, height (inches), colors (within, between), palette (of stages).
    """
    seed, status = style.reference_run(runs, learning_rate)
    layout = ConstrainedLayoutEngine(w_pad=0.08)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout=layout)
    about = f"{style.METRIC_NAMES[METRIC]} of training examples"
    title = style.heading(runs, about, "95 % intervals", learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    chosen = reference_stages(runs, history, learning_rate, stages)
    pairs = {"seed": seed, "metric": METRIC, "pair_mode": PAIR_MODE}
    summary = rows(summary, lr=learning_rate, **pairs)
    of_subset = rows(classes, **pairs)
    of_all = rows(whole_set, seed=seed)
    counts = of_all["n_examples"].drop_duplicates()
    everything = f"all {int(counts.iloc[0]):,} examples" if len(counts) else "all examples"
    left, right = figure.subplots(1, 2)
    _averages(left, chosen, summary, of_all, options["colors"], everything)
    names = [style.stage_name(stage) for stage in chosen]
    widest = max(len(line) for name in names for line in name.split("\n"))
    crowded = widest * len(names) > 5 * options["width"]
    left.set_xticks(range(len(names)), names, rotation=90 if crowded else 0)
    _cells(right, chosen, of_subset, of_all, style.colors(options["palette"], len(chosen)))
    left.set_ylabel(style.METRIC_NAMES[METRIC])
    handles = left.get_legend_handles_labels()
    figure.legend(*handles, ncols=2, loc="outside lower center", labelspacing=0.9)
    right.set_xlabel(f"cell of the class matrix, {everything}")
    right.set_ylabel("the same cell, subset")
    # Beside the panel: five stages with long names would lie over its points.
    figure.legend(
        *right.get_legend_handles_labels(),
        loc="outside right center",
        title="stage: share of the\nintervals that hold the\nwhole set's value",
    )
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def coverage(cells: pd.DataFrame) -> float:
    """Return the share of cells whose interval holds the whole set's value; NaN without any."""
    known = cells[["low", "high", "whole"]].notna().all(axis=1)
    held = (cells["low"] <= cells["whole"]) & (cells["whole"] <= cells["high"])
    return float(held[known].mean()) if known.any() else float("nan")


def matched(subset: pd.DataFrame, whole: pd.DataFrame) -> pd.DataFrame:
    """Join both matrices of one stage: one row per pair of classes, with a column ``whole``."""
    order = {name: place for place, name in enumerate(whole["class_a"].drop_duplicates())}
    renamed = whole[["class_a", "class_b", "value"]].rename(columns={"value": "whole"})
    cells = subset.merge(renamed, on=["class_a", "class_b"])
    upper = cells["class_a"].map(order) <= cells["class_b"].map(order)  # the matrix is symmetric
    return cells[upper].dropna(subset=["value", "whole"])


def _averages(
    axis: Axes,
    stages: Sequence[Stage],
    summary: pd.DataFrame,
    whole: pd.DataFrame,
    colors: Sequence[str],
    everything: str,
) -> None:
    places = np.arange(len(stages))
    for quantity, color, shift in zip(("within", "between"), colors, (-0.06, 0.06), strict=True):
        of_stages = [rows(summary, step=stage.step, quantity=quantity) for stage in stages]
        estimates = pd.concat([of_stage.iloc[:1] for of_stage in of_stages])
        of_class = "within classes" if quantity == "within" else "between classes"
        axis.errorbar(
            places + shift,
            estimates["value"],
            yerr=[
                estimates["value"] - estimates["low"],
                estimates["high"] - estimates["value"],
            ],
            fmt="o",
            ms=4,
            capsize=3,
            color=color,
            label=f"{of_class}, subset",
        )
        own = whole["class_a"] == whole["class_b"]
        cells = whole[own if quantity == "within" else ~own]
        values = [rows(cells, step=stage.step)["value"].mean() for stage in stages]
        axis.plot(
            places + shift,
            values,
            "D",
            mfc="none",
            ms=8,
            color=color,
            label=f"{of_class}, {everything}",
        )
    axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    axis.set_xlim(-0.5, len(stages) - 0.5)


def _cells(
    axis: Axes,
    stages: Sequence[Stage],
    subset: pd.DataFrame,
    whole: pd.DataFrame,
    colors: Sequence[Any],
) -> None:
    for stage, color in zip(stages, colors, strict=True):
        cells = matched(rows(subset, step=stage.step), rows(whole, step=stage.step))
        share = coverage(cells)
        name = style.stage_name(stage)
        axis.errorbar(
            cells["whole"],
            cells["value"],
            yerr=[cells["value"] - cells["low"], cells["high"] - cells["value"]],
            fmt="o",
            ms=2,
            lw=0.5,
            color=color,
            label=f"{name}: {100 * share:.0f} %" if np.isfinite(share) else name,
        )
    axis.axline((0, 0), slope=1, color="0.3", lw=0.8, ls="--", zorder=0)
