"""Stiffness within classes, super-classes and super-super-classes against epoch (figure 9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS
from stiffness.measures.seeds import seed_means

# Quantities of the summary table by what the paper calls them (section 4.2).
_NAMES = {
    "within": "same class",
    "super_class": "same super-class, different classes",
    "super_super_class": "same super-super-class,\ndifferent super-classes",
    "between": "any two different classes\n(baseline)",
}


def draw(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one panel per metric and one curve per average, as means over seeds.

    Args:
        runs, summary: an experiment's tables; its data set has a hierarchy.
        options: width, height (inches), colors (one per average), pair_mode.
    """
    _, status = style.reference_run(runs, learning_rate)
    layout = ConstrainedLayoutEngine(w_pad=0.1)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout=layout)
    mode = style.MODE_NAMES[options["pair_mode"]]
    title = (
        f"{runs['experiment'].iloc[0]}, learning rate {learning_rate}, {mode} pairs, 95 % intervals"
    )
    if style.refuse_dead(figure, title, status, outputs):
        return
    alive = rows(summary, lr=learning_rate, status=style.OK, pair_mode=options["pair_mode"])
    axes = figure.subplots(1, len(METRICS), sharex=True)
    for axis, metric in zip(axes, METRICS, strict=True):
        for (quantity, name), color in zip(_NAMES.items(), options["colors"], strict=True):
            one = rows(alive, metric=metric, quantity=quantity)
            if len(one):
                dashes = "--" if quantity == "between" else "-"
                mean = seed_means(one, ["epoch"])
                style.curve(axis, mean, "epoch", color, name, ls=dashes)
        axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        axis.set_ylabel(style.METRIC_NAMES[metric])
        axis.set_xlabel("epoch")
    style.epoch_axis(axes[0], alive["epoch"])
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center")
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)
