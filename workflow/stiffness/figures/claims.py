"""The verdicts on the paper's claims at a glance: a cell a claim and an experiment."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.patches import Patch, Rectangle

from stiffness.figures import style

_MARKS = {"supported": "✓", "contradicted": "✗", "not decided": "?"}
_WIDTH = 44  # letters of a claim's text on a line
_TEXT, _CELL = 2.5, 1.0  # inches of that text, and of a cell at the least


def draw(
    rows: pd.DataFrame,
    texts: Mapping[str, str],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Colour and sign say the verdict, the number below it the first effect that decides.

    Args:
        rows: the table of claims.
        texts: each claim in words.
        options: width (inches; more for many experiments), colors (supported, contradicted, not
            decided).
    """
    experiments = list(dict.fromkeys(rows["experiment"]))
    claims = list(dict.fromkeys(rows["claim"]))
    wrapped = {
        name: textwrap.wrap(f"{name}  {texts[name]}", _WIDTH, subsequent_indent="      ")
        for name in claims
    }
    heights = [max(2.9, len(wrapped[name]) + 0.5) for name in claims]
    number = max(len(experiments), 1)
    cell_width = max((options["width"] - _TEXT) / number, _CELL)
    figure, axis = plt.subplots(
        figsize=(_TEXT + number * cell_width, 0.135 * sum(heights) + 1.5), layout="constrained"
    )
    colors = dict(zip(_MARKS, options["colors"], strict=True))
    top = 0.0
    for name, height in zip(claims, heights, strict=True):
        middle = top + height / 2
        axis.text(
            -_TEXT / cell_width,
            middle,
            "\n".join(wrapped[name]),
            ha="left",
            va="center",
            fontsize=6.5,
        )
        for column, experiment in enumerate(experiments):
            cell = rows[(rows["claim"] == name) & (rows["experiment"] == experiment)]
            verdict = cell["experiment_verdict"].iloc[0]
            color = colors.get(verdict, "white")
            axis.add_patch(
                Rectangle((column, top), 1, height, fc=color, ec="white", lw=1.5, alpha=0.75)
            )
            if verdict in _MARKS:
                axis.text(
                    column + 0.5,
                    middle,
                    f"{_MARKS[verdict]}\n{_deciding(cell)}",
                    ha="center",
                    va="center",
                    fontsize=6,
                    linespacing=1.1,
                )
        top += height
    axis.set_xlim(-_TEXT / cell_width, number)
    axis.set_ylim(top, 0)
    axis.set_xticks(
        [column + 0.5 for column in range(len(experiments))],
        [name.replace("_", "\n") for name in experiments],
        fontsize=6.5,
    )
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    handles = [
        Patch(color=color, alpha=0.75, label=f"{_MARKS[verdict]} {verdict}")
        for verdict, color in colors.items()
    ]
    handles.append(Patch(fc="white", ec="0.7", label="cannot speak to it"))
    figure.legend(handles=handles, ncols=4, loc="outside lower center")
    style.save(figure, outputs)


def _deciding(cell: pd.DataFrame) -> str:
    """The effect that decided: the first one with the verdict of the whole."""
    decides = cell[cell["effect_verdict"] == cell["experiment_verdict"].iloc[0]]
    row = decides.iloc[0]
    return f"{row['value']:.2g}\n({row['low']:.2g}, {row['high']:.2g})"
