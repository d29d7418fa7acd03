"""Losses, within-class and between-classes stiffness against epoch (figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS, PAIR_MODES

_ONSET = "#de8f05"  # orange, as in the paper
_DASHES = ((4, 1.5), (1, 1), (4, 1, 1, 1), (7, 2), (2, 1), (7, 1, 1, 1, 1, 1))
"""Of arithmetics beside the first, which are at most as many."""
_NAMES = {"within": "within-class\nstiffness", "between": "between-classes\nstiffness"}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw losses (top), and within-class and between-classes stiffness of the reference rate.

    There is one column per metric; the losses above the right one are on a logarithmic axis.

    Args:
        runs, history: an experiment's tables.
        summaries: its summary in all arithmetics of the loss gradient. The first is drawn for every
            pair mode, the others for train-train pairs.
        options: width, height (inches), colors (one per pair mode), palette (of arithmetics).
    """
    _, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    title = style.heading(runs, "bands: 95 % intervals", learning_rate=learning_rate)
    if style.refuse_dead(figure, title, status, outputs):
        return
    alive = rows(runs, lr=learning_rate, status=style.OK).sort_values("seed")
    seeds = set(alive["seed"])
    losses = rows(history, lr=learning_rate, seed=seeds)
    # The label and the legend would have the same place below one figure.
    ((body,),) = figure.subfigures(squeeze=False)
    axes = body.subplots(3, len(METRICS), sharex=True)
    for axis in axes[0]:
        _losses(axis, losses, len(alive))
    axes[0, 0].set_ylabel("loss")
    axes[0, 0].set_title("loss, linear axis")
    axes[0, 1].set_title("loss, logarithmic axis")
    axes[0, 1].set_yscale("log")
    style.loss_ticks(axes[0, 1].yaxis)
    for metric, panels in zip(METRICS, axes.T, strict=True):
        panels[1].set_title(style.METRIC_NAMES[metric])
        for quantity, axis in zip(_NAMES, panels[1:], strict=True):
            for label, table, color, line in _lines(summaries, options):
                shown = rows(table, lr=learning_rate, seed=seeds, metric=metric, quantity=quantity)
                style.curve(axis, style.over_seeds(shown), "epoch", color, label, **line)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    for axis, name in zip(axes[1:, 0], _NAMES.values(), strict=True):
        axis.set_ylabel(name)
    label = style.epoch_axis(axes[-1, 0], losses["epoch"], alive)
    for axis in axes.flat:
        _onsets(axis, alive)
    body.supxlabel(label, fontsize=8)
    body.align_ylabels()
    drawn = [*axes[0, 0].get_lines(), *axes[1, 0].get_lines()]
    # Both panels mark the onset.
    named = {str(line.get_label()): line for line in drawn}
    handles = {name: line for name, line in named.items() if not name.startswith("_")}
    figure.legend(handles=list(handles.values()), ncols=3, loc="outside lower center")
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def _losses(axis: Axes, losses: pd.DataFrame, number: int) -> None:
    """Draw one line per seed: the onset is that of a run, not of a mean."""
    for place, (_, run) in enumerate(losses.groupby("seed")):
        for split, dashes in (("train", "-"), ("validation", (0, (4, 1.5)))):
            name = {"train": "training loss", "validation": "validation loss"}[split]
            width = 1.2 if number == 1 else 0.8
            label = None if place else name
            axis.plot(run["epoch"], run[f"{split}_loss"], "k", ls=dashes, lw=width, label=label)


def _lines(
    summaries: pd.DataFrame, options: Mapping[str, Any]
) -> list[tuple[str, pd.DataFrame, Any, dict[str, Any]]]:
    """Return label, table, colour and looks of every line of a panel of stiffness."""
    first, *others = summaries["arithmetic"].unique()
    exact = f", {first} arithmetic" if others else ""
    lines: list[tuple[str, pd.DataFrame, Any, dict[str, Any]]] = [
        (
            f"{style.MODE_NAMES[mode]} pairs{exact}",
            rows(summaries, arithmetic=first, pair_mode=mode),
            color,
            {},
        )
        for mode, color in zip(PAIR_MODES, options["colors"], strict=True)
    ]
    mode = PAIR_MODES[0]
    shades = style.colors(options["palette"], len(others))
    for name, color, dashes in zip(others, shades, _DASHES, strict=False):
        label = f"{style.MODE_NAMES[mode]} pairs, {name}"
        table = rows(summaries, arithmetic=name, pair_mode=mode)
        lines.append((label, table, color, {"ls": (0, dashes)}))
    return lines


def _onsets(axis: Axes, alive: pd.DataFrame) -> None:
    reached = bool(alive["onset_reached"].all())
    name = "over-fitting sets in" if reached else "lowest validation loss"
    epochs = ", ".join(f"{epoch:.3g}" for epoch in alive["onset_epoch"])
    for number, row in enumerate(alive.to_dict("records")):
        axis.axvline(
            float(row["onset_epoch"]),
            color=_ONSET,
            lw=1.2 if len(alive) == 1 else 0.8,
            ls="-" if row["onset_reached"] else ":",
            zorder=1,
            label=None if number else f"{name} (epoch {epochs})",
        )
