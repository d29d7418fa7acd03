"""Class stiffness matrices by stage, pair mode and metric (figures 4, S1, S2)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine

from stiffness.figures import style
from stiffness.figures.class_page import page as page
from stiffness.files import rows
from stiffness.training.stages import reference_stages

_MOST_NAMED = 20  # more classes than this have no room for their names


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    classes: pd.DataFrame,
    learning_rate: str,
    stages: Sequence[Any],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one column per stage and one row per metric and pair mode; a metric shares its limits.

    Args:
        runs, history: an experiment's tables.
        classes: class stiffness of the reference learning rate, with a column seed.
        options: width, height (inches), colormap (diverging), metrics and pair_modes (lists).
    """
    seed, status = style.reference_run(runs, learning_rate)
    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.03)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout=layout)
    title = style.heading(runs, learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    chosen = reference_stages(runs, history, learning_rate, stages)
    classes = rows(classes, seed=seed)
    names = list(classes["class_a"].drop_duplicates())
    metrics, modes = options["metrics"], options["pair_modes"]
    axes = figure.subplots(len(metrics) * len(modes), len(chosen), squeeze=False)
    colormap = plt.get_cmap(options["colormap"]).with_extremes(bad="0.75")
    for number, metric in enumerate(metrics):
        shown = rows(classes, metric=metric, step=[stage.step for stage in chosen])
        limit = 1.0 if metric == "sign" else float(np.ceil(shown["value"].abs().max() * 10) / 10)
        block = axes[number * len(modes) : (number + 1) * len(modes)]
        for line, mode in zip(block, modes, strict=True):
            for axis, stage in zip(line, chosen, strict=True):
                cells = rows(shown, pair_mode=mode, step=stage.step)
                matrix = cells.pivot(index="class_a", columns="class_b", values="value")
                image = axis.imshow(
                    matrix.loc[names, names], cmap=colormap, vmin=-limit, vmax=limit
                )
                _class_ticks(axis, names, axis is line[0], line[0] is axes[-1, 0])
            line[0].set_ylabel(f"{style.MODE_NAMES[mode]}\n{metric}", fontsize=7)
        half_width = float(((shown["high"] - shown["low"]) / 2).median())
        bar = figure.colorbar(image, ax=block, shrink=0.6, aspect=30)
        bar.set_label(f"{style.METRIC_NAMES[metric]}\n(95 %: median ±{half_width:.2g})", fontsize=7)
    for axis, stage in zip(axes[0], chosen, strict=True):
        axis.set_title(style.stage_name(stage))
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def _class_ticks(axis: Axes, names: list[str], left: bool, bottom: bool) -> None:
    # A tick costs time where it has no name, too.
    named = len(names) <= _MOST_NAMED
    down, across = (names if named and edge else [] for edge in (left, bottom))
    axis.spines[:].set_visible(False)
    axis.set_xticks(range(len(across)), across, fontsize=5)
    axis.set_yticks(range(len(down)), down, fontsize=5)
    if max(map(len, names)) > 2:
        axis.tick_params(axis="x", rotation=90)
    axis.tick_params(length=0, pad=1.5)
