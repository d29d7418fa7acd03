"""Critical lengths against epoch and against training loss (figures 12, S9)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.distance import BEYOND, EXTRAPOLATED, MEASURED, MISFIT, NONE
from stiffness.measures.pairs import METRICS

_MOST = 2.0  # no two inputs are farther apart
_HIGHEST = 5.0  # a line that reaches 0 at more than twice that says nothing of where
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5)
_STATUSES = (MEASURED, MISFIT, EXTRAPOLATED, BEYOND, NONE)  # a mean has the last that occurs
LINE, AREA = "line", "area"
MARKERS = {MEASURED: ("o", True), EXTRAPOLATED: ("o", False), MISFIT: ("s", False)}
"""The marker of a length by its status, and whether it is filled."""


def prepare(critical_length: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Select the lengths that are shown: those of a fitted line, and the area lengths."""
    return {"critical_length": rows(critical_length, estimator=[LINE, AREA])}


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    critical_length: pd.DataFrame,
    learning_rates: Sequence[str],
    space: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw xi of the line and the area length against epoch (left) and training loss (right).

    There is one row per length and metric and one colour per learning rate.

    Args:
        runs, history, critical_length: an experiment's tables.
        space: where distances were measured: "input", or a layer.
        options: width, height (inches), palette, pair_mode.
    """
    losses = history[["lr", "seed", "step", "train_loss"]]
    alive = rows(critical_length, status=style.OK, pair_mode=options["pair_mode"])
    alive = alive.merge(losses, on=["lr", "seed", "step"])
    rates = sorted(learning_rates, key=float)
    shades = dict(zip(rates, style.colors(options["palette"], len(rates)), strict=True))
    lines = [(estimator, metric) for estimator in (LINE, AREA) for metric in METRICS]
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    axes = figure.subplots(len(lines), 2, sharex="col", sharey="row")
    for (estimator, metric), panels in zip(lines, axes, strict=True):
        shown = rows(alive, estimator=estimator, metric=metric)
        means = {
            rate: seed_lengths(of_rate, estimator == LINE)
            for rate, of_rate in shown.groupby("lr", sort=False)
        }
        if estimator == LINE:
            edges = length_axis(panels, list(means.values()))
            panels[0].set_ylabel(rf"$\xi$ from {metric} stiffness")
        else:
            panels[0].set_ylabel(f"L from {metric} stiffness")
        for axis, x in zip(panels, ("epoch", "train_loss"), strict=True):
            for rate in rates:
                if rate not in means:
                    continue
                if estimator == LINE:
                    points(axis, means[rate], x, shades[rate], edges)
                else:
                    _area(axis, means[rate], x, shades[rate])
    if len(alive):
        label = style.epoch_axis(axes[-1, 0], alive["epoch"], runs)
        axes[-1, 0].set_xlabel(label)
        loss_axis(axes[-1, 1], alive["train_loss"])
        axes[-1, 1].set_xlabel("training loss (training proceeds to the right)")
    handles: list[Artist] = [
        Line2D([], [], color=color, marker="o", ms=3, label=rate) for rate, color in shades.items()
    ]
    figure.legend(
        handles=[*handles, *mark_handles()], title="learning rate", loc="outside right center"
    )
    figure.align_ylabels()
    mode = f"{style.MODE_NAMES[options['pair_mode']]} pairs"
    title = style.heading(runs, mode, style.distance_name(space), "95 % intervals")
    radii = list(alive["radius"].dropna().unique()) if "radius" in alive else []
    about = r"$\xi$: where the fitted line reaches 0; L: mean stiffness up to a distance of "
    about += f"{radii[0]:.2g}" if len(radii) == 1 else "r"
    figure.suptitle("\n".join(filter(None, [title, about, style.dead_runs(runs)])), fontsize=8)
    style.save(figure, outputs)


def seed_lengths(lengths: pd.DataFrame, logarithmic: bool = True) -> pd.DataFrame:
    """Average the lengths of one learning rate over its seeds.

    Args:
        lengths: one row per seed and checkpoint, with the columns of the table of critical lengths
            and train_loss.
        logarithmic: whether the mean is the geometric one, which suits lengths of any size.

    Returns:
        One row per checkpoint: step, epoch, train_loss, max_distance, value, low, high, and
        crossing, the worst status of any seed. There is no mean where a seed has no crossing.
    """
    columns = ["value", "low", "high"]
    scaled = lengths.copy()
    if logarithmic:
        with np.errstate(divide="ignore"):
            scaled[columns] = np.log(lengths[columns])
    mean = style.over_seeds(scaled, "step")
    if logarithmic:
        mean[columns] = np.exp(mean[columns])
    place = lengths["crossing"].map(_STATUSES.index)
    by_step = lengths.assign(place=place).groupby("step", sort=True)
    about = by_step.agg(
        epoch=("epoch", "first"),
        train_loss=("train_loss", "mean"),
        max_distance=("max_distance", "min"),
        place=("place", "max"),
    ).reset_index()
    mean = mean.merge(about, on="step")
    mean["crossing"] = mean.pop("place").map(dict(enumerate(_STATUSES)))
    undefined = mean["crossing"].isin([NONE, BEYOND])
    mean.loc[undefined, columns] = np.nan
    return mean


def length_axis(axes: Sequence[Axes], lengths: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """Scale axes for xi to the range of the data; it is grey where no two inputs are so far apart.

    Above it is room for the marks of "above the axis" and "no crossing".

    Args:
        axes: they share their y.
        lengths: what is drawn, with value and crossing.

    Returns:
        The range within which values are drawn.
    """
    values = [table.loc[table["crossing"] != NONE, "value"].to_numpy(float) for table in lengths]
    values += [rows(table, crossing=BEYOND)["max_distance"].to_numpy(float) for table in lengths]
    drawn = np.concatenate(values) if values else np.array([])
    drawn = drawn[np.isfinite(drawn) & (drawn <= _HIGHEST)]
    low = float(drawn.min(initial=_MOST)) / 1.15
    high = float(drawn.max(initial=low * 1.5)) * 1.15
    for axis in axes:
        axis.set_yscale("log")
        top = high * (high / low) ** 0.2
        axis.set_ylim(low, top)
        axis.axhspan(_MOST, top, color="0.93", lw=0, zorder=0)
        ticks = [tick for tick in _TICKS if low <= tick <= high]
        if len(ticks) < 3:
            ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]
            ticks = [tick for tick in ticks if low <= tick <= high]
        axis.yaxis.set_major_locator(FixedLocator(ticks))
        axis.yaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))
        axis.yaxis.set_minor_locator(NullLocator())
    return low, high


def mark_handles(
    above: str = "above the axis", far: str = "no two inputs\nare so far apart"
) -> list[Artist]:
    """Return legend entries of the marks; the arguments say what an arrow and what grey means."""
    marks = [
        ("o", "0.3", "within the data"),
        ("o", "white", "extrapolated"),
        ("s", "white", "misfit: stiffness\nis not 0 there"),
        ("^", "white", above),
        ("x", "0.3", "no crossing"),
    ]
    handles: list[Artist] = [
        Line2D([], [], color="0.3", ls="", marker=marker, mfc=fill, ms=4, label=label)
        for marker, fill, label in marks
    ]
    return [*handles, Patch(color="0.93", label=far)]


def loss_axis(axis: Axes, losses: pd.Series) -> None:
    """Scale an axis for training loss: logarithmic, and falling to the right."""
    axis.set_xscale("log")
    axis.set_xlim(losses.max() * 1.1, losses.min() / 1.1)
    style.loss_ticks(axis.xaxis)
    if losses.max() / losses.min() > 200:
        axis.xaxis.set_major_locator(LogLocator(numticks=20))
    elif losses.max() / losses.min() < 5:
        axis.xaxis.set_major_locator(MaxNLocator(5))


def points(
    axis: Axes, lengths: pd.DataFrame, x: str, color: Any, edges: tuple[float, float]
) -> None:
    """Draw xi with its intervals, and marks where it has no value to draw.

    Args:
        lengths: of one run, or of the mean over several.
        x: the column "epoch" or "train_loss"; the line follows it.
        edges: as ``length_axis`` returns them.
    """
    lowest, highest = edges
    top = axis.get_ylim()[1]
    lengths = lengths.sort_values(x)
    inside = lengths[(lengths["crossing"] != NONE) & lengths["value"].between(lowest, highest)]
    # A line joins neighbouring checkpoints only: it breaks where one has no value to draw.
    drawn = lengths[["value", "low", "high"]].where(lengths["step"].isin(inside["step"]), axis=0)
    axis.plot(lengths[x], drawn["value"], color=color, lw=0.8, alpha=0.8)
    # To the edges of the axis: an interval may be open.
    low, high = drawn["low"].clip(lower=lowest / 2), drawn["high"].clip(upper=top)
    axis.fill_between(lengths[x], low, high, color=color, alpha=0.2, lw=0)
    looks = {"ms": 2.2, "mew": 0.5, "color": color}
    for status, (marker, filled) in MARKERS.items():
        some = rows(inside, crossing=status)
        axis.plot(some[x], some["value"], marker, mfc=color if filled else "white", **looks)
    beyond = lengths[(lengths["crossing"] != NONE) & (lengths["value"] > highest)]
    share = np.log(top / highest)
    axis.plot(beyond[x], [highest * np.exp(0.3 * share)] * len(beyond), "^", mfc="white", **looks)
    # The monotone estimator may stay above 0 as far as there are pairs.
    past = rows(lengths, crossing=BEYOND)
    axis.plot(past[x], past["max_distance"], "^", mfc="white", **looks)
    none = rows(lengths, crossing=NONE)
    axis.plot(none[x], [highest * np.exp(0.75 * share)] * len(none), "x", **looks)


def _area(axis: Axes, lengths: pd.DataFrame, x: str, color: Any) -> None:
    lengths = lengths.sort_values(x)
    style.curve(axis, lengths, x, color, "", lw=0.8)
    axis.plot(lengths[x], lengths["value"], "o", ms=1.8, color=color)
