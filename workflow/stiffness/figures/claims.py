"""The verdicts on the paper's claims at a glance: one cell per claim and experiment."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from stiffness.figures import style
from stiffness.files import rows

_MARKS = {"supported": "✓", "contradicted": "✗", "not decided": "?"}
_STRONG, _PALE = 0.8, 0.22  # opacity of evidence, and of what is none
_WIDTH = 44  # letters of a claim's text on a line
_TEXT, _CELL = 2.5, 1.0  # inches of that text, and of a cell at the least
_GAP = 0.12  # between the two groups of experiments, in cells


def draw(
    table: pd.DataFrame,
    texts: Mapping[str, str],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw the verdicts: colour and sign, with the first effect that decides below them.

    Experiments with a verdict that counts stand on the left; cells that are no evidence for the
    paper are pale.

    Args:
        table: the table of claims, as ``verdicts.claims_table`` makes it.
        texts: each claim in words.
        options: width (inches; more for many experiments), colors (supported, contradicted, not
            decided).
        outputs: paths of the picture.
    """
    counting = rows(table, counts=True, experiment_verdict=set(_MARKS))
    strong = list(dict.fromkeys(counting["experiment"]))
    pale = [name for name in dict.fromkeys(table["experiment"]) if name not in strong]
    gap = _GAP if strong and pale else 0
    lefts = {name: place + gap * (name in pale) for place, name in enumerate([*strong, *pale])}
    claims = list(dict.fromkeys(table["claim"]))
    wrapped = {
        name: textwrap.wrap(f"{name}  {texts[name]}", _WIDTH, subsequent_indent="      ")
        for name in claims
    }
    heights = [max(2.9, len(wrapped[name]) + 0.5) for name in claims]
    number = max(len(lefts), 1) + gap
    cell_width = max((options["width"] - _TEXT) / number, _CELL)
    figure, axis = plt.subplots(
        figsize=(_TEXT + number * cell_width, 0.135 * sum(heights) + 1.9), layout="constrained"
    )
    colors = dict(zip(_MARKS, options["colors"], strict=True))
    top = 0.0
    for name, height in zip(claims, heights, strict=True):
        axis.text(
            -_TEXT / cell_width,
            top + height / 2,
            "\n".join(wrapped[name]),
            ha="left",
            va="center",
            fontsize=6.5,
        )
        for experiment, left in lefts.items():
            _cell(axis, rows(table, claim=name, experiment=experiment), left, top, height, colors)
        top += height
    axis.set_xlim(-_TEXT / cell_width, number)
    axis.set_ylim(top, 0)
    names = [name.replace("_", "\n") for name in lefts]
    axis.set_xticks([left + 0.5 for left in lefts.values()], names, fontsize=6.5)
    axis.xaxis.tick_top()
    axis.set_yticks([])
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    title = "Verdicts on the paper's claims"
    if not strong:
        title += (
            "\nNone of the paper's experiments has been run: what is shown is no evidence for it"
        )
    figure.suptitle(title, fontsize=8)
    handles = [
        Patch(color=color, alpha=_STRONG, label=f"{_MARKS[verdict]} {verdict}")
        for verdict, color in colors.items()
    ]
    handles += [
        Patch(color=options["colors"][0], alpha=_PALE, label="pale: no evidence for the paper"),
        Patch(fc="white", label="– cannot speak to it"),
    ]
    figure.legend(handles=handles, ncols=3, loc="outside lower center")
    style.save(figure, outputs)


def _cell(
    axis: Axes,
    cell: pd.DataFrame,
    left: float,
    top: float,
    height: float,
    colors: Mapping[str, str],
) -> None:
    """Draw one claim on one experiment; ``cell`` holds its effects."""
    verdict, counts = cell[["experiment_verdict", "counts"]].iloc[0]
    shown = (left + 0.5, top + height / 2)
    if verdict not in _MARKS:
        axis.text(*shown, "–", ha="center", va="center", fontsize=6, color="0.5")
        return
    face = (colors[verdict], _STRONG if counts else _PALE)
    axis.add_patch(Rectangle((left, top), 1, height, fc=face, ec="white", lw=1.5))
    row = rows(cell, effect_verdict=verdict).iloc[0]
    text = f"{_MARKS[verdict]}\n{row['value']:.2g}\n({row['low']:.2g}, {row['high']:.2g})"
    axis.text(
        *shown,
        text.replace("inf", "∞").replace("nan", "–"),
        ha="center",
        va="center",
        fontsize=6,
        linespacing=1.1,
        color="black" if counts else "0.35",
    )
