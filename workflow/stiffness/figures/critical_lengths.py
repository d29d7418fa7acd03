"""xi and within-class stiffness against training loss, for several optimisers or batch sizes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from stiffness.figures import style
from stiffness.figures.critical_length import MARKERS, length_axis, loss_axis, mark_handles, points
from stiffness.files import rows
from stiffness.measures.equal_loss import add_losses, round_losses, tables_at_losses

_GREY = "0.75"
_NAMES = {"line": "line", "monotone": "falling curve"}


def numbers(
    history: pd.DataFrame,
    summary: pd.DataFrame,
    critical_length: pd.DataFrame,
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Tabulate xi and within-class stiffness of every run at common training losses.

    See ``equal_loss.round_losses`` and ``equal_loss.tables_at_losses``.

    Args:
        history, summary, critical_length: tables of the experiments; the last of one space.
        options: metric, pair_mode.

    Returns:
        Columns experiment, lr, seed, train_loss, quantity ("xi/line", "xi/monotone" or "within"),
        value, low, high and crossing.
    """
    losses = round_losses(history)
    lengths, within = _measured(history, summary, critical_length, options)
    parts = [
        tables_at_losses(rows(lengths, estimator=estimator), losses).assign(
            quantity=f"xi/{estimator}"
        )
        for estimator in _NAMES
    ]
    parts.append(tables_at_losses(within, losses).assign(quantity="within", crossing=""))
    columns = ["experiment", "lr", "seed", "train_loss", "quantity", "value", "low", "high"]
    return pd.concat(parts, ignore_index=True)[[*columns, "crossing"]]


def draw(
    experiments: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    critical_length: pd.DataFrame,
    space: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one column per experiment, and below them xi at equal loss.

    Args:
        experiments: experiment (its name), learning_rates, optimizer and batch_size of each.
        runs, history, summary, critical_length: tables of these experiments; the last of one space.
        space: where distances were measured: "input", or a layer.
        options: width, height (inches), palette, metric, pair_mode.
    """
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(3, 1.25))[:, 0]
    # The legends of columns have a row of their own: over curves they would hide them.
    grid = above.subplots(
        2 + len(_NAMES),
        len(experiments),
        sharex=True,
        sharey="row",
        squeeze=False,
        height_ratios=[0.55, *[1] * (1 + len(_NAMES))],
    )
    heads, axes = grid[0], grid[1:]
    lengths, within = _measured(history, summary, critical_length, options)
    shades = {
        one["experiment"]: dict(
            zip(
                sorted(one["learning_rates"], key=float),
                style.colors(options["palette"], len(one["learning_rates"])),
                strict=True,
            )
        )
        for one in experiments
    }
    first = experiments[0]["experiment"]
    edges = [
        length_axis(row, [rows(lengths, estimator=estimator)])
        for row, estimator in zip(axes, _NAMES, strict=False)
    ]
    for number, (one, head, panels) in enumerate(zip(experiments, heads, axes.T, strict=True)):
        name = one["experiment"]
        head.set_axis_off()
        head.set_title(f"{_title(one)}\n{style.extent(rows(runs, experiment=name))}")
        for behind in (True, False) if number else (False,):
            shown = first if behind else name
            for (rate, _), run in rows(within, experiment=shown).groupby(["lr", "seed"]):
                color = _GREY if behind else shades[shown][rate]
                _stiffness(panels[-1], run, color, behind)
            for axis, estimator, ends in zip(panels, _NAMES, edges, strict=False):
                of_estimator = rows(lengths, experiment=shown, estimator=estimator)
                for (rate, _), run in of_estimator.groupby(["lr", "seed"]):
                    color = _GREY if behind else shades[shown][rate]
                    points(axis, run, "train_loss", color, ends)
        handles = [
            Line2D([], [], color=color, marker="o", ms=3, label=rate)
            for rate, color in shades[name].items()
        ]
        if number:
            handles.append(Line2D([], [], color=_GREY, label="as in the first column"))
        looks = {"ncols": 2, "columnspacing": 1, "handlelength": 1.2, "borderpad": 0}
        head.legend(handles=handles, title="learning rate", loc="center", **looks)
        panels[-1].set_xlabel("training loss (falling)")
    for axis, estimator in zip(axes[:, 0], _NAMES, strict=False):
        axis.set_ylabel(rf"$\xi$ of the {_NAMES[estimator]}")
    axes[-1, 0].set_ylabel(f"within-class\n{style.METRIC_NAMES[options['metric']]}")
    if len(within):
        loss_axis(axes[0, 0], within["train_loss"])
    above.align_ylabels()
    table = numbers(history, summary, critical_length, options)
    _at_equal_loss(below, experiments, rows(table, quantity="xi/line"), shades)
    marks: list[Artist] = mark_handles("larger: beyond the data or the axis")
    figure.legend(handles=marks, ncols=3, loc="outside lower center")
    title = (
        f"{style.METRIC_NAMES[options['metric']]}, {style.MODE_NAMES[options['pair_mode']]} pairs, "
        f"{style.distance_name(space)}, 95 % intervals"
    )
    names = runs["experiment"].unique()
    dead = {name: style.dead_runs(rows(runs, experiment=name)) for name in names}
    lines = [f"{name}: {line}" for name, line in dead.items() if line]
    figure.suptitle("\n".join([title, *lines]), fontsize=8)
    style.save(figure, outputs)


def _measured(
    history: pd.DataFrame,
    summary: pd.DataFrame,
    critical_length: pd.DataFrame,
    options: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return critical lengths and within-class stiffness of living runs, with their losses."""
    lengths, stiffness = (
        rows(table, metric=options["metric"], pair_mode=options["pair_mode"])
        for table in (critical_length, summary)
    )
    within = rows(stiffness, quantity="within")
    return add_losses(lengths, history), add_losses(within, history)


def _title(one: Mapping[str, Any]) -> str:
    optimizer = one["optimizer"]
    name = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD"}.get(
        optimizer["name"], optimizer["name"]
    )
    if optimizer["name"] == "sgd" and optimizer["momentum"]:
        name += f", momentum {optimizer['momentum']:g}"
    return f"{name}, batch {one['batch_size']}\n{style.wrap_name(one['experiment'], 28)}"


