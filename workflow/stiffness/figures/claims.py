"""The verdicts on the paper's claims: every claim with the effects that decided it."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from stiffness.figures import style
from stiffness.files import rows

_MARKS = {"supported": "✓", "contradicted": "✗", "not decided": "?", "too short": "…"}
_LINE = 0.135  # inches from one line to the next
_SIZE = 6.5  # points
# Where columns begin, in inches of a picture that is 7 inches wide.
_CHIP, _NAME, _EFFECT, _VALUE = 0.3, 0.5, 2.0, 5.55
_WIDE = 7.0
_LETTERS = 0.0475  # inches of a letter, on average
_OTHERS = "no evidence: "
_SILENT = "No experiment that has been run speaks to these claims."


def draw(
    table: pd.DataFrame,
    texts: Mapping[str, str],
    extents: Mapping[str, str],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw a list: each claim, and below it a line per experiment whose verdict counts.

    A line has the verdict of the experiment, its name, and the first effect that decides, with its
    value and interval. Experiments that are no evidence for the paper stand together in one pale
    line, by their verdicts alone; where there are no others, they have lines of their own, pale.
    Claims of which no experiment says anything stand at the end.

    Args:
        table: the table of claims, as ``verdicts.claims_table`` makes it.
        texts: each claim in words.
        extents: the seeds and epochs of each experiment, in words.
        options: width (inches), colors (supported, contradicted, not decided).
        outputs: paths of the picture.
    """
    of_verdicts = [*options["colors"], options["colors"][-1]]  # too short: not decided either
    colors = dict(zip(_MARKS, of_verdicts, strict=True))
    speaks = table[table["experiment_verdict"].isin(_MARKS)]
    evidence = bool(speaks["counts"].any())
    blocks, silent = [], []
    for name in dict.fromkeys(table["claim"]):
        of_claim = rows(speaks, claim=name)
        title = _wrap(_title(name, texts[name]), _WIDE - _CHIP - 1.3)
        shown = rows(of_claim, counts=evidence)
        lines = [_effect_line(of_one) for of_one in _by_experiment(shown)]
        others = _others(rows(of_claim, counts=False)) if evidence else ""
        verdict = rows(table, claim=name)["verdict"].iloc[0]
        if lines or others:
            blocks.append((verdict, title, lines, _wrap(others, _WIDE - _NAME)))
        else:
            silent.append(name)
    if silent:
        blocks.append(("", [_SILENT], [], _silent(silent, texts)))
    footer = _wrap("; ".join(f"{name}: {extents[name]}" for name in extents), _WIDE)
    number = sum(len(title) + len(lines) + len(pale) + 0.7 for _, title, lines, pale in blocks)
    number += len(footer) + 5
    scale = options["width"] / _WIDE
    height = number * _LINE
    figure = plt.figure(figsize=(options["width"], height * scale))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_xlim(-0.05, _WIDE + 0.05)
    axis.set_ylim(number, 0)
    axis.set_axis_off()
    write = _Writer(axis, scale)
    write(1, 0, "Verdicts on the paper's claims", size=9, weight="bold")
    legend = "    ".join(f"{mark} {verdict}" for verdict, mark in _MARKS.items())
    legend += "    Numbers: the effect that decided, with its 95 % interval."
    write(2.2, 0, legend)
    if not evidence:
        write(3.2, 0, "None of the paper's experiments has been run: this is no evidence for it.")
    place = 4.6
    opacity, shade = (0.8, "black") if evidence else (0.25, "0.35")
    for verdict, title, lines, pale in blocks:
        if verdict in colors:
            _chip(axis, 0, place, colors[verdict], 0.24, 0.8)
            write(place, 0.12, _MARKS[verdict], ha="center")
        for line in title:
            write(place, _CHIP, line, weight="bold")
            place += 1
        for one, experiment, effect, value in lines:
            _chip(axis, _CHIP, place, colors[one], 0.16, opacity)
            write(place, _CHIP + 0.08, _MARKS[one], ha="center", color=shade)
            write(place, _NAME, experiment, color=shade)
            write(place, _EFFECT, effect, color=shade)
            write(place, _WIDE, value, ha="right", color=shade)
            place += 1
        for line in pale:
            write(place, _NAME, line, color="0.45", style="italic")
            place += 1
        place += 0.7
    for line in footer:
        write(place, 0, line, color="0.45")
        place += 1
    style.save(figure, outputs)


