"""What the figures share: type, colours, saving, and how runs are chosen and summarised."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from stiffness.errors import StiffnessError
from stiffness.files import atomic_write, rows
from stiffness.measures.seeds import seed_means
from stiffness.training.runs import OK
from stiffness.training.stages import Stage
from stiffness.training.stages import reference_run as reference_run

_FEW_DECADES = 2000  # the largest loss by the smallest
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
DASHED = (0, (3, 1.5))
_LONGEST_LINE = 100  # characters of a title
CLOSE = 0.02
"""How far an accuracy may lie above the one that was asked for without a word."""
NEIGHBOURS = 2
"""Checkpoints on either side whose spread between seeds is pooled in a band."""


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
        # The layout is solved once, with the dots of a picture.
        for path in sorted(outputs, key=lambda path: Path(path).suffix != ".png"):
            with atomic_write(path) as temporary:
                metadata = {"CreationDate": None} if Path(path).suffix == ".pdf" else None
                figure.savefig(temporary, metadata=metadata)
            figure.set_layout_engine("none")
    finally:
        plt.close(figure)


def epoch_axis(axis: Axes, epochs: pd.Series, runs: pd.DataFrame | None = None) -> str:
    """Scale an axis for epochs: its left half is logarithmic, its right half linear.

    The halves meet at the onset of over-fitting (the median of the living runs), but not in the
    last half of training, so that what follows the onset fills half of the width. A thin line
    marks where they meet.

    Args:
        axis: also stands for those that share it.
        epochs: of the checkpoints that are drawn.
        runs: the runs that are drawn, with the column onset_epoch; None where it is not known: the
            halves then meet at epoch 1.

    Returns:
        The label of the axis, which says where its scale changes.
    """
    positive = epochs[epochs > 0]
    smallest = float(positive.min()) if len(positive) else 1.0
    largest = max(float(epochs.max()), smallest)
    onset = 1.0 if runs is None else float(rows(runs, status=OK)["onset_epoch"].median())
    turn = min(onset if np.isfinite(onset) else 1.0, largest / 2)
    axis.xaxis.set_minor_locator(NullLocator())
    if turn < 2 * smallest:  # no early checkpoints to spread
        axis.set_xscale("linear")
        axis.set_xlim(0, largest * 1.02)
        return "epoch"
    scale = EpochScale(smallest, turn, largest)
    axis.set_xscale("function", functions=(scale.forward, scale.inverse))
    decades = [10.0**power for power in range(-4, 5)]
    # The name of a small one is wide.
    early = [tick for tick in decades if scale.spread(0, tick) > 0.08 < scale.spread(tick, turn)]
    late = [
        float(tick)
        for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(turn, largest)
        if tick <= largest and scale.spread(turn, tick) > 0.1
    ]
    ticks = [0.0, *early, turn, *late]
    names = [f"{float(f'{tick:.2g}'):g}" if tick == turn else f"{tick:g}" for tick in ticks]
    axis.set_xticks(ticks, names)
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(0, largest)
    for one in axis.get_shared_x_axes().get_siblings(axis):
        one.axvline(turn, color="0.85", lw=0.6, zorder=0)
    return f"epoch (logarithmic to {names[ticks.index(turn)]}, then linear)"


@dataclass(frozen=True)
class EpochScale:
    """From epochs to places from 0 to 2: logarithmic up to 1, linear from there.

    Attributes:
        smallest: the first checkpoint after initialisation; the scale is linear up to it.
        turn: the epoch at place 1.
        largest: the epoch at place 2.
    """

    smallest: float
    turn: float
    largest: float
    start: float = 0.08
    """The place of the first checkpoint."""

    def forward(self, epochs: Any) -> Any:
        """Return the places of epochs."""
        epochs = np.asarray(epochs, float)
        middle = np.log(np.maximum(epochs, self.smallest) / self.smallest)
        middle = self.start + (1 - self.start) * middle / np.log(self.turn / self.smallest)
        late = 1 + (epochs - self.turn) / (self.largest - self.turn)
        first = self.start * epochs / self.smallest
        return np.where(epochs < self.smallest, first, np.where(epochs < self.turn, middle, late))

    def inverse(self, places: Any) -> Any:
        """Return the epochs at places."""
        places = np.asarray(places, float)
        share = (places - self.start) / (1 - self.start)
        middle = self.smallest * np.power(self.turn / self.smallest, np.clip(share, 0, 1))
        late = self.turn + (places - 1) * (self.largest - self.turn)
        first = self.smallest * places / self.start
        return np.where(places < self.start, first, np.where(places < 1, middle, late))

    def spread(self, first: float, second: float) -> float:
        """Return how far apart two epochs are drawn, in shares of the axis."""
        return float(self.forward(second) - self.forward(first)) / 2


class _Decades(LogLocator):
    """At 1, 2 and 5 of each decade; where these are many, at 1 alone."""

    def tick_values(self, vmin: float, vmax: float) -> Any:
        self.set_params(subs=(1, 2, 5) if vmax < _FEW_DECADES * vmin else (1,))
        return super().tick_values(vmin, vmax)


def loss_ticks(axis: Axis) -> None:
    """Mark a logarithmic axis of losses at round numbers, without powers of ten."""
    axis.set_major_locator(_Decades(numticks=20))
    axis.set_major_formatter(FuncFormatter(lambda loss, _: f"{loss:g}"))
    axis.set_minor_locator(NullLocator())


def curve(
    axis: Axes,
    table: pd.DataFrame,
    x: str,
    color: Any,
    label: str,
    limits: tuple[float | None, float | None] = (-1, 1),
    **line: Any,
) -> None:
    """Draw a line with its 95 % band, which is clipped to what the quantity can be.

    Args:
        limits: the least and the largest value; by default those of stiffness.
    """
    axis.plot(table[x], table["value"], color=color, label=label, **line)
    low, high = table["low"].clip(*limits), table["high"].clip(*limits)
    axis.fill_between(table[x], low, high, color=color, alpha=0.25, lw=0)


def scores(axis: Axes, history: pd.DataFrame, name: str) -> None:
    """Draw a score of the history, "loss" or "accuracy": means over seeds, validation dashed."""
    for split, dashes in (("train", "-"), ("validation", DASHED)):
        mean = history.groupby("epoch")[f"{split}_{name}"].mean()
        axis.plot(mean.index, mean, color="black", ls=dashes)


def name_dead(axis: Axes, runs: pd.DataFrame) -> None:
    """Say in a panel that its runs died, and how."""
    words = f"not a finding:\n{runs['status'].iloc[0]}"
    axis.text(0.5, 0.5, words, transform=axis.transAxes, ha="center", va="center")


def over_seeds(table: pd.DataFrame, by: str = "epoch") -> pd.DataFrame:
    """Average over seeds for a curve; see ``seed_means``, with the spread of neighbours pooled."""
    return seed_means(table, [by], neighbours=NEIGHBOURS)


def heading(
    runs: pd.DataFrame, *about: str, learning_rate: str = "", seed: int | None = None
) -> str:
    """Return the title of a figure: the experiment, the seeds and epochs that it shows, and more.

    Args:
        runs: the table of runs of one experiment.
        about: what else the title says.
        learning_rate: the one that is shown; "" for all of them.
        seed: the one that is shown; None for the mean over all.
    """
    rate = [f"learning rate {learning_rate}"] if learning_rate else []
    shown = rows(runs, lr=learning_rate) if learning_rate else runs
    parts = [str(runs["experiment"].iloc[0]), *rate, extent(shown, seed), *filter(None, about)]
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) > _LONGEST_LINE:
            lines.append(part)
        else:
            lines[-1] += f", {part}"
    return ",\n".join(lines)


def extent(runs: pd.DataFrame, seed: int | None = None) -> str:
    """Say in words how many seeds and epochs a figure shows.

    Args:
        runs: the runs that it shows; those that died do not count unless all did.
        seed: the one that is shown; None for all.
    """
    alive = rows(runs, status=OK)
    alive = alive if len(alive) else runs
    counts = alive.groupby("lr")["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    seeds = f"{most} seed{'s' * (most > 1)}" if least == most else f"{least} to {most} seeds"
    if seed is not None and most > 1:
        seeds = f"seed {seed} (one of {most})"
    epochs = float(alive["epochs"].max())
    return f"{seeds}, {epochs:g} epoch{'s' * (epochs != 1)}"


def dead_runs(runs: pd.DataFrame) -> str:
    """Say in a line which runs are not drawn; "" if all are."""
    named = []
    for (rate, status), dead in runs[runs["status"] != OK].groupby(["lr", "status"], sort=False):
        seeds = ", ".join(map(str, dead["seed"]))
        named.append(f"{rate} (seed{'s' * (len(dead) > 1)} {seeds}): {status}")
    return textwrap.fill("not drawn, learning rate " + "; ".join(named), 110) if named else ""


def number(value: float, form: str) -> str:
    """Write a number with a minus sign that is as wide as a plus."""
    return f"{value:{form}}".replace("-", "−")


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

    Accuracies are those of the validation set. One that overshoots what was asked for by more than
    ``CLOSE`` says so.
    """
    if stage.epoch == 0:
        epoch = "initialisation"
    elif stage.epoch < 1:
        epoch = f"epoch {stage.epoch:.2g}"
    else:
        epoch = f"epoch {round(stage.epoch, 1):g}"
    if stage.wanted_accuracy is None:
        return epoch
    wanted = f"{stage.wanted_accuracy:.2f}"
    wanted = wanted if float(wanted) == stage.wanted_accuracy else f"{stage.wanted_accuracy:g}"
    if stage.reached and stage.accuracy - stage.wanted_accuracy > CLOSE:
        return f"accuracy {stage.accuracy:.3f}\n(asked for {wanted}),\n{epoch}"
    if stage.reached:
        return f"accuracy {stage.accuracy:.3f},\n{epoch}"
    return f"accuracy {wanted} not\nreached; best {stage.accuracy:.3f},\n{epoch}"
