"""The class stiffness matrix with classes sorted by a hierarchy, its groups drawn (figure 8)."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from stiffness.data.hierarchy import Groups, Hierarchy, read_hierarchy
from stiffness.figures import matrix, style
from stiffness.files import rows
from stiffness.training.stages import reference_stages

_GAP, _ARM, _SPACE = 0.012, 0.012, 0.003  # of brackets, in parts of the matrix


def prepare(hierarchy: str) -> dict[str, Hierarchy]:
    """Read the hierarchy of classes from its file."""
    return {"hierarchy": read_hierarchy(hierarchy)}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    classes: pd.DataFrame,
    hierarchy: Hierarchy,
    learning_rate: str,
    stages: Sequence[Any],
    options: dict[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one matrix with super-classes framed and super-super-classes bracketed.

    Args:
        runs, history: an experiment's tables.
        classes: class stiffness of the reference learning rate, with a column seed.
        hierarchy: of exactly these classes.
        stages: one stage.
        options: width, height (inches), colormap (diverging), metric, pair_mode.
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="compressed")
    title = style.heading(runs, learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    (stage,) = reference_stages(runs, history, learning_rate, stages)
    classes = rows(classes, seed=seed, step=stage.step)
    names = hierarchy.class_names
    shown = matrix.matrix_at(classes, stage, options, names)
    axis = figure.subplots()
    image = matrix.show(axis, shown, matrix.color_limit([shown]), options["colormap"])
    sizes = {name: len(members) for name, members in hierarchy.super_classes.items()}
    # Names, brackets and the colour bar take about two fifths of the width.
    inches = 0.6 * min(options["width"], options["height"])
    _name_groups(axis, sizes, matrix.name_size(inches, len(sizes)))
    for _, start, end in _spans(sizes):
        _frame(axis, start, end, 0.6)
    for name, start, end in _spans(_sizes_of(hierarchy.super_super_classes, sizes)):
        _frame(axis, start, end, 1.4)
        _brackets(axis, name, start, end, len(names))
    of_row, of_column = matrix.axis_names(options["pair_mode"])
    axis.set_ylabel(of_row)
    axis.set_xlabel(of_column)
    error = matrix.half_width(classes, options)
    matrix.add_scale(figure, image, axis, [shown], options, error, shrink=0.7, aspect=35, pad=0.03)
    mode, when = style.MODE_NAMES[options["pair_mode"]], style.stage_name(stage).replace("\n", " ")
    figure.suptitle(f"{title}, {mode} pairs\n{when}", fontsize=8)
    style.save(figure, outputs)


def _sizes_of(groups: Groups, sizes: Mapping[str, int]) -> dict[str, int]:
    """Count the classes in each group of groups."""
    return {name: sum(sizes[member] for member in members) for name, members in groups.items()}


def _spans(sizes: Mapping[str, int]) -> Iterator[tuple[str, float, float]]:
    """Yield where each group begins and ends on an axis of cells."""
    start = -0.5
    for name, size in sizes.items():
        yield name, start, start + size
        start += size


def _name_groups(axis: Axes, sizes: Mapping[str, int], size: float | None) -> None:
    if size is None:
        return
    spans = list(_spans(sizes))
    centers = [(start + end) / 2 for _, start, end in spans]
    names = [name for name, _, _ in spans]
    axis.set_yticks(centers, names, fontsize=size)
    axis.set_xticks(centers, names, fontsize=size, rotation=90)


def _frame(axis: Axes, start: float, end: float, width: float) -> None:
    side = end - start
    axis.add_patch(
        Rectangle((start, start), side, side, fill=False, ec="black", lw=width, clip_on=False)
    )


def _brackets(axis: Axes, name: str, start: float, end: float, number: int) -> None:
    """Draw a group's brackets and name above the matrix and to its right."""
    near, far = _GAP, _GAP + _ARM
    low, high = (start + 0.5) / number + _SPACE, (end + 0.5) / number - _SPACE
    style_of: dict[str, Any] = {
        "transform": axis.transAxes,
        "color": "black",
        "lw": 0.9,
        "clip_on": False,
    }
    axis.plot([low, low, high, high], [1 + near, 1 + far, 1 + far, 1 + near], **style_of)
    axis.plot(
        [1 + near, 1 + far, 1 + far, 1 + near], [1 - low, 1 - low, 1 - high, 1 - high], **style_of
    )
    middle = (low + high) / 2
    axis.text(middle, 1 + far + 0.008, name, transform=axis.transAxes, ha="center", va="bottom")
    axis.text(
        1 + far + 0.008,
        1 - middle,
        name,
        transform=axis.transAxes,
        ha="left",
        va="center",
        rotation=270,
    )
