"""Losses, within-class and between-classes stiffness against epoch (figure 3)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import PAIR_MODES
from stiffness.measures.seeds import seed_means

_ONSET = "#de8f05"  # orange, as in the paper


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw losses (top), and within-class and between-classes stiffness of the reference rate.

    Args:
        runs, history, summary: an experiment's tables.
        options: width, height (inches), colors (one per pair mode), metric ("sign" or "cosine").
    """
    _, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    alive = rows(runs, lr=learning_rate, status=style.OK).sort_values("seed")
    title = f"{runs['experiment'].iloc[0]}, learning rate {learning_rate}\n"
    title += f"mean of {len(alive)} seeds, " if len(alive) > 1 else ""
    title += "bands: 95 % intervals"
    if style.refuse_dead(figure, title, status, outputs):
        return
    losses, stiffness = (
        rows(table, lr=learning_rate, seed=set(alive["seed"])) for table in (history, summary)
    )
    stiffness = rows(stiffness, metric=options["metric"])
    top, *panels = figure.subplots(3, 1, sharex=True)
    top.set_title(title)
    # One line per seed: the onset is that of a run, not of a mean.
    for number, (_, run) in enumerate(losses.groupby("seed")):
        for split, dashes in (("train", "-"), ("validation", (0, (4, 1.5)))):
            label = None if number else {"train": "training", "validation": "validation"}[split]
            width = 1.2 if len(alive) == 1 else 0.8
            top.plot(run["epoch"], run[f"{split}_loss"], "k", ls=dashes, lw=width, label=label)
    top.set_ylabel("loss")
    for axis, quantity in zip(panels, ("within", "between"), strict=True):
        for mode, color in zip(PAIR_MODES, options["colors"], strict=True):
            mean = seed_means(rows(stiffness, quantity=quantity, pair_mode=mode), ["epoch"])
            style.curve(axis, mean, "epoch", color, f"{style.MODE_NAMES[mode]} pairs")
        name = {"within": "within-class", "between": "between-classes"}[quantity]
        axis.set_ylabel(f"{name}\n{style.METRIC_NAMES[options['metric']]}")
        axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    reached = bool(alive["onset_reached"].all())
    onset = "over-fitting sets in" if reached else "lowest validation loss"
    epochs = ", ".join(f"{epoch:.3g}" for epoch in alive["onset_epoch"])
    for axis in (top, *panels):
        for number, row in enumerate(alive.itertuples()):
            axis.axvline(
                row.onset_epoch,
                color=_ONSET,
                lw=1.2 if len(alive) == 1 else 0.8,
                ls="-" if row.onset_reached else ":",
                label=None if number or axis is not top else f"{onset} (epoch {epochs})",
            )
    named = [line for line in top.get_lines() if not str(line.get_label()).startswith("_")]
    handles = [*named, *panels[0].get_lines()[: len(PAIR_MODES)]]
    figure.legend(handles=handles, ncols=2, loc="outside lower center")
    style.epoch_axis(panels[-1], losses["epoch"])
    panels[-1].set_xlabel("epoch")
    figure.align_ylabels()
    style.save(figure, outputs)
