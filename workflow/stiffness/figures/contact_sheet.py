"""Which examples are anti-stiff: those of each class with the most and the least stiffness, and the
pairs (not in the paper)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import Evaluation
from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.extremes import EXAMPLE, EXAMPLES, LEAST, MOST, OTHER, PAIR, PAIRS
from stiffness.training.stages import reference_stages

Pixels = npt.NDArray[np.uint8]

_COLUMNS = (
    (EXAMPLE, MOST, EXAMPLES, "stiffest examples\n(mean with the class)"),
    (EXAMPLE, LEAST, EXAMPLES, "least stiff examples\n(mean with the class)"),
    (PAIR, MOST, PAIRS, "stiffest pairs\nof the class"),
    (PAIR, LEAST, PAIRS, "least stiff pairs\nof the class"),
    (OTHER, MOST, PAIRS, "stiffest pairs\nwith another class"),
)
"""Groups from the left: what, which end, how many, and the heading."""
# In widths of an image: its neighbours in a pair touch almost, groups stand apart.
_WITHIN, _BETWEEN, _GROUPS = 0.04, 0.22, 0.55
_ROW = 1.55  # height of a row: an image and what stands below it


def prepare(arrays: str, evaluation: str) -> dict[str, torch.Tensor]:
    """Read the images of the evaluation subset from the files of the data set and the subset."""
    return {"images": Evaluation.load(evaluation).raw_images(Arrays.load(arrays))}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    extremes: pd.DataFrame,
    images: torch.Tensor,
    learning_rate: str,
    stages: Sequence[Any],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one row of images per class; each image or pair has its cosine stiffness below it.

    Args:
        runs, history: an experiment's tables.
        extremes: the table of extremes of the reference learning rate, with a column seed.
        images: uint8 [N, C, H, W] of the evaluation subset.
        stages: the first is shown.
        options: width, height (inches), color (of the frame of an example that the network takes
            for another class), classes (at most so many: those with the least stiffness).
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]))
    title = style.heading(runs, learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    (stage, *_) = reference_stages(runs, history, learning_rate, stages)
    extremes = rows(extremes, seed=seed, step=stage.step)
    names = shown_classes(extremes, options["classes"])
    every = extremes["class_name"].nunique()
    title += ", " + style.stage_name(stage).replace("\n", " ")
    title += ": cosine stiffness of training with validation examples"
    if len(names) < every:
        title += f"\nthe {len(names)} of {every} classes with the least stiffness within"
    framed = (extremes["predicted_first"] != "").any()
    if framed:
        title += "\nframed: the network takes it for the class after the arrow"
    figure.suppressComposite = True  # as one picture they would be resampled at length
    axis = figure.add_axes((0.01, 0, 0.98, 0.92))
    places = _places()
    for number, name in enumerate(names):
        of_class = rows(extremes, class_name=name)
        _row(axis, number * _ROW, of_class, name, images.numpy(), places, options["color"])
    for _, _, starts, heading in places:
        axis.text(starts[0], -0.25, heading, ha="left", va="bottom", fontsize=7)
    axis.set_xlim(-2.1, places[-1][2][-1] + 2 + _WITHIN + 0.1)
    axis.set_ylim(len(names) * _ROW, -1.0)
    axis.set_aspect("equal")
    axis.set_axis_off()
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def shown_classes(extremes: pd.DataFrame, most: int) -> list[str]:
    """List, in their order, at most ``most`` classes: those with the least stiffness within."""
    means = extremes.drop_duplicates("class_name").set_index("class_name")["class_mean"]
    return list(means.index[means.rank(method="first") <= most])


def _places() -> list[tuple[str, str, list[float], str]]:
    """Return where the images, or pairs of images, of each group begin."""
    places, x = [], 0.0
    for group, extreme, count, heading in _COLUMNS:
        width = 1.0 if group == EXAMPLE else 2 + _WITHIN
        starts = [x + place * (width + _BETWEEN) for place in range(count)]
        places.append((group, extreme, starts, heading))
        x = starts[-1] + width + _GROUPS
    return places


def _row(
    axis: Axes,
    top: float,
    of_class: pd.DataFrame,
    name: str,
    images: Pixels,
    places: Sequence[tuple[str, str, list[float], str]],
    color: str,
) -> None:
    mean = of_class["class_mean"].iloc[0]
    brightest = int(images.max())  # of digits 16, not 255
    label, size = f"{name}\nmean {style.number(mean, '.2f')}", _font_size([name], 7, 13)
    axis.text(-0.2, top + 0.5, label, ha="right", va="center", fontsize=size)
    for group, extreme, starts, _ in places:
        for _, row in rows(of_class, group=group, extreme=extreme).iterrows():
            start = starts[row["place"]]
            shown = [(row["first"], row["predicted_first"], start)]
            if group != EXAMPLE:
                shown.append((row["second"], row["predicted_second"], start + 1 + _WITHIN))
            for number, (example, predicted, left) in enumerate(shown):
                _image(axis, images[example], brightest, left, top)
                truth = row["class_name"] if number == 0 else row["second_name"]
                wrong = predicted not in ("", truth)
                if wrong:
                    frame = Rectangle((left, top), 1, 1, fc="none", ec=color, lw=1.5)
                    axis.add_patch(frame)
                lines = [truth] if group == OTHER and number == 1 else []
                lines += [f"→ {predicted}"] if wrong else []
                lines = [style.number(row["value"], ".2f"), *lines] if number == 0 else lines
                below: dict[str, Any] = {
                    "ha": "center",
                    "va": "top",
                    "fontsize": _font_size(lines, 5.8, 9),
                    "linespacing": 1.1,
                }
                axis.text(left + 0.5, top + 1.04, "\n".join(lines), **below)


def _font_size(lines: Sequence[str], size: float, room: int) -> float:
    """Return ``size`` in points, or less where a line has more characters than ``room``."""
    return size * min(1.0, room / max([1, *map(len, lines)]))


def _image(axis: Axes, image: Pixels, brightest: int, left: float, top: float) -> None:
    gray = len(image) == 1
    axis.imshow(
        image[0] if gray else image.transpose(1, 2, 0),
        cmap="gray" if gray else None,
        vmin=0,
        vmax=brightest,
        extent=(left, left + 1, top + 1, top),
        interpolation="none",
    )
