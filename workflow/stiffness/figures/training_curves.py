"""Losses, within-class and between-classes stiffness against epoch (figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import style
from stiffness.stiffness.pairs import PAIR_MODES

_ONSET = "#de8f05"  # orange, as in the paper


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Three stacked panels for the reference run.

    Args:
        runs, history, summary: an experiment's tables.
        options: width, height (inches), colors (a pair mode each), metric ("sign" or "cosine").
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    title = f"{runs['experiment'].iloc[0]}, learning rate {learning_rate}\nbands: 95 % intervals"
    if status != style.OK:
        style.refuse_dead(figure, title, status)
        style.save(figure, outputs)
        return
    run = runs[(runs["lr"] == learning_rate) & (runs["seed"] == seed)].iloc[0]
    losses = history[(history["lr"] == learning_rate) & (history["seed"] == seed)]
    alive = runs.loc[(runs["lr"] == learning_rate) & (runs["status"] == style.OK), "seed"]
    stiffness = summary[
        (summary["lr"] == learning_rate)
        & summary["seed"].isin(alive)
        & (summary["metric"] == options["metric"])
    ]
    top, *panels = figure.subplots(3, 1, sharex=True)
    top.set_title(title)
    top.plot(losses["epoch"], losses["train_loss"], color="black", label="training")
    top.plot(
        losses["epoch"],
        losses["validation_loss"],
        color="black",
        ls=(0, (4, 1.5)),
        label="validation",
    )
    top.set_ylabel("loss")
    for axis, quantity in zip(panels, ("within", "between"), strict=True):
        for mode, color in zip(PAIR_MODES, options["colors"], strict=True):
            rows = stiffness[(stiffness["quantity"] == quantity) & (stiffness["pair_mode"] == mode)]
            mean = style.seed_mean(rows, ["epoch"])
            style.curve(axis, mean, "epoch", color, f"{style.MODE_NAMES[mode]} pairs")
        name = {"within": "within-class", "between": "between-classes"}[quantity]
        axis.set_ylabel(f"{name}\n{style.METRIC_NAMES[options['metric']]}")
        axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    onset = "over-fitting sets in" if run["onset_reached"] else "lowest validation loss"
    for axis in (top, *panels):
        axis.axvline(
            run["onset_epoch"],
            color=_ONSET,
            ls="-" if run["onset_reached"] else ":",
            label=f"{onset} (epoch {run['onset_epoch']:.3g})" if axis is top else None,
        )
    handles = [*top.get_lines(), *panels[0].get_lines()[: len(PAIR_MODES)]]
    figure.legend(handles=handles, ncols=2, loc="outside lower center")
    style.epoch_axis(panels[-1], losses["epoch"])
    panels[-1].set_xlabel("epoch")
    figure.align_ylabels()
    style.save(figure, outputs)
