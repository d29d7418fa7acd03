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
    """Draw one column per metric and one curve per average, as means over seeds.

    The upper row shows all averages; the lower one those of different classes on a scale of their
    own, since they are many times smaller.

    Args:
        runs, summary: an experiment's tables; its data set has a hierarchy.
        options: width, height (inches), colors (one per average), pair_mode.
    """
    _, status = style.reference_run(runs, learning_rate)
    layout = ConstrainedLayoutEngine(w_pad=0.1)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout=layout)
    mode = style.MODE_NAMES[options["pair_mode"]]
    title = style.heading(runs, f"{mode} pairs", "95 % intervals", learning_rate=learning_rate)
    if style.refuse_dead(figure, title, status, outputs):
        return
    alive_runs = rows(runs, lr=learning_rate, status=style.OK)
    alive = rows(summary, lr=learning_rate, status=style.OK, pair_mode=options["pair_mode"])
    # The label and the legend would have the same place below one figure.
    ((body,),) = figure.subfigures(squeeze=False)
    axes = body.subplots(2, len(METRICS), sharex=True)
    for metric, (all_of_them, others) in zip(METRICS, axes.T, strict=True):
        for (quantity, name), color in zip(_NAMES.items(), options["colors"], strict=True):
            one = rows(alive, metric=metric, quantity=quantity)
            if len(one):
                dashes = "--" if quantity == "between" else "-"
                for axis in (all_of_them,) if quantity == "within" else (all_of_them, others):
                    style.curve(axis, style.over_seeds(one), "epoch", color, name, ls=dashes)
        for axis in (all_of_them, others):
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        all_of_them.set_title(style.METRIC_NAMES[metric])
    axes[0, 0].set_ylabel("stiffness")
    axes[1, 0].set_ylabel("stiffness of different\nclasses, enlarged")
    body.supxlabel(style.epoch_axis(axes[0, 0], alive["epoch"], alive_runs), fontsize=8)
    body.align_ylabels()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=len(labels), loc="outside lower center")
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)
