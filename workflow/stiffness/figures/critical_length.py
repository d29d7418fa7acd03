"""The critical length xi against epoch and against training loss (figures 12, S9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stiffness.figures import style
from stiffness.stiffness.distance import MEASURED, NONE
from stiffness.stiffness.pairs import METRICS

_MOST = 2.0  # no two inputs are farther apart
_BEYOND, _NONE = 2.12, 2.26  # where the marks for "beyond that" and "no crossing" stand


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    critical_length: pd.DataFrame,
    learning_rates: Sequence[str],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Rows: against epoch, against training loss; columns: sign, cosine; a colour a rate.

    Args:
        runs, history, critical_length: an experiment's tables.
        options: width, height (inches), palette, pair_mode.
    """
    figure, axes = plt.subplots(
        2,
        2,
        figsize=(options["width"], options["height"]),
        sharey=True,
        layout="constrained",
    )
    losses = history[["lr", "seed", "step", "train_loss"]]
    alive = critical_length[
        (critical_length["status"] == style.OK)
        & (critical_length["pair_mode"] == options["pair_mode"])
    ].merge(losses, on=["lr", "seed", "step"])
    rates = sorted(learning_rates, key=float)
    shades = style.colors(options["palette"], len(rates))
    for column, metric in enumerate(METRICS):
        rows = alive[alive["metric"] == metric]
        for rate, color in zip(rates, shades, strict=True):
            for _, run in rows[rows["lr"] == rate].groupby("seed"):
                _points(axes[0, column], run, "epoch", color)
                _points(axes[1, column], run, "train_loss", color)
        axes[0, column].set_title(f"from {style.METRIC_NAMES[metric]}")
        axes[0, column].set_xlabel("epoch")
        axes[1, column].set_xlabel("training loss (training proceeds to the right)")
        if len(alive):
            style.epoch_axis(axes[0, column], alive["epoch"])
            axes[1, column].set_xscale("log")
            axes[1, column].set_xlim(
                alive["train_loss"].max() * 1.1, alive["train_loss"].min() / 1.1
            )
    for axis in axes.flat:
        axis.axhline(_MOST, color="0.6", lw=0.6, ls=(0, (2, 2)), zorder=0)
        axis.set_ylim(0, 2.35)
        axis.set_yticks([0, 0.5, 1, 1.5, 2])
    for axis in axes[:, 0]:
        axis.set_ylabel(r"critical length $\xi$ (input distance)")
    handles = [
        Line2D([], [], color=color, marker="o", ms=3, label=rate)
        for rate, color in zip(rates, shades, strict=True)
    ]
    marks = [
        ("o", "0.3", "within the data"),
        ("o", "white", "extrapolated"),
        ("^", "white", "beyond 2, the\nlargest distance"),
        ("x", "0.3", "no crossing"),
    ]
    handles += [
        Line2D([], [], color="0.3", ls="", marker=marker, mfc=fill, ms=4, label=label)
        for marker, fill, label in marks
    ]
    figure.legend(handles=handles, title="learning rate", loc="outside right center")
    title = (
        f"{runs['experiment'].iloc[0]}, {style.MODE_NAMES[options['pair_mode']]} pairs, "
        "95 % intervals"
    )
    figure.suptitle("\n".join(filter(None, [title, style.dead_runs(runs)])), fontsize=8)
    style.save(figure, outputs)


def _points(axis: Axes, run: pd.DataFrame, x: str, color: Any) -> None:
    run = run.sort_values("step")
    inside = run[(run["crossing"] != NONE) & (run["value"] <= _MOST)]
    # A line joins neighbouring checkpoints only: it breaks where one has no value to draw.
    unbroken = run["value"].where(run.index.isin(inside.index))
    axis.plot(run[x], unbroken, color=color, lw=0.7, alpha=0.6)
    axis.vlines(inside[x], inside["low"], inside["high"], color=color, lw=0.7, alpha=0.6)
    for kind, fill in ((True, color), (False, "white")):
        rows = inside[(inside["crossing"] == MEASURED) == kind]
        axis.plot(rows[x], rows["value"], "o", ms=2.6, mew=0.7, color=color, mfc=fill)
    beyond = run[(run["crossing"] != NONE) & (run["value"] > _MOST)]
    axis.plot(beyond[x], [_BEYOND] * len(beyond), "^", ms=3, mew=0.7, color=color, mfc="white")
    none = run[run["crossing"] == NONE]
    axis.plot(none[x], [_NONE] * len(none), "x", ms=3, mew=0.7, color=color)
