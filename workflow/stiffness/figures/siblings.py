"""Measures of the literature that the cosines and norms give besides stiffness."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import style
from stiffness.files import rows

NAMES = {
    "norm_weighted_within": "norm-weighted stiffness,\nwithin classes",
    "norm_weighted_between": "norm-weighted stiffness,\nbetween classes",
    "m_coherence": "m-coherence",
    "noise_scale": "gradient noise scale",
    "gradient_confusion": "gradient confusion\n(least cosine)",
    "effective_rank": "effective rank of C",
    "label_alignment": "alignment of C\nwith the labels",
    "kernel_velocity": "kernel velocity,\n1 − cos(C, C before)",
}
"""The quantities that are drawn, in the order of the panels."""
_LOGARITHMIC = ("noise_scale", "kernel_velocity")
_MODES = ("train-train", "val-val")


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    siblings: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one panel per quantity against epoch, for training and for validation examples.

    Args:
        runs, history, siblings: an experiment's tables.
        options: width, height (inches), colors (training, validation examples).
    """
    _, status = style.reference_run(runs, learning_rate)
    title = style.heading(runs, learning_rate=learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    if style.refuse_dead(figure, title, status, outputs):
        return
    alive = rows(runs, lr=learning_rate, status=style.OK)
    seeds = set(alive["seed"])
    shown = rows(siblings, lr=learning_rate, seed=seeds)
    shown = shown.assign(low=shown["value"], high=shown["value"])
    axes = figure.subplots(4, 2, sharex=True)
    for axis, (quantity, name) in zip(axes.flat, NAMES.items(), strict=True):
        for mode, color in zip(_MODES, options["colors"], strict=True):
            mean = style.over_seeds(rows(shown, pair_mode=mode, quantity=quantity))
            style.curve(axis, mean, "epoch", color, mode.partition("-")[0], (None, None))
        if quantity in _LOGARITHMIC:
            axis.set_yscale("log")
        axis.set_ylabel(name)
        onset = {"color": "#d55e00", "lw": 0.8, "ls": ":", "zorder": 0}
        axis.axvline(alive["onset_epoch"].mean(), label="onset", **onset)
    label = style.epoch_axis(axes[0, 0], history["epoch"], alive)
    for axis in axes[-1]:
        axis.set_xlabel(label)
    handles, _ = axes[0, 0].get_legend_handles_labels()
    labels = ["training examples", "validation examples", "onset of over-fitting"]
    figure.legend(handles, labels, ncols=3, loc="outside lower center")
    title += ", 95 % intervals over seeds" if len(seeds) > 1 else ""
    figure.suptitle(title, fontsize=8)
    figure.align_ylabels()
    style.save(figure, outputs)
