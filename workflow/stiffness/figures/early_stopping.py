"""Where stiffness and where the validation loss would stop training, and what it costs (C5)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.stopping import LAST_EPOCH, VALIDATION_LOSS

_MARKS = {"sign stiffness": "o", "cosine stiffness": "s", LAST_EPOCH: "x"}


def draw(
    runs: pd.DataFrame,
    stopping: pd.DataFrame,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw the epochs at which the rules stop (left) and the accuracy that they cost (right).

    Args:
        runs, stopping: an experiment's tables.
        options: width, height (inches), palette.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(options["width"], options["height"]), layout="constrained"
    )
    rates = sorted(runs["lr"].unique(), key=float)
    shades = dict(zip(rates, style.colors(options["palette"], len(rates)), strict=True))
    key = ["lr", "seed"]
    reference = rows(stopping, rule=VALIDATION_LOSS).drop(columns="rule")
    merged = stopping[stopping["rule"] != VALIDATION_LOSS].merge(
        reference, on=key, suffixes=("", "_by_loss")
    )
    _epochs(left, merged[merged["rule"] != LAST_EPOCH], shades)
    _cost(right, merged, rates, shades)
    handles = [Line2D([], [], color=color, lw=3, label=rate) for rate, color in shades.items()]
    handles += [
        Line2D([], [], color="0.3", marker=mark, ls="", ms=4, label=name)
        for name, mark in _MARKS.items()
    ]
    handles.append(
        Line2D([], [], color="0.3", marker="o", mfc="white", ls="", ms=4, label="never stops")
    )
    figure.legend(handles=handles, title="learning rate;\nstopped by", loc="outside right center")
    title = "training stopped before within-class stiffness of train–train pairs falls"
    lines = [style.heading(runs), f"{title}, one mark per seed", style.dead_runs(runs)]
    figure.suptitle("\n".join(filter(None, lines)), fontsize=8)
    style.save(figure, outputs)


def _epochs(axis: Axes, stops: pd.DataFrame, shades: Mapping[str, Any]) -> None:
    # Of rates that stop at the same epochs each mark lies within that of the rate before.
    sizes = dict(zip(shades, np.linspace(3 + len(shades), 3, len(shades)), strict=True))
    for row in sorted(stops.to_dict("records"), key=lambda row: -sizes[row["lr"]]):
        axis.plot(
            row["epoch_by_loss"],
            row["epoch"],
            _MARKS[row["rule"]],
            ms=sizes[row["lr"]],
            color=shades[row["lr"]],
            mfc=shades[row["lr"]] if row["reached"] else "white",
        )
    if len(stops):
        epochs = stops[["epoch", "epoch_by_loss"]].to_numpy(float)
        most, least = epochs.max() * 1.25, max(epochs.min() / 1.25, 0.05)
        axis.plot([least, most], [least, most], color="0.6", lw=0.8, zorder=0)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlim(least, most)
        axis.set_ylim(least, most)
        ticks = [tick for tick in (0.1, 0.3, 1, 3, 10, 30, 100, 300) if least <= tick <= most]
        for one in (axis.xaxis, axis.yaxis):
            one.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
            one.set_minor_locator(NullLocator())
    axis.set_xlabel("epoch of the lowest validation loss")
    axis.set_ylabel("epoch before stiffness falls")


def _cost(axis: Axes, stops: pd.DataFrame, rates: Sequence[str], shades: Mapping[str, Any]) -> None:
    rules = list(_MARKS)
    for place, rate in enumerate(rates):
        for number, rule in enumerate(rules):
            chosen = rows(stops, lr=rate, rule=rule)
            gain = 100 * (chosen["validation_accuracy"] - chosen["validation_accuracy_by_loss"])
            x = np.full(len(gain), place + 0.25 * (number - 1))
            for at, value, reached in zip(x, gain, chosen["reached"], strict=True):
                fill = shades[rate] if reached else "white"
                axis.plot(at, value, _MARKS[rule], ms=4, color=shades[rate], mfc=fill)
    axis.axhline(0, color="0.6", lw=0.8, zorder=0)
    axis.set_xticks(range(len(rates)), rates)
    axis.set_xlabel("learning rate")
    axis.set_ylabel("validation accuracy against stopping\nat the lowest validation loss (points)")