class _Writer:
    """Writes words at a line and a distance from the left in inches."""

    def __init__(self, axis: Axes, scale: float) -> None:
        self.axis, self.scale = axis, scale

    def __call__(self, line: float, left: float, words: str, **looks: Any) -> None:
        size = looks.pop("size", _SIZE) * self.scale
        self.axis.text(left, line, words, va="center", fontsize=size, **looks)


def _chip(axis: Axes, left: float, line: float, color: str, width: float, opacity: float) -> None:
    place = (left, line - 0.42)
    axis.add_patch(Rectangle(place, width, 0.84, fc=color, ec="none", alpha=opacity))


def _title(name: str, text: str) -> str:
    """The heading of a claim: what "C3 float32" repeats of "C3" is not said again."""
    _, _, arithmetic = name.partition(" ")
    return (
        f"{name}  The same with {arithmetic} loss gradients." if arithmetic else f"{name}  {text}"
    )


def _silent(names: Sequence[str], texts: Mapping[str, str]) -> list[str]:
    """Lines for claims of which nothing is said; those of other arithmetics share one."""
    own = [name for name in names if " " not in name]
    others = [name for name in names if " " in name]
    lines = [f"{name}  {texts[name]}" for name in own]
    if others:
        lines.append(f"{', '.join(others)}: the same with other loss gradients.")
    return [part for line in lines for part in _wrap(line, _WIDE - _NAME)]


def _wrap(words: str, inches: float) -> list[str]:
    return textwrap.wrap(words, int(inches / _LETTERS))


def _by_experiment(table: pd.DataFrame) -> list[pd.DataFrame]:
    return [of_one for _, of_one in table.groupby("experiment", sort=False)]


def _effect_line(of_one: pd.DataFrame) -> tuple[str, str, str, str]:
    """Return the verdict, the experiment, the effect that decided and its value, in words.

    Where no effect did, as in a run that is too short, the reason stands in its place.
    """
    verdict = str(of_one["experiment_verdict"].iloc[0])
    deciding = rows(of_one, effect_verdict=verdict)
    row = (deciding if len(deciding) else of_one).iloc[0]
    decided = len(deciding) > 0
    effect = str(row["effect"] if decided else row["reason"])
    more = f" (and {len(deciding) - 1} more)" if len(deciding) > 1 else ""
    effect = _cut(effect, _VALUE - _EFFECT - len(more) * _LETTERS)
    interval = f" ({_number(row['low'])} to {_number(row['high'])})"
    interval = ", no interval" if np.isnan(row["low"]) else interval
    value = _number(row["value"]) + interval if decided else ""
    return verdict, _cut(str(row["experiment"]), _EFFECT - _NAME), effect + more, value


def _cut(words: str, inches: float) -> str:
    room = int(inches / _LETTERS)
    return words if len(words) <= room else f"{words[: room - 1].rstrip()}…"


def _others(table: pd.DataFrame) -> str:
    """Return what the experiments that are no evidence say, by their verdicts."""
    named: dict[str, list[str]] = {}
    for of_one in _by_experiment(table):
        about = of_one.iloc[0]
        named.setdefault(str(about["experiment_verdict"]), []).append(str(about["experiment"]))
    parts = [f"{_MARKS[verdict]} {', '.join(names)}" for verdict, names in named.items()]
    return _OTHERS + "; ".join(parts) if parts else ""


def _number(value: float) -> str:
    if np.isnan(value):
        return "–"
    return f"{value:.2g}".replace("inf", "∞").replace("-", "−")
