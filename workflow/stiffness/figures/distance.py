"""Stiffness of same-class pairs against input distance, with fit and xi (figures 11, S7, S8)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.distance import BEYOND, EXTRAPOLATED, MEASURED, MISFIT, NONE
from stiffness.measures.pairs import METRICS
from stiffness.training.stages import choose_stages

_MOST = 2.0  # no two inputs are farther apart
_LINE, _MONOTONE = "#d55e00", "#882255"  # of the two estimates of xi
_SAID = {EXTRAPOLATED: "extrapolated", MISFIT: "misfit: the bins are not 0 there"}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    distance: pd.DataFrame,
    critical_length: pd.DataFrame,
    learning_rate: str,
    stages: Sequence[Any],
    space: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one column per stage and one row per metric.

    Args:
        runs, history, distance, critical_length: an experiment's tables; xi by both estimators.
        space: where distances were measured: "input", or a layer.
        options: width, height (inches), color, pair_mode.
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    mode = f"{style.MODE_NAMES[options['pair_mode']]} pairs of one class"
    title = style.heading(runs, mode, "95 % intervals", learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return

    def of_run(table: pd.DataFrame) -> pd.DataFrame:
        pairs = {"pair_mode": options["pair_mode"]} if "pair_mode" in table else {}
        return rows(table, lr=learning_rate, seed=seed, **pairs)

    chosen = choose_stages(of_run(history), stages)
    distance, critical_length = of_run(distance), of_run(critical_length)
    # The label and the legend would have the same place below one figure.
    ((body,),) = figure.subfigures(squeeze=False)
    axes = body.subplots(len(METRICS), len(chosen), sharex=True, sharey="row", squeeze=False)
    for place, (line, metric) in enumerate(zip(axes, METRICS, strict=True)):
        for axis, stage in zip(line, chosen, strict=True):
            bins, at_stage = (
                rows(table, metric=metric, step=stage.step) for table in (distance, critical_length)
            )
            fits = {row["estimator"]: row for _, row in at_stage.iterrows()}
            found = panel(axis, bins, fits["line"], fits["monotone"], options["color"])
            first = "" if place else f"{style.stage_name(stage)}\n"
            axis.set_title(f"{first}{found}", fontsize=7)
        line[0].set_ylabel(style.METRIC_NAMES[metric])
    # One name for all panels: a layer's is wider than a panel.
    body.supxlabel(style.distance_name(space), fontsize=8)
    axes[0, 0].set_xlim(0, _MOST)
    for line in axes:
        low, high = line[0].get_ylim()
        line[0].set_ylim(max(min(low, -0.08), -1.08), min(max(high, 1.02), 1.08))
    body.align_ylabels()
    legend(figure)
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def legend(figure: Figure | SubFigure) -> None:
    """Add a legend of the marks on the line y = 0."""

    def mark(color: str, marker: str, fill: str, size: float = 3.5) -> Line2D:
        return Line2D([], [], ls="", marker=marker, ms=size, color=color, mfc=fill)

    handles: dict[str, Any] = {
        r"$\xi$ of the line (open: extrapolated; square: misfit)": (
            mark(_LINE, "D", _LINE),
            mark(_LINE, "D", "white"),
            mark(_LINE, "s", "white", 4.5),
        ),
        r"$\xi$ of the best falling curve (arrow: beyond the data)": (
            mark(_MONOTONE, "|", _MONOTONE, 7),
            mark(_MONOTONE, ">", "white"),
        ),
    }
    figure.legend(
        list(handles.values()),
        list(handles),
        handler_map={tuple: HandlerTuple(ndivide=None)},
        ncols=2,
        loc="outside lower center",
    )


def panel(
    axis: Axes,
    bins: pd.DataFrame,
    fit: pd.Series,
    monotone: pd.Series,
    color: str,
    most: float = _MOST,
) -> str:
    """Draw the bins of one stage and metric, and xi by both estimators.

    Args:
        bins, fit, monotone: rows of the tables of distance and of critical lengths.
        most: where the axis ends.

    Returns:
        What the line says of xi, in at most two lines; within the panel it would hide bins.
    """
    axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    bins = bins[np.isfinite(bins["low"])]  # a bin with few pairs has no interval
    axis.vlines(bins["distance"], bins["low"], bins["high"], color=color, lw=0.8, zorder=2)
    axis.plot(bins["distance"], bins["value"], "o", ms=2.2, color=color, zorder=2)
    if np.isfinite(fit["slope"]):
        for begin, end, dashes in (
            (0.0, fit["max_distance"], "-"),
            (fit["max_distance"], most, ":"),
        ):
            ends = np.array([begin, end])
            axis.plot(ends, fit["intercept"] + fit["slope"] * ends, "k", ls=dashes, lw=0.9)
    if fit["crossing"] == NONE:
        text = "no crossing\n"
    else:
        text = rf"$\xi$ = {_length(fit['value'])}{_interval(fit)}" + "\n"
        text += _SAID.get(fit["crossing"], "")
        misfit = fit["crossing"] == MISFIT
        axis.plot(*_span(fit, most), color=_LINE, lw=1.2, zorder=3)
        axis.plot(
            [fit["value"]],
            [0],
            "s" if misfit else "D",
            ms=4.5 if misfit else 3.5,
            color=_LINE,
            mfc=_LINE if fit["crossing"] == MEASURED else "white",
            zorder=3,
        )
    if monotone["crossing"] != NONE:
        axis.plot(*_span(monotone, most), color=_MONOTONE, lw=3.5, alpha=0.35, zorder=2.5)
    if monotone["crossing"] == MEASURED:
        axis.plot([monotone["value"]], [0], "|", ms=9, mew=1.2, color=_MONOTONE, zorder=4)
    elif monotone["crossing"] == BEYOND:
        axis.plot(
            [monotone["max_distance"]], [0], ">", ms=3.5, color=_MONOTONE, mfc="white", zorder=4
        )
    return text


def _span(fit: pd.Series, most: float) -> tuple[list[float], list[float]]:
    """Return the interval on the line y = 0, as far as the axis goes."""
    if not fit["low"] < most:
        return [], []
    return [max(fit["low"], 0.0), min(fit["high"], most)], [0.0, 0.0]


def _interval(fit: pd.Series) -> str:
    if np.isnan(fit["low"]):
        return ""
    return f" ({_length(fit['low'])} to {_length(fit['high'])})"


def _length(xi: float) -> str:
    """Write a length with three digits, or with as many as there are before the point."""
    if not np.isfinite(xi):
        return "∞"
    return f"{xi:.2f}" if xi < 10 else f"{xi:.1f}" if xi < 100 else f"{xi:.0f}"
