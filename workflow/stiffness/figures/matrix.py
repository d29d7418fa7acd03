"""What the figures of large class matrices share: one metric and pair mode, limits, names."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from stiffness.figures import style
from stiffness.files import rows
from stiffness.training.stages import Stage

Floats = npt.NDArray[np.float64]

# Names smaller than this (in points) cannot be read; larger ones look out of place.
_SMALLEST, _LARGEST = 3.5, 7.0
# Limits leave out this share of the off-diagonal cells, so that a few do not pale all others.
_BEYOND = 0.005


def matrix_at(
    classes: pd.DataFrame, stage: Stage, options: dict[str, Any], names: Sequence[str]
) -> Floats:
    """Return the [C, C] matrix of one stage in the order of ``names``; NaN is undefined."""
    cells = rows(classes, step=stage.step, metric=options["metric"], pair_mode=options["pair_mode"])
    wide = cells.pivot(index="class_a", columns="class_b", values="value")
    return wide.loc[list(names), list(names)].to_numpy(np.float64)


def half_width(classes: pd.DataFrame, options: dict[str, Any]) -> float:
    """Return the median half width of the 95 % intervals of the cells that are shown."""
    shown = rows(classes, metric=options["metric"], pair_mode=options["pair_mode"])
    return float(((shown["high"] - shown["low"]) / 2).median())


def color_limit(matrices: Sequence[Floats]) -> float:
    """Return a round number, 1 at most, that few off-diagonal cells of any matrix exceed.

    Late in training stiffness between classes is small, and a diagonal that shares its scale
    would leave nothing else to be seen.
    """
    largest = 0.0
    for matrix in matrices:
        others = np.abs(matrix[~np.eye(len(matrix), dtype=bool)])
        others = others[np.isfinite(others)]
        if len(others):
            largest = max(largest, float(np.quantile(others, 1 - _BEYOND)))
    if largest == 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(largest))
    steps = [step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10)]
    return min(1.0, next(step for step in steps if largest <= step * (1 + 1e-9)))


def show(axis: Axes, matrix: Floats, limit: float, colormap: str) -> AxesImage:
    """Draw a matrix; grey is undefined."""
    colors = plt.get_cmap(colormap).with_extremes(bad="0.75")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0, pad=1.5)
    axis.set_xticks([])
    axis.set_yticks([])
    return axis.imshow(matrix, cmap=colors, vmin=-limit, vmax=limit, interpolation="nearest")


def add_scale(
    figure: Figure,
    image: AxesImage,
    axes: Any,
    matrices: Sequence[Floats],
    options: dict[str, Any],
    error: float,
    **bar: Any,
) -> None:
    """Add a colour bar that tells its limits, and by its ends whether cells lie beyond them."""
    limit = float(image.get_clim()[1])
    above = any((matrix > limit).any() for matrix in matrices)
    below = any((matrix < -limit).any() for matrix in matrices)
    ends = {(True, True): "both", (True, False): "max", (False, True): "min"}
    scale = figure.colorbar(
        image, ax=axes, extend=ends.get((above, below), "neither"), extendfrac=0.03, **bar
    )
    scale.set_ticks([-limit, -limit / 2, 0, limit / 2, limit])
    scale.ax.set_yticklabels([style.number(tick, ".3g") for tick in scale.get_ticks()])
    beyond = "; darkest: beyond the limits" if above or below else ""
    scale.set_label(
        f"{style.METRIC_NAMES[options['metric']]} (95 %: median ±{error:.2g}{beyond})", fontsize=7
    )


def axis_names(pair_mode: str) -> tuple[str, str]:
    """Name the examples whose classes are the rows and the columns."""
    sets = {"train": "training", "val": "validation"}
    row, column = (sets[part] for part in pair_mode.split("-"))
    other = "other " if row == column else ""
    return f"class of the {row} example", f"class of the {other}{column} example"


def name_size(inches: float, number: int) -> float | None:
    """Return the size in points of ``number`` names beside a matrix; None where none would fit."""
    size = min(_LARGEST, 0.9 * 72 * inches / number)
    return size if size >= _SMALLEST else None
