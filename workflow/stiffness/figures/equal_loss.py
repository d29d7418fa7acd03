"""Stiffness and xi by learning rate, at equal epoch and at equal training loss (C12, C13)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.equal_loss import EPOCH, LOSS

_ROWS = (
    ("within", "sign", "within-class\nsign stiffness"),
    ("within", "cosine", "within-class\ncosine stiffness"),
    ("between", "cosine", "between-classes\ncosine stiffness"),
    ("xi line", "cosine", "$\\xi$ of the line\n(cosine)"),
    ("xi monotone", "cosine", "$\\xi$ of the best\nfalling curve (cosine)"),
)
_COLUMNS = ((EPOCH, "at equal epoch"), (LOSS, "at equal training loss"))
_SHOWN = 4  # levels of the table that are drawn
# The ends of the axes of xi; above the highest that is drawn stand longer ones, then "no crossing".
_LOWEST, _TOP, _HIGHEST, _ABOVE, _NONE = 0.4, 8.0, 4.5, 5.2, 6.6


def draw(
    runs: pd.DataFrame,
    levels: pd.DataFrame,
    order: pd.DataFrame,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw quantities (rows) at equal epoch and at equal loss (columns), one colour per level.

    Args:
        runs: an experiment's table of runs.
        levels: its table of values at levels; see ``comparison.compare``.
        order: its table of Kendall's tau.
        options: width, height (inches), palette, pair_mode.
        outputs: paths of the picture.
    """
    figure, axes = plt.subplots(
        len(_ROWS),
        2,
        figsize=(options["width"], options["height"]),
        sharex=True,
        sharey="row",
        layout="constrained",
    )
    rates = sorted(runs["lr"].unique(), key=float)
    mode = options["pair_mode"]
    for column, (by, name) in enumerate(_COLUMNS):
        axes[0, column].set_title(name, loc="left")
        if rows(levels, by=by, pair_mode=mode).empty:
            why = "not to be had: after epoch 1,\nno value is common to all rates"
            axes[0, column].text(0.5, 0.5, why, transform=axes[0, column].transAxes, ha="center")
            for axis in axes[:, column]:
                axis.set_axis_off()
            continue
        for place, (quantity, metric, label) in enumerate(_ROWS):
            axis = axes[place, column]
            axes[place, 0].set_ylabel(label)
            shown, of_order = (
                rows(table, by=by, quantity=quantity, metric=metric, pair_mode=mode)
                for table in (levels, order)
            )
            length = quantity.startswith("xi")
            if length:
                axis.set_yscale("log")
                axis.set_ylim(_LOWEST, _TOP)
                # A monotone fit that has no zero is above 0 as far as the data reach.
                none = "beyond\nthe data" if quantity == "xi monotone" else "none"
                axis.set_yticks([0.5, 1, 2, 4, _NONE], ["0.5", "1", "2", "4", none])
                axis.yaxis.set_minor_locator(NullLocator())
                axis.axhspan(2, _TOP, color="0.93", lw=0, zorder=0)
            else:
                axis.axhline(0, color="0.6", lw=0.6, zorder=0)
            _panel(axis, shown, by, length, options["palette"])
            for one in of_order.to_dict("records"):
                axis.text(
                    1,
                    1.01,
                    rf"$\tau$ = {_tau(one)}",
                    transform=axis.transAxes,
                    ha="right",
                    va="bottom",
                    fontsize=6.5,
                )
        if axes[0, column].get_legend_handles_labels()[0]:
            axes[0, column].legend(
                title={EPOCH: "epoch", LOSS: "training loss"}[by],
                ncols=2,
                loc="lower right",
                fontsize=6,
                title_fontsize=6,
            )
        axes[-1, column].set_xlabel("learning rate")
        axes[-1, column].set_xscale("log")
        axes[-1, column].set_xticks([float(rate) for rate in rates], rates)
        axes[-1, column].xaxis.set_minor_locator(NullLocator())
    title = style.heading(runs, f"{style.MODE_NAMES[mode]} pairs", "95 % intervals")
    title += "\n" + r"$\tau$: Kendall's rank correlation of the mean over levels with the rate"
    title += "; triangle: above the axis"
    figure.suptitle("\n".join(filter(None, [title, style.dead_runs(runs)])), fontsize=8)
    figure.align_ylabels()
    style.save(figure, outputs)


def _panel(axis: Axes, levels: pd.DataFrame, by: str, length: bool, palette: str) -> None:
    """Draw one quantity against the learning rate; ``length`` says that it is a critical length."""
    values = np.sort(levels["level"].unique())
    if len(values) == 0:
        return
    # Training proceeds from dark to light: upwards in epochs, downwards in loss.
    ordered = values if by == EPOCH else values[::-1]
    places = np.unique(np.linspace(0, len(ordered) - 1, _SHOWN).round().astype(int))
    shades = style.colors(palette, len(places))
    for number, (place, color) in enumerate(zip(places, shades, strict=True)):
        one = rows(levels, level=ordered[place]).sort_values("lr", key=lambda lr: lr.astype(float))
        # Side by side, so that intervals do not hide each other.
        rate = one["lr"].astype(float).to_numpy() * 1.04 ** (number - (len(places) - 1) / 2)
        value, low, high = (one[key].to_numpy() for key in ("value", "low", "high"))
        crossing, above = np.isfinite(value), np.zeros(len(value), bool)
        if length:
            above = crossing & (value > _HIGHEST)
            crossing &= ~above
            low, high = np.clip(low, _LOWEST / 2, _TOP), np.clip(high, _LOWEST / 2, _TOP)
            low[above] = high[above] = np.nan
        else:
            low, high = np.clip(low, -1, 1), np.clip(high, -1, 1)
        axis.plot(rate[crossing], value[crossing], color=color, lw=0.8, zorder=2)
        axis.vlines(rate, low, high, color=color, lw=0.9, alpha=0.8, zorder=2)
        label = f"{ordered[place]:.3g}"
        axis.plot(rate[crossing], value[crossing], "o", ms=3, color=color, label=label, zorder=3)
        for out, at, mark in ((above, _ABOVE, "^"), (~crossing & ~above, _NONE, "x")):
            looks = {"ms": 4, "color": color, "mfc": "white", "zorder": 3}
            axis.plot(rate[out], np.full(out.sum(), at), mark, **looks)


def _tau(of_order: Mapping[Any, Any]) -> str:
    tau, low, high = (style.number(of_order[key], "+.2f") for key in ("tau", "low", "high"))
    return f"{tau} ({low} to {high})" if of_order["seeds"] > 1 else tau
