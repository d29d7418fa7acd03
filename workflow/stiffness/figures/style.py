"""What the figures share: type, colours, saving, and how runs are chosen and summarised."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from stiffness.errors import StiffnessError
from stiffness.files import atomic_write
from stiffness.training.runs import OK
from stiffness.training.stages import Stage
from stiffness.training.stages import reference_run as reference_run

MODE_NAMES = {"train-train": "train–train", "train-val": "train–val", "val-val": "val–val"}
METRIC_NAMES = {"sign": "sign stiffness", "cosine": "cosine stiffness"}
LOOKS: Any = {  # matplotlib types its keys
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "figure.dpi": 300,  # at which the layout is solved
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # text stays text
    "svg.hashsalt": "stiffness",
}


def use_looks() -> None:
    """Draw into files, with the type and the lines of all figures, until the process ends."""
    matplotlib.use("Agg")
    plt.rcParams.update(LOOKS)


def distance_name(space: str) -> str:
    """Name an axis of distances, in the input or in a layer."""
    known = {"input": "input distance", "last_hidden": "distance in the last hidden layer"}
    return known.get(space, f"distance in {space}")


def colors(palette: str, number: int) -> list[Any]:
    """Return ``number`` colours of a palette; a sequential one is used without its palest end.

    Raises:
        StiffnessError: there is no such palette.
    """
    even = np.linspace(0, 0.85, number)
    if palette in matplotlib.colormaps:
        return list(matplotlib.colormaps[palette](even))
    import seaborn as sns  # it takes a second; most figures do without

    try:
        if palette in sns.palettes.SEABORN_PALETTES:
            return list(sns.color_palette(palette, number))
        return list(sns.color_palette(palette, as_cmap=True)(even))
    except ValueError:
        raise StiffnessError(
            f"figures: unknown palette {palette!r}; see seaborn's palettes"
        ) from None


def save(figure: Figure, outputs: Sequence[str | Path]) -> None:
    """Write the figure to every path, without a date in it, and close it."""
    try:
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")  # each file would solve the same layout again
        for path in outputs:
            with atomic_write(path) as temporary:
                metadata = {"CreationDate": None} if Path(path).suffix == ".pdf" else None
                figure.savefig(temporary, metadata=metadata)
    finally:
        plt.close(figure)


def epoch_axis(axis: Axes, epochs: pd.Series) -> None:
    """Scale an axis for epochs: linear up to the first checkpoint and logarithmic after it."""
    positive = epochs[epochs > 0]
    smallest = float(positive.min()) if len(positive) else 1.0
    axis.set_xscale("symlog", linthresh=smallest, linscale=0.35)
    largest = max(float(epochs.max()), smallest)
    decades = [10.0**power for power in range(-4, 5)]
    ticks = [0.0, *[tick for tick in decades if smallest * 1.5 < tick <= largest]]
    axis.set_xticks(ticks, ["0", *[f"{tick:g}" for tick in ticks[1:]]])
    axis.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_xlim(0, largest * 1.05)


def curve(axis: Axes, table: pd.DataFrame, x: str, color: Any, label: str, **line: Any) -> None:
    """Draw a line with its 95 % band, which is clipped to the range of stiffness, -1 to 1."""
    axis.plot(table[x], table["value"], color=color, label=label, **line)
    low, high = table["low"].clip(lower=-1), table["high"].clip(upper=1)
    axis.fill_between(table[x], low, high, color=color, alpha=0.25, lw=0)


def dead_runs(runs: pd.DataFrame) -> str:
    """Say in a line which runs are not drawn; "" if all are."""
    named = []
    for (rate, status), dead in runs[runs["status"] != OK].groupby(["lr", "status"], sort=False):
        seeds = ", ".join(map(str, dead["seed"]))
        named.append(f"{rate} (seed{'s' * (len(dead) > 1)} {seeds}): {status}")
    return textwrap.fill("not drawn, learning rate " + "; ".join(named), 110) if named else ""


def wrap_name(name: str, width: int) -> str:
    """Break a name after underscores into lines of at most ``width`` characters."""
    return textwrap.fill(name.replace("_", "_ "), width).replace("_ ", "_")


def refuse_dead(figure: Figure, what: str, status: str, outputs: Sequence[str | Path]) -> bool:
    """Write a figure that says that its run died, if it did.

    Args:
        figure: nothing is drawn in it yet.
        what: the experiment and the learning rate.
        status: the status of the run.
        outputs: paths of the figure.

    Returns:
        Whether the run died, so that there is nothing left to draw.
    """
    if status != OK:
        text = f"{what}\nThis run is not a finding: {status}.\nNothing is drawn."
        figure.text(0.5, 0.5, text, ha="center", va="center")
        save(figure, outputs)
    return status != OK


def stage_name(stage: Stage) -> str:
    """Name a stage by its epoch, in lines for narrow panels where an accuracy was asked for.

    Accuracies are those of the validation set.
    """
    if stage.epoch == 0:
        epoch = "initialisation"
    elif stage.epoch < 1:
        epoch = f"epoch {stage.epoch:.2g}"
    else:
        epoch = f"epoch {round(stage.epoch, 1):g}"
    if stage.wanted_accuracy is None:
        return epoch
    if stage.reached:
        return f"accuracy {stage.accuracy:.3f},\n{epoch}"
    wanted = f"{stage.wanted_accuracy:.2f}"
    wanted = wanted if float(wanted) == stage.wanted_accuracy else f"{stage.wanted_accuracy:g}"
    return f"accuracy {wanted} not\nreached; best {stage.accuracy:.3f},\n{epoch}"
