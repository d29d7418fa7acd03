"""The critical length xi against epoch and against training loss (figures 12, S9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.distance import BEYOND, MEASURED, NONE
from stiffness.measures.pairs import METRICS
from stiffness.training.runs import select_line_fit

_MOST = 2.0  # no two inputs are farther apart
_LOWEST, _HIGHEST = 0.4, 20.0
_BEYOND, _NONE = 23.0, 30.0  # where the marks for "beyond the axis" and "no crossing" stand
_TOP = 36.0


def prepare(critical_length: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Select the lengths that are shown, which are those of a fitted line."""
    return {"critical_length": select_line_fit(critical_length)}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    critical_length: pd.DataFrame,
    learning_rates: Sequence[str],
    space: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw xi against epoch (top) and training loss (bottom), with one colour per learning rate.

    Args:
        runs, history, critical_length: an experiment's tables.
        space: where distances were measured: "input", or a layer.
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
    alive = rows(critical_length, status=style.OK, pair_mode=options["pair_mode"])
    alive = alive.merge(losses, on=["lr", "seed", "step"])
    rates = sorted(learning_rates, key=float)
    shades = style.colors(options["palette"], len(rates))
    for column, metric in enumerate(METRICS):
        for rate, color in zip(rates, shades, strict=True):
            for _, run in rows(alive, metric=metric, lr=rate).groupby("seed"):
                points(axes[0, column], run, "epoch", color)
                points(axes[1, column], run, "train_loss", color)
        axes[0, column].set_title(f"from {style.METRIC_NAMES[metric]}")
        axes[0, column].set_xlabel("epoch")
        axes[1, column].set_xlabel("training loss (training proceeds to the right)")
        if len(alive):
            axes[0, column].set_xlim(-0.01 * alive["epoch"].max(), alive["epoch"].max() * 1.01)
            loss_axis(axes[1, column], alive["train_loss"])
    for axis in axes.flat:
        length_axis(axis)
    figure.supylabel(rf"critical length $\xi$ ({style.distance_name(space)})", fontsize=8)
    handles: list[Artist] = [
        Line2D([], [], color=color, marker="o", ms=3, label=rate)
        for rate, color in zip(rates, shades, strict=True)
    ]
    handles += mark_handles()
    figure.legend(handles=handles, title="learning rate", loc="outside right center")
    title = (
        f"{runs['experiment'].iloc[0]}, {style.MODE_NAMES[options['pair_mode']]} pairs, "
        "95 % intervals"
    )
    figure.suptitle("\n".join(filter(None, [title, style.dead_runs(runs)])), fontsize=8)
    style.save(figure, outputs)


def length_axis(axis: Axes) -> None:
    """Scale an axis for xi; it is grey where no two inputs are so far apart."""
    axis.axhspan(_MOST, _TOP, color="0.93", lw=0, zorder=0)
    axis.set_yscale("log")
    axis.set_ylim(_LOWEST, _TOP)
    axis.set_yticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    axis.yaxis.set_minor_locator(NullLocator())


def mark_handles(above: str = "above the axis") -> list[Artist]:
    """Return legend entries that explain the marks; ``above`` says what an arrow means."""
    marks = [
        ("o", "0.3", "within the data"),
        ("o", "white", "extrapolated"),
        ("^", "white", above),
        ("x", "0.3", "no crossing"),
    ]
    handles: list[Artist] = [
        Line2D([], [], color="0.3", ls="", marker=marker, mfc=fill, ms=4, label=label)
        for marker, fill, label in marks
    ]
    return [*handles, Patch(color="0.93", label="no two inputs\nare so far apart")]


def loss_axis(axis: Axes, losses: pd.Series) -> None:
    """Scale an axis for training loss: logarithmic, and falling to the right."""
    axis.set_xscale("log")
    axis.set_xlim(losses.max() * 1.1, losses.min() / 1.1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    if losses.max() / losses.min() > 200:
        axis.xaxis.set_major_locator(LogLocator(numticks=20))
    elif losses.max() / losses.min() < 5:
        axis.xaxis.set_major_locator(MaxNLocator(5))


def points(axis: Axes, run: pd.DataFrame, x: str, color: Any) -> None:
    """Draw one run's xi with its intervals, and marks where it has no value to draw."""
    run = run.sort_values("step")
    inside = run[(run["crossing"] != NONE) & run["value"].between(_LOWEST, _HIGHEST)]
    # A line joins neighbouring checkpoints only: it breaks where one has no value to draw.
    drawn = run[["value", "low", "high"]].where(run["step"].isin(inside["step"]), axis=0)
    axis.plot(run[x], drawn["value"], color=color, lw=0.6, alpha=0.7)
    # To the edges of the axis: an interval may be open.
    low, high = drawn["low"].clip(lower=_LOWEST / 2), drawn["high"].clip(upper=_TOP)
    if run[x].is_monotonic_increasing:
        axis.fill_between(run[x], low, high, color=color, alpha=0.2, lw=0)
    else:  # a band would fold over itself
        axis.vlines(run[x], low, high, color=color, alpha=0.25, lw=0.6)
    for kind, fill in ((True, color), (False, "white")):
        some = inside[(inside["crossing"] == MEASURED) == kind]
        axis.plot(some[x], some["value"], "o", ms=2, mew=0.5, color=color, mfc=fill)
    beyond = run[(run["crossing"] != NONE) & (run["value"] > _HIGHEST)]
    axis.plot(beyond[x], [_BEYOND] * len(beyond), "^", ms=2.5, mew=0.5, color=color, mfc="white")
    # The monotone estimator may stay above 0 as far as there are pairs.
    past = rows(run, crossing=BEYOND)
    axis.plot(past[x], past["max_distance"], "^", ms=2.5, mew=0.5, color=color, mfc="white")
    none = rows(run, crossing=NONE)
    axis.plot(none[x], [_NONE] * len(none), "x", ms=2.5, mew=0.5, color=color)
