"""Stiffness of the same checkpoints in several arithmetics of the loss gradient."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.seeds import seed_means
from stiffness.measures.studies import rows_of_columns

NAMES = {
    "exact": "exact",
    "float32": "float32",
    "keras": "Keras's clip",
    "bfloat16": "bfloat16",
    "float64": "float64 passes",
    "tf32": "TF32 passes",
    "naive": "naive product",
}
_DOTTED = (0, (1, 1.2))
_LINES: Mapping[str, Any] = {
    "exact": {"lw": 1.8},
    "float64": {"ls": _DOTTED, "lw": 2.0},
    "tf32": {"ls": style.DASHED},
    "naive": {"ls": style.DASHED},
}
_QUANTITIES = {
    "within-class\nsign": ("summaries", {"quantity": "within", "metric": "sign"}),
    "between-classes\nsign": ("summaries", {"quantity": "between", "metric": "sign"}),
    "within-class\ncosine": ("summaries", {"quantity": "within", "metric": "cosine"}),
    "within-class cosine,\nzeros count as 0": (
        "siblings",
        {"quantity": "cosine_within_with_zeros"},
    ),
    "between-classes\ncosine": ("summaries", {"quantity": "between", "metric": "cosine"}),
    "between-classes\ncosine, zeros as 0": (
        "siblings",
        {"quantity": "cosine_between_with_zeros"},
    ),
    "norm-weighted,\nwithin classes": ("siblings", {"quantity": "norm_weighted_within"}),
    "norm-weighted,\nbetween classes": ("siblings", {"quantity": "norm_weighted_between"}),
    "m-coherence": ("siblings", {"quantity": "m_coherence"}),
}
"""The quantities of the figures: label, table, and the rows of the table."""
_GLANCE = (
    "within-class\nsign",
    "between-classes\nsign",
    "within-class cosine,\nzeros count as 0",
    "norm-weighted,\nwithin classes",
)
_WITHOUT_A_MODE = ("m_coherence",)


def prepare(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: pd.DataFrame,
    siblings: pd.DataFrame,
    confidence: pd.DataFrame,
) -> dict[str, pd.DataFrame]:
    """Select the learning rates that are shown, and the runs that did not die."""
    tables = {
        "history": history,
        "summaries": summaries,
        "siblings": siblings.assign(low=siblings["value"], high=siblings["value"]),
        "confidence": confidence,
    }
    return {"runs": rows_of_columns(runs, columns)} | {
        name: rows(rows_of_columns(table, columns), status=style.OK)
        for name, table in tables.items()
    }


def draw(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: pd.DataFrame,
    siblings: pd.DataFrame,
    confidence: pd.DataFrame,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw one column per experiment: losses, confident examples, and stiffness by arithmetic.

    Args:
        columns: experiment, lr and training_arithmetic of each column.
        runs, history: tables of these experiments.
        summaries, siblings, confidence: their tables of all arithmetics.
        options: width, height (inches), colors (of the arithmetics of ``NAMES``), pair_mode.
    """
    tables = {"summaries": summaries, "siblings": siblings}
    palette = dict(zip(NAMES, options["colors"], strict=True))
    figure, axes = plt.subplots(
        2 + len(_GLANCE),
        len(columns),
        figsize=(options["width"], options["height"]),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    shown: dict[str, None] = {}
    for column, panels in zip(columns, axes.T, strict=True):
        own, past = rows_of_columns(runs, [column]), rows_of_columns(history, [column])
        panels[0].set_title(_title(column, own, len(columns)), fontsize=6.5)
        if past.empty:
            style.name_dead(panels[0], own)
            continue
        style.scores(panels[0], past, "loss")
        _shares(panels[1], rows_of_columns(confidence, [column]), palette, options["pair_mode"])
        for axis, label in zip(panels[2:], _GLANCE, strict=True):
            found = _select(tables, [column], label, options["pair_mode"])
            for arithmetic in _arithmetics(found):
                mean = style.over_seeds(rows(found, arithmetic=arithmetic))
                _curve(axis, mean, "epoch", palette[arithmetic], arithmetic, label)
                shown[arithmetic] = None
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        _expected(panels[2], rows_of_columns(summaries, [column]), options["pair_mode"])
        onset = rows(own, status=style.OK)["onset_epoch"].mean()
        for axis in panels:
            axis.axvline(onset, color="#d55e00", lw=0.8, ls=_DOTTED, zorder=0)
        panels[-1].set_xlabel("epoch")
        panels[-1].set_xlim(0, past["epoch"].max())
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("loss")
    axes[1, 0].set_ylabel("share of\nexamples")
    axes[1, 0].set_ylim(-0.02, 1.02)
    for axis, label in zip(axes[2:, 0], _GLANCE, strict=True):
        axis.set_ylabel(label)
    figure.align_ylabels()
    _legend(figure, [name for name in NAMES if name in shown], palette)
    mode = style.MODE_NAMES[options["pair_mode"]]
    figure.suptitle(
        f"The same checkpoints in several arithmetics of the loss gradient: {mode} pairs, "
        "mean over seeds, 95 % intervals",
        fontsize=8,
    )
    style.save(figure, outputs)


def draw_axes(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: pd.DataFrame,
    siblings: pd.DataFrame,
    confidence: pd.DataFrame,
    learning_rate: str,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw all quantities of one experiment against epoch, training loss and confident examples.

    Args:
        runs, history: an experiment's tables.
        summaries, siblings, confidence: its tables of all arithmetics.
        options: as for ``draw``.
    """
    _, status = style.reference_run(runs, learning_rate)
    mode = style.MODE_NAMES[options["pair_mode"]]
    about = f"{mode} pairs, 95 % intervals"
    title = style.heading(runs, about, learning_rate=learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    if style.refuse_dead(figure, title, status, outputs):
        return
    column = {"experiment": runs["experiment"].iloc[0], "lr": learning_rate}
    found = prepare([column], runs, history, summaries, siblings, confidence)
    palette = dict(zip(NAMES, options["colors"], strict=True))
    axes = figure.subplots(len(_QUANTITIES), 3, sharex="col", sharey="row")
    at = found["history"].groupby("epoch")["train_loss"].mean().to_frame("train_loss")
    # The share does not depend on the arithmetic.
    shares = rows(found["confidence"], split=_split(options["pair_mode"]), quantity="confident")
    at["confident"] = shares.groupby("epoch")["value"].mean()
    shown: dict[str, None] = {}
    for panels, label in zip(axes, _QUANTITIES, strict=True):
        table = _select(found, [column], label, options["pair_mode"])
        for arithmetic in _arithmetics(table):
            mean = style.over_seeds(rows(table, arithmetic=arithmetic))
            mean = mean.merge(at.reset_index(), on="epoch", how="left")
            for axis, name in zip(panels, ("epoch", "train_loss", "confident"), strict=True):
                # Losses and shares go back and forth; a line that did would tangle its band.
                ordered = mean.sort_values(name)
                _curve(axis, ordered, name, palette[arithmetic], arithmetic, label)
            shown[arithmetic] = None
        panels[0].set_ylabel(label, fontsize=6.5)
        for axis in panels:
            axis.axhline(0, color="0.6", lw=0.6, zorder=0)
    onset = rows(found["runs"], status=style.OK)["onset_epoch"].mean()
    for axis in axes[:, 0]:
        axis.axvline(onset, color="#d55e00", lw=0.8, ls=_DOTTED, zorder=0)
    axes[-1, 0].set_xlabel("epoch")
    axes[-1, 1].set_xscale("log")
    axes[-1, 1].invert_xaxis()
    axes[-1, 1].set_xlabel("training loss")
    axes[-1, 2].set_xlabel("share of examples with 1 − p < 1e-7")
    figure.align_ylabels()
    _legend(figure, [name for name in NAMES if name in shown], palette, lines=False)
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def numbers(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summaries: pd.DataFrame,
    siblings: pd.DataFrame,
    confidence: pd.DataFrame,
    options: Mapping[str, Any],
) -> pd.DataFrame:
    """Tabulate all quantities at the onset of over-fitting and at the end.

    Returns:
        One row per experiment, stage ("onset" is the checkpoint nearest to the mean onset over
        seeds), arithmetic and quantity, with the mean over living seeds and its interval.
    """
    tables = {"summaries": summaries, "siblings": siblings}
    split = _split(options["pair_mode"])
    table = []
    for column in columns:
        own, past = rows_of_columns(runs, [column]), rows_of_columns(history, [column])
        if past.empty:
            continue
        epochs = past["epoch"].unique()
        onset = rows(own, status=style.OK)["onset_epoch"].mean()
        stages = {"onset": epochs[np.abs(epochs - onset).argmin()], "end": epochs.max()}
        parts = {
            label.replace("\n", " "): _select(tables, [column], label, options["pair_mode"])
            for label in _QUANTITIES
        }
        shares = rows(rows_of_columns(confidence, [column]), split=split)
        for quantity in ("confident", "zero", "wrong"):
            parts[f"share {quantity}"] = rows(shares, quantity=quantity)
        for stage, epoch in stages.items():
            about: dict[Any, Any] = dict(column) | {
                "seeds": past["seed"].nunique(),
                "stage": stage,
                "epoch": epoch,
            }
            about |= rows(past, epoch=epoch)[["train_loss", "validation_loss"]].mean().to_dict()
            for quantity, found in parts.items():
                means = seed_means(rows(found, epoch=epoch), ["arithmetic"])
                table += [about | {"quantity": quantity} | row for row in means.to_dict("records")]
    return pd.DataFrame(table)


def _select(
    tables: Mapping[str, pd.DataFrame],
    columns: Sequence[Mapping[str, Any]],
    label: str,
    pair_mode: str,
) -> pd.DataFrame:
    """The rows of a quantity; m-coherence is one of a set, the training one for train-val."""
    name, wanted = _QUANTITIES[label]
    if wanted["quantity"] in _WITHOUT_A_MODE and pair_mode == "train-val":
        pair_mode = "train-train"
    return rows(rows_of_columns(tables[name], columns), pair_mode=pair_mode, **wanted)


def _arithmetics(table: pd.DataFrame) -> list[str]:
    return [name for name in NAMES if name in set(table["arithmetic"])]


def _split(pair_mode: str) -> str:
    return "validation" if pair_mode == "val-val" else "train"


def _curve(axis: Axes, mean: pd.DataFrame, x: str, color: str, arithmetic: str, label: str) -> None:
    limits = (0, None) if label == "m-coherence" else (-1, 1)
    style.curve(axis, mean, x, color, arithmetic, limits, **_LINES.get(arithmetic, {}))


def _shares(
    axis: Axes, confidence: pd.DataFrame, palette: Mapping[str, str], pair_mode: str
) -> None:
    """The share of confident examples, and of those that an arithmetic leaves no gradient."""
    shares = rows(confidence, split=_split(pair_mode))
    confident = rows(shares, quantity="confident")
    one = rows(confident, arithmetic=confident["arithmetic"].iloc[0])
    mean = seed_means(one, ["epoch"])
    axis.plot(mean["epoch"], mean["value"], color="black", lw=1.8)
    for arithmetic in _arithmetics(shares):
        zero = seed_means(rows(shares, quantity="zero", arithmetic=arithmetic), ["epoch"])
        if (zero["value"] > 0).any():
            axis.plot(zero["epoch"], zero["value"], color=palette[arithmetic], ls=style.DASHED)


def _expected(axis: Axes, summaries: pd.DataFrame, pair_mode: str) -> None:
    """What the clip must do: exact stiffness times the share of pairs that keep both gradients."""
    shown = rows(summaries, quantity="within", pair_mode=pair_mode)
    key = ["seed", "epoch"]
    clipped, exact = (rows(shown, arithmetic=name) for name in ("keras", "exact"))
    kept = rows(clipped, metric="cosine").set_index(key)["n_pairs"]
    every = rows(clipped, metric="sign").set_index(key)["n_pairs"]
    value = kept / every * rows(exact, metric="sign").set_index(key)["value"]
    mean = value.groupby("epoch").mean().dropna()
    axis.plot(mean.index, mean, color="black", ls=_DOTTED, lw=1.4, zorder=5)


def _title(column: Mapping[str, Any], runs: pd.DataFrame, number: int) -> str:
    trained = {"float32": "", "keras": "\ntrained with Keras's clip"}
    name = style.wrap_name(column["experiment"], 100 // number)
    return f"{name}{trained[column['training_arithmetic']]}\n{style.extent(runs)}"


def _legend(
    figure: plt.Figure, arithmetics: Sequence[str], palette: Mapping[str, str], lines: bool = True
) -> None:
    handles = [
        Line2D([], [], color=palette[name], label=NAMES[name], **_LINES.get(name, {}))
        for name in arithmetics
    ]
    if lines:
        handles += [
            Line2D([], [], color="black", label="training loss"),
            Line2D([], [], color="black", ls=style.DASHED, label="validation loss"),
            Line2D([], [], color="black", lw=1.8, label="share with 1 − p < 1e-7"),
            Line2D([], [], color="0.4", ls=style.DASHED, label="share of zero gradients"),
            Line2D([], [], color="black", ls=_DOTTED, label="expected of the clip"),
        ]
    handles.append(Line2D([], [], color="#d55e00", lw=0.8, ls=_DOTTED, label="onset"))
    figure.legend(handles=handles, ncols=4, loc="outside lower center")
