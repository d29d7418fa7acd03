"""The class stiffness matrix of one metric and pair mode: one stage, or several side by side.

Figures 6 and S3 to S6 are one large matrix each, figure 7 is the matrix at four stages.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import matrix, style
from stiffness.figures.class_page import page as page
from stiffness.files import rows
from stiffness.training.stages import reference_stages


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    classes: pd.DataFrame,
    learning_rate: str,
    stages: Sequence[Any],
    options: dict[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one panel per stage with common limits; classes are named where there is room.

    Args:
        runs, history: an experiment's tables.
        classes: class stiffness of the reference learning rate, with a column seed.
        options: width, height (inches), colormap (diverging), metric, pair_mode.
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="compressed")
    title = style.heading(runs, learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    chosen = reference_stages(runs, history, learning_rate, stages)
    classes = rows(classes, seed=seed)
    names = list(classes["class_a"].drop_duplicates())
    shown = [matrix.matrix_at(classes, stage, options, names) for stage in chosen]
    limit = matrix.color_limit(shown)
    columns = math.ceil(len(chosen) ** 0.5)
    lines = -(-len(chosen) // columns)
    axes = figure.subplots(lines, columns, squeeze=False)
    # Names, titles and the colour bar take about a fifth of either side.
    inches = 0.8 * min(options["width"] / columns, options["height"] / lines)
    size = matrix.name_size(inches, len(names))
    turn = 90 if max(map(len, names)) > 2 else 0
    for number, axis in enumerate(axes.flat):
        if number >= len(chosen):
            axis.set_visible(False)
            continue
        image = matrix.show(axis, shown[number], limit, options["colormap"])
        if len(chosen) > 1:
            axis.set_title(style.stage_name(chosen[number]))
        of_row, of_column = matrix.axis_names(options["pair_mode"])
        if number % columns == 0:
            axis.set_ylabel(of_row)
            if size is not None:
                axis.set_yticks(range(len(names)), names, fontsize=size)
        if number + columns >= len(chosen):
            axis.set_xlabel(of_column)
            if size is not None:
                axis.set_xticks(range(len(names)), names, fontsize=size, rotation=turn)
    at_stages = rows(classes, step=[stage.step for stage in chosen])
    error = matrix.half_width(at_stages, options)
    matrix.add_scale(figure, image, axes, shown, options, error, shrink=0.7, aspect=40)
    title += f", {style.MODE_NAMES[options['pair_mode']]} pairs"
    if len(chosen) == 1:
        title += "\n" + style.stage_name(chosen[0]).replace("\n", " ")
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)
