"""Which score of an example finds the mislabelled ones, while the network is trained on them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from stiffness.figures import style
from stiffness.files import rows
from stiffness.measures.detection import SCORES, detection
from stiffness.measures.seeds import seed_means
from stiffness.measures.studies import rows_of_columns


def prepare(
    columns: Sequence[Mapping[str, Any]], runs: pd.DataFrame, examples: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Find the areas under the ROC curves of living runs of the learning rates that are shown.

    Args:
        columns: as in ``draw``.
        runs: of these experiments.
        examples: their tables of segments, with columns experiment and seed.
    """
    runs = rows_of_columns(runs, columns)
    rates = {column["experiment"]: column["lr"] for column in columns}
    found = []
    for run in rows(runs, status=style.OK).to_dict("records"):
        own = rows(examples, experiment=run["experiment"], seed=run["seed"])
        areas = detection(own, float(rates[run["experiment"]]))
        found.append(areas.assign(experiment=run["experiment"], lr=run["lr"], seed=run["seed"]))
    return {"runs": runs, "areas": pd.concat(found) if found else pd.DataFrame()}


def draw(
    columns: Sequence[Mapping[str, Any]],
    runs: pd.DataFrame,
    areas: pd.DataFrame,
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw the area under the ROC curve of each score against epoch, one panel per experiment.

    Args:
        columns: experiment, lr and share (of wrong labels) of each panel.
        runs: of these experiments.
        areas: of ``detection``, with columns experiment, lr and seed.
        options: width, height (inches), palette (of the scores).
    """
    figure, axes = plt.subplots(
        1,
        len(columns),
        figsize=(options["width"], options["height"]),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    palette = dict(zip(SCORES, style.colors(options["palette"], len(SCORES)), strict=True))
    for column, axis in zip(columns, axes.flat, strict=True):
        own = rows_of_columns(runs, [column])
        share = f"{column['share']:.0%} wrong labels".replace("%", " %")
        name = style.wrap_name(column["experiment"], 90 // len(columns))
        axis.set_title(f"{share}\n{style.extent(own)}\n{name}", fontsize=6.5)
        axis.set_xlabel("epoch")
        found = rows_of_columns(areas, [column]) if len(areas) else areas
        for score in SCORES if len(found) else ():
            mean = style.over_seeds(rows(found, score=score))
            style.curve(axis, mean, "epoch", palette[score], SCORES[score])
        if len(found):
            label = style.epoch_axis(axis, found["epoch"], own)
            axis.set_xlabel(textwrap.fill(label, 110 // len(columns)))
        axis.axhline(0.5, color="0.6", lw=0.6, zorder=0)
    axes[0, 0].set_ylabel("area under the ROC curve")
    axes[0, 0].set_ylim(0, 1.02)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, ncols=3, loc="outside lower center")
    figure.suptitle("Finding mislabelled training examples, 95 % intervals", fontsize=8)
    style.save(figure, outputs)


def numbers(
    columns: Sequence[Mapping[str, Any]], areas: pd.DataFrame, options: Mapping[str, Any]
) -> pd.DataFrame:
    """Tabulate each score's AUC at epoch 1, at its best epoch and at the end.

    Returns:
        One row per experiment, score and stage ("epoch 1", "best", "end"), with the mean over
        living seeds and its interval.
    """
    del options
    table = []
    for column in columns:
        found = rows_of_columns(areas, [column]) if len(areas) else areas
        for score in SCORES if len(found) else ():
            means = seed_means(rows(found, score=score), ["epoch"]).to_dict("records")
            stages = {
                "epoch 1": min(means, key=lambda row: abs(row["epoch"] - 1)),
                "best": max(means, key=lambda row: row["value"]),
                "end": means[-1],
            }
            about: dict[Any, Any] = dict(column) | {
                "seeds": found["seed"].nunique(),
                "score": SCORES[score],
            }
            table += [about | {"stage": stage} | row for stage, row in stages.items()]
    return pd.DataFrame(table)
