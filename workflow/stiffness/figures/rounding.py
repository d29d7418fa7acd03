"""Stiffness with exact loss gradients beside float32 (claim C3')."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS
from stiffness.measures.seeds import seed_means

_NAMES = {"exact": "exact loss gradients", "float32": "float32"}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: Mapping[str, pd.DataFrame],
    rounding: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw stiffness in both arithmetics, and below it shares of wrong gradients and the losses.

    Args:
        runs, history: an experiment's tables.
        summaries: its summary for each arithmetic.
        rounding: shares of wrong and of zero gradients of the reference rate, with a column seed.
        options: width, height (inches), colors (exact, float32), pair_mode.
    """
    _, status = style.reference_run(runs, learning_rate)
    title = f"{runs['experiment'].iloc[0]}, learning rate {learning_rate}"
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    if style.refuse_dead(figure, title, status, outputs):
        return
    alive = rows(runs, lr=learning_rate, status=style.OK)
    seeds = set(alive["seed"])
    axes = figure.subplots(3, 2, sharex=True)
    for column, metric in enumerate(METRICS):
        for row, quantity in enumerate(("within", "between")):
            axis = axes[row, column]
            for (arithmetic, summary), color in zip(
                summaries.items(), options["colors"], strict=True
            ):
                of_runs = rows(
                    summary, lr=learning_rate, seed=seeds, pair_mode=options["pair_mode"]
                )
                mean = seed_means(rows(of_runs, metric=metric, quantity=quantity), ["epoch"])
                dashes = "-" if arithmetic == "exact" else (0, (4, 1.5))
                style.curve(axis, mean, "epoch", color, _NAMES[arithmetic], ls=dashes)
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        axes[0, column].set_title(style.METRIC_NAMES[metric])
    axes[0, 0].set_ylabel("within-class stiffness")
    axes[1, 0].set_ylabel("between-classes\nstiffness")
    split = "validation" if options["pair_mode"] == "val-val" else "train"
    shares = rows(rounding, seed=seeds, split=split)
    for quantity, name, dashes in (
        ("wrong", "wrong by more than 1 %", "-"),
        ("zero", "exactly 0", (0, (4, 1.5))),
    ):
        mean = seed_means(rows(shares, quantity=quantity), ["epoch"])
        style.curve(axes[2, 0], mean, "epoch", "0.2", name, ls=dashes)
    axes[2, 0].set_ylabel("share of examples whose\nfloat32 loss gradient is")
    axes[2, 0].set_ylim(bottom=0)
    axes[2, 0].legend()
    by_seed = rows(history, lr=learning_rate, seed=seeds).groupby("seed")
    for number, (_, run) in enumerate(by_seed):
        for name, dashes in (("training", "-"), ("validation", (0, (4, 1.5)))):
            losses = run["train_loss" if name == "training" else "validation_loss"]
            label = None if number else name
            axes[2, 1].plot(run["epoch"], losses, color="0.2", ls=dashes, lw=0.9, label=label)
    axes[2, 1].set_yscale("log")
    axes[2, 1].set_ylabel("loss")
    axes[2, 1].legend()
    style.epoch_axis(axes[2, 0], history["epoch"])
    for axis in axes[2]:
        axis.set_xlabel("epoch")
    mode = style.MODE_NAMES[options["pair_mode"]]
    figure.legend(*axes[0, 0].get_legend_handles_labels(), ncols=2, loc="outside lower center")
    mean_of = f", mean of {len(alive)} seeds" if len(alive) > 1 else ""
    figure.suptitle(f"{title}, {mode} pairs{mean_of}, 95 % intervals", fontsize=8)
    figure.align_ylabels()
    style.save(figure, outputs)