def _stiffness(axis: Axes, run: pd.DataFrame, color: Any, behind: bool) -> None:
    run = run.sort_values("step")
    axis.plot(run["train_loss"], run["value"], color=color, lw=0.8)
    if not behind:
        axis.vlines(run["train_loss"], run["low"], run["high"], color=color, alpha=0.25, lw=0.6)
        axis.plot(run["train_loss"], run["value"], "o", ms=2, color=color)


def _at_equal_loss(
    figure: SubFigure,
    experiments: Sequence[Mapping[str, Any]],
    table: pd.DataFrame,
    shades: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw xi of the line for every rate, with one panel per loss and one mark per seed."""
    losses = sorted(table["train_loss"].unique(), reverse=True)
    if not losses:
        return
    panels = figure.subplots(1, len(losses), sharey=True, squeeze=False)[0]
    # An interval may be open: it is drawn to the edge.
    ends = table[["value", "low", "high"]].to_numpy(float)
    ends = ends[np.isfinite(ends)]
    edges = ends.min(initial=2.0) / 1.05, ends.max(initial=1.0) * 1.05
    for axis, loss in zip(panels, losses, strict=True):
        axis.set_title(f"at training loss {loss:g}")
        place, ticks = 0.0, []
        for one in experiments:
            begin = place
            for rate, color in shades[one["experiment"]].items():
                runs = rows(table, experiment=one["experiment"], lr=rate, train_loss=loss)
                runs = runs.sort_values("seed")
                shifts = (np.arange(len(runs)) - (len(runs) - 1) / 2) * 0.3
                for shift, row in zip(shifts, runs.to_dict("records"), strict=True):
                    marker, filled = MARKERS.get(row["crossing"], ("o", False))
                    fill = color if filled else "white"
                    low, high = np.clip([row["low"], row["high"]], *edges)
                    axis.vlines(place + shift, low, high, color=color, lw=0.8)
                    axis.plot(place + shift, row["value"], marker, ms=3.5, color=color, mfc=fill)
                place += 1
            ticks.append((begin + place - 1) / 2)
            place += 0.7
        names = [_title(one).split("\n")[0].replace(", ", "\n") for one in experiments]
        axis.set_xticks(ticks, names, fontsize=5, rotation=90 if len(names) > 3 else 0)
        axis.tick_params(axis="x", length=0)
        axis.set_ylim(*edges)
    panels[0].set_ylabel(r"$\xi$ of the line")
