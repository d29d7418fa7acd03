"""Stiffness of same-class pairs against input distance, with fit and xi (figures 11, S7, S8)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from stiffness.figures import style
from stiffness.stiffness.distance import EXTRAPOLATED, NONE
from stiffness.stiffness.pairs import METRICS
from stiffness.stiffness.stages import choose_stages

_MOST = 2.0  # no two inputs are farther apart


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
    """A column a stage, a row a metric.

    Args:
        runs, history, distance, critical_length: an experiment's tables.
        space: where distances were measured: "input", or a layer.
        options: width, height (inches), color, pair_mode.
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    title = (
        f"{runs['experiment'].iloc[0]}, learning rate {learning_rate}, "
        f"{style.MODE_NAMES[options['pair_mode']]} pairs of one class, 95 % intervals"
    )
    if status != style.OK:
        style.refuse_dead(figure, title, status)
        style.save(figure, outputs)
        return

    def of_run(table: pd.DataFrame) -> pd.DataFrame:
        rows = table[(table["lr"] == learning_rate) & (table["seed"] == seed)]
        if "pair_mode" in rows:
            rows = rows[rows["pair_mode"] == options["pair_mode"]]
        return rows

    chosen = choose_stages(of_run(history), stages)
    axes = figure.subplots(len(METRICS), len(chosen), sharex=True, sharey="row", squeeze=False)
    for line, metric in zip(axes, METRICS, strict=True):
        for axis, stage in zip(line, chosen, strict=True):
            at_stage = [
                rows[(rows["metric"] == metric) & (rows["step"] == stage.step)]
                for rows in (of_run(distance), of_run(critical_length))
            ]
            _panel(axis, at_stage[0], at_stage[1].iloc[0], options["color"])
        line[0].set_ylabel(style.METRIC_NAMES[metric])
    for axis, stage in zip(axes[0], chosen, strict=True):
        axis.set_title(style.stage_name(stage))
    # One name for all panels: a layer's is wider than a panel.
    figure.supxlabel(style.distance_name(space), fontsize=8)
    axes[0, 0].set_xlim(0, _MOST)
    for line in axes:
        low, high = line[0].get_ylim()
        line[0].set_ylim(max(min(low, -0.08), -1.08), min(max(high, 1.02), 1.08))
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def _panel(axis: Axes, bins: pd.DataFrame, fit: pd.Series, color: str) -> None:
    axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    bins = bins[np.isfinite(bins["low"])]  # a bin with one pair has no interval
    errors = np.array([bins["value"] - bins["low"], bins["high"] - bins["value"]])
    axis.errorbar(
        bins["distance"], bins["value"], errors, fmt="o", ms=2.2, lw=0.8, color=color, zorder=2
    )
    if np.isfinite(fit["slope"]):
        for begin, end, dashes in (
            (0.0, fit["max_distance"], "-"),
            (fit["max_distance"], _MOST, ":"),
        ):
            ends = np.array([begin, end])
            axis.plot(ends, fit["intercept"] + fit["slope"] * ends, "k", ls=dashes, lw=0.9)
    if fit["crossing"] == NONE:
        text = "no crossing"
    else:
        error = (fit["high"] - fit["low"]) / 2
        text = rf"$\xi$ = {fit['value']:.2f}"
        if np.isfinite(error):
            text += f" ± {error:.2f}"
        if fit["crossing"] == EXTRAPOLATED:
            text += "\n(extrapolated)"
        axis.errorbar(
            [fit["value"]],
            [0],
            xerr=[[fit["value"] - fit["low"]], [fit["high"] - fit["value"]]],
            fmt="D",
            ms=3.5,
            color="#d55e00",
            mfc="white" if fit["crossing"] == EXTRAPOLATED else "#d55e00",
            zorder=3,
        )
    axis.text(
        0.04,
        0.06,
        text,
        transform=axis.transAxes,
        ha="left",
        va="bottom",
        fontsize=7,
        bbox={"fc": "white", "ec": "none", "alpha": 0.8, "pad": 1},
    )
