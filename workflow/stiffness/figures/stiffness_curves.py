"""Within-class and between-classes stiffness against epoch, both metrics (figure 5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS


def draw(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    learning_rates: Sequence[str],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one row per quantity, one column per metric and one curve per learning rate.

    Args:
        runs, summary: an experiment's tables.
        options: width, height (inches), palette, pair_mode.
    """
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(options["width"], options["height"]),
        sharex=True,
        layout="constrained",
    )
    alive = rows(summary, status=style.OK, pair_mode=options["pair_mode"])
    rates = sorted(learning_rates, key=float)
    shades = style.colors(options["palette"], len(rates))
    for column, metric in enumerate(METRICS):
        for row, quantity in enumerate(("within", "between")):
            axis = axes[row, column]
            for rate, color in zip(rates, shades, strict=True):
                shown = rows(alive, lr=rate, metric=metric, quantity=quantity)
                if len(shown):
                    style.curve(axis, style.over_seeds(shown), "epoch", color, rate)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
            if (quantity, metric) == ("between", "cosine"):
                _equal_outputs(axis, summary)
            if row == 0:
                axis.set_title(style.METRIC_NAMES[metric])
    axes[0, 0].set_ylabel("within-class stiffness")
    axes[1, 0].set_ylabel("between-classes stiffness")
    if len(alive):
        figure.supxlabel(style.epoch_axis(axes[0, 0], alive["epoch"], runs), fontsize=8)
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, title="learning rate", loc="outside right center")
    mode = style.MODE_NAMES[options["pair_mode"]]
    title = style.heading(runs, f"{mode} pairs", "bands: 95 % intervals")
    figure.suptitle("\n".join(filter(None, [title, style.dead_runs(runs)])), fontsize=8)
    style.save(figure, outputs)


def _equal_outputs(axis: Axes, summary: pd.DataFrame) -> None:
    """Mark -1 / (C - 1), the cosine of two classes' loss gradients where all C outputs are equal.

    The evaluation subset has equally many examples of every class, so that the numbers of pairs
    tell C.
    """
    counts = rows(summary, pair_mode="train-val", metric="sign").groupby("quantity")["n_pairs"]
    largest = counts.max()
    if not largest.get("within", 0) > 0 or not largest.get("between", 0) > 0:
        return
    others = largest["between"] / largest["within"]  # C - 1
    axis.axhline(-1 / others, color="0.4", lw=0.8, ls=":", zorder=0)
    axis.text(
        1,
        -1 / others,
        "equal outputs",
        transform=axis.get_yaxis_transform(),
        ha="right",
        va="bottom",
        fontsize=6,
        color="0.4",
    )
