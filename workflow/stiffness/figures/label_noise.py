"""Stiffness of one network on data of which a share of the training labels is wrong."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.pairs import METRICS
from stiffness.measures.seeds import seed_means
from stiffness.measures.studies import describe_gap, rows_of_columns, stiffness_gaps

_SCORES = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy")
_LOWEST_LOSS = 1e-3
_QUANTITIES = ("within", "between")


def prepare(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    replicates: Sequence[str],
    parts: Sequence[tuple[str, int]],
    options: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Select the learning rates that are shown, and find the gaps between their stiffnesses.

    Args:
        columns, runs, history, summary, options: as in ``draw``; rows of all learning rates.
        replicates: files of segments, each of the (experiment, seed) at its place in ``parts``.
    """
    shown = {"runs": runs, "history": history, "summary": summary}
    shown = {name: rows_of_columns(table, columns) for name, table in shown.items()}
    gaps = stiffness_gaps(shown["summary"], replicates, parts, options["pair_mode"])
    return {**shown, "gaps": gaps}


def draw(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one column per share of wrong labels: losses, accuracies, and stiffness by metric.

    Stiffness is drawn over all pairs, and below that for clean and mislabelled examples apart.

    Args:
        columns: experiment, lr and share (of wrong labels) of each column.
        runs, history, summary: tables of these experiments.
        options: width, height (inches), colors (within classes, between them), pair_mode.
    """
    figure, axes = plt.subplots(
        2 + 2 * len(METRICS),
        len(columns),
        figsize=(options["width"], options["height"]),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, panels in zip(columns, axes.T, strict=True):
        share = f"{column['share']:.0%} wrong labels".replace("%", " %")
        name = style.wrap_name(column["experiment"], 100 // len(columns))
        own, past, stiffness = (
            rows_of_columns(table, [column]) for table in (runs, history, summary)
        )
        title = f"{share}\n{name}\n{style.extent(own)}"
        panels[0].set_title(title, fontsize=6.5)
        panels[-1].set_xlabel("epoch")
        alive = rows(past, status=style.OK)
        stiffness = rows(stiffness, pair_mode=options["pair_mode"], status=style.OK)
        if alive.empty:
            for axis in panels:
                style.name_dead(axis, own)
            continue
        style.scores(panels[0], alive, "loss")
        style.scores(panels[1], alive, "accuracy")
        if column["share"]:
            # What a network has that learns the clean labels alone.
            panels[1].axhline(1 - column["share"], color="0.5", lw=0.8, ls=":")
        for place, metric in enumerate(METRICS):
            of_metric = rows(stiffness, metric=metric)
            together, parts = panels[2 + place], panels[2 + len(METRICS) + place]
            for quantity, color in zip(_QUANTITIES, options["colors"], strict=True):
                _curve(together, of_metric, quantity, color)
                _curve(parts, of_metric, f"{quantity}_clean", color)
                _curve(parts, of_metric, f"{quantity}_mislabelled", color, ls=style.DASHED)
            if not column["share"]:
                parts.text(0.5, 0.4, "all clean", transform=parts.transAxes, ha="center")
        label = style.epoch_axis(panels[0], alive["epoch"], own)
        panels[-1].set_xlabel(textwrap.fill(label, 110 // len(columns)))
    # A memorised set's loss falls without end; what counts is that it is memorised.
    losses = rows(history, status=style.OK)[["train_loss", "validation_loss"]]
    axes[0, 0].set_yscale("log")
    style.loss_ticks(axes[0, 0].yaxis)
    if len(losses):
        axes[0, 0].set_ylim(bottom=max(_LOWEST_LOSS, 0.8 * losses.min().min()))
    for axis in axes[2:].flat:
        axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    names = [
        "loss",
        "accuracy",
        *(f"{metric},\nall pairs" for metric in METRICS),
        *(f"{metric}, clean\nand mislabelled" for metric in METRICS),
    ]
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name)
    figure.align_ylabels()
    _legend(figure, options["colors"])
    mode = style.MODE_NAMES[options["pair_mode"]]
    title = f"stiffness of {mode} pairs under wrong training labels, 95 % intervals"
    figure.suptitle("\n".join(filter(None, [title, _rates(columns)])), fontsize=8)
    style.save(figure, outputs)


def numbers(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    gaps: pd.DataFrame,
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Tabulate, per experiment and metric, the figure's end and ``studies.describe_gap``.

    Numbers are means over living seeds; an experiment without any has its status alone.

    Args:
        columns, runs, history, summary, options: as in ``draw``.
        gaps: the gaps of these experiments, from ``studies.stiffness_gaps``.
    """
    table = []
    for column in columns:
        own, past, stiffness = (
            rows_of_columns(given, [column]) for given in (runs, history, summary)
        )
        alive = rows(own, status=style.OK)
        status = style.OK if len(alive) else own["status"].iloc[0]
        about = dict(column) | {"status": status, "seeds": len(alive)}
        last = past["epoch"].max()
        at_end = rows(past, status=style.OK, epoch=last)
        ends = rows(stiffness, pair_mode=options["pair_mode"], status=style.OK, epoch=last)
        for metric in METRICS:
            row: dict[str, Any] = about | {"metric": metric}
            table.append(row)
            if alive.empty:
                continue
            row |= {"epoch": last} | {name: at_end[name].mean() for name in _SCORES}
            of_seeds = {"experiment": column["experiment"], "seed": set(alive["seed"])}
            gap = seed_means(rows(gaps, metric=metric, **of_seeds), ["epoch"])
            means = seed_means(rows(ends, metric=metric), ["quantity"]).to_dict("records")
            for one in [*means, gap.iloc[-1].to_dict() | {"quantity": "gap"}]:
                name = one["quantity"]
                row |= {name: one["value"], f"{name}_low": one["low"], f"{name}_high": one["high"]}
            row |= describe_gap(gap)
    return pd.DataFrame(table)


def _rates(columns: Sequence[Mapping[str, Any]]) -> str:
    rates = list(dict.fromkeys(column["lr"] for column in columns))
    return f"learning rate {', '.join(rates)}"


def _curve(axis: Axes, table: pd.DataFrame, quantity: str, color: str, **line: Any) -> None:
    shown = rows(table, quantity=quantity)
    if len(shown):
        style.curve(axis, style.over_seeds(shown), "epoch", color, quantity, **line)


def _legend(figure: plt.Figure, colors: Sequence[str]) -> None:
    handles = [
        Line2D([], [], color="black", label="training (given labels)"),
        Line2D([], [], color="black", ls=style.DASHED, label="validation (clean labels)"),
        Line2D([], [], color="0.5", lw=0.8, ls=":", label="share of clean labels"),
        Patch(color=colors[0], label="within classes"),
        Patch(color=colors[1], label="between classes"),
        Line2D([], [], color="0.3", label="clean training examples"),
        Line2D([], [], color="0.3", ls=style.DASHED, label="mislabelled"),
    ]
    figure.legend(handles=handles, ncols=4, loc="outside lower center")
