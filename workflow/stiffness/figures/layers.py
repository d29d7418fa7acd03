"""Stiffness by layer: each layer's own gradient, and xi in what each layer reads.

The first version of the paper finds a critical distance in every layer's representation, and
smaller stiff domains in deeper layers. Distances of different layers are not on one scale: behind a
ReLU none exceeds 1, and deep in a trained network those of a class are short. So xi stands both as
it is and relative to the median distance of the pairs that it is fitted to.
"""

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
from matplotlib.ticker import MaxNLocator, NullLocator

from stiffness.figures import style
from stiffness.figures.critical_length import MARKERS, mark_handles
from stiffness.figures.distance import legend as distance_legend
from stiffness.figures.distance import panel as distance_panel
from stiffness.files import rows
from stiffness.measures.distance import NONE
from stiffness.measures.pairs import METRICS
from stiffness.training.runs import select_line_fit
from stiffness.training.stages import Stage, reference_stages

_HIGHEST = 30.0
_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_BEYOND, _NONE, _TOP = 38.0, 55.0, 75.0  # "above the axis", "no crossing", and the axis's end
_PANELS = 5  # of stiffness against distance
_NAMED = 24  # layers that have room for a name
_LONGEST = 16  # characters of a name that is shown whole
_MARKS = (("within", "within classes", "o", "-"), ("between", "between classes", "s", (0, (3, 2))))


def draw(
    runs: pd.DataFrame,
    history: pd.DataFrame,
    summary: pd.DataFrame,
    by_layer: Mapping[str, pd.DataFrame],
    learning_rate: str,
    stages: Sequence[Any],
    options: Mapping[str, Any],
    outputs: Sequence[str | Path],
) -> None:
    """Draw stiffness by layer (top), xi by layer (middle), and stiffness against distance (bottom).

    The bottom row shows the last stage and at most five layers, one panel per layer.

    Args:
        runs, history, summary: an experiment's tables.
        by_layer: tables of the reference learning rate ("summary", "distance", "critical_length"),
            each with a column seed.
        options: width, height (inches), palette (of stages), color, pair_mode, metric (of xi).
    """
    seed, status = style.reference_run(runs, learning_rate)
    figure = plt.figure(figsize=(options["width"], options["height"]), layout="constrained")
    mode = f"{style.MODE_NAMES[options['pair_mode']]} pairs"
    title = style.heading(runs, mode, "95 % intervals", learning_rate=learning_rate, seed=seed)
    if style.refuse_dead(figure, title, status, outputs):
        return
    chosen = reference_stages(runs, history, learning_rate, stages)
    shades = style.colors(options["palette"], len(chosen))

    def shown(table: pd.DataFrame) -> pd.DataFrame:
        steps = [stage.step for stage in chosen]
        return rows(table, seed=seed, pair_mode=options["pair_mode"], step=steps)

    blocks = shown(by_layer["summary"])
    layers = blocks[["depth", "layer", "kind"]].drop_duplicates().sort_values("depth")
    whole = shown(rows(summary, lr=learning_rate))
    upper, middle, lower = figure.subfigures(3, 1, height_ratios=[1.05, 1, 0.95], squeeze=False)[
        :, 0
    ]
    _blocks(upper, blocks, whole, layers, chosen, shades)
    lengths = shown(by_layer["critical_length"])
    _lengths(middle, lengths, layers, chosen, shades, options["metric"])
    _distances(lower, shown(by_layer["distance"]), lengths, layers, chosen[-1], options)
    figure.suptitle(title, fontsize=8)
    style.save(figure, outputs)


def relative(lengths: pd.DataFrame) -> pd.DataFrame:
    """Divide critical lengths by the median distance of the pairs that they are fitted to."""
    scaled, names = lengths.copy(), ["value", "low", "high"]
    scaled[names] = lengths[names].div(lengths["median_distance"], axis=0)
    return scaled


def _blocks(
    figure: SubFigure,
    blocks: pd.DataFrame,
    whole: pd.DataFrame,
    layers: pd.DataFrame,
    stages: Sequence[Stage],
    shades: Sequence[Any],
) -> None:
    """Draw a layer's stiffness against its depth, and the whole gradient's beside it."""
    axes = figure.subplots(1, len(METRICS), sharey=True)
    end = len(layers)
    for axis, metric in zip(axes, METRICS, strict=True):
        for number, (stage, color) in enumerate(zip(stages, shades, strict=True)):
            shift = _shift(number, len(stages))
            for quantity, _, marker, dashes in _MARKS:
                by_depth, of_all = (
                    rows(table, metric=metric, quantity=quantity, step=stage.step)
                    for table in (blocks.sort_values("depth"), whole)
                )
                fill = color if quantity == "within" else "white"
                looks = {"color": color, "marker": marker, "mfc": fill, "ms": 3, "mew": 0.8}
                at = [end + shift] * len(of_all)
                for x, one, line in (
                    (by_depth["depth"] + shift, by_depth, dashes),
                    (at, of_all, ""),
                ):
                    axis.plot(x, one["value"], lw=0.8, ls=line, **looks)
                    axis.vlines(x, one["low"], one["high"], color=color, lw=0.8)
        axis.axhline(0, color="0.6", lw=0.6, zorder=0)
        axis.axvline(end - 0.5, color="0.8", lw=0.6, zorder=0)
        axis.set_title(style.METRIC_NAMES[metric])
        _layer_axis(axis, layers, extra="whole\nnetwork")
    axes[0].set_ylabel("stiffness of the layer's\nown gradient")
    handles: list[Artist] = [
        Line2D([], [], color=color, lw=2, label=style.stage_name(stage))
        for stage, color in zip(stages, shades, strict=True)
    ]
    handles += [
        Line2D([], [], color="0.3", marker=marker, ls=dashes, lw=0.8, ms=3.5, label=label)
        for (quantity, label, marker, dashes) in _MARKS
    ]
    handles[-1].set_markerfacecolor("white")  # type: ignore[attr-defined]
    figure.legend(handles=handles, loc="outside right center")


def _lengths(
    figure: SubFigure,
    lengths: pd.DataFrame,
    layers: pd.DataFrame,
    stages: Sequence[Stage],
    shades: Sequence[Any],
    metric: str,
) -> None:
    """Draw xi of the fitted line against depth, as it is and relative to the median distance."""
    lines = select_line_fit(rows(lengths, metric=metric))
    scales = (
        (lines, r"critical length $\xi$"),
        (relative(lines), r"$\xi$ / median distance"),
    )
    for axis, (table, name) in zip(figure.subplots(1, 2), scales, strict=True):
        for number, (stage, color) in enumerate(zip(stages, shades, strict=True)):
            at_stage = rows(table, step=stage.step).sort_values("depth")
            _marks(axis, at_stage, _shift(number, len(stages)), color)
        axis.set_yscale("log")
        values = table.loc[table["crossing"] != NONE, "value"]
        axis.set_ylim(0.8 * min(0.5, float(values.min()) if len(values) else 0.5), _TOP)
        bottom = axis.get_ylim()[0]
        ticks = [tick for tick in _TICKS if tick > bottom]
        axis.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_ylabel(f"{name}\n({style.METRIC_NAMES[metric]})")
        if table is lines:
            for depth, limit in lines[["depth", "limit"]].drop_duplicates().to_numpy(float):
                edges = [depth - 0.5, depth + 0.5]
                axis.fill_between(edges, limit, _TOP, color="0.93", lw=0, zorder=0)
        else:
            axis.axhline(1, color="0.6", lw=0.6, zorder=0)
        _layer_axis(axis, layers)
        axis.set_xlabel("distance between what this layer reads")
    handles = mark_handles(far="no two are\nso far apart")
    figure.legend(handles=handles, loc="outside right center")


def _marks(axis: Axes, fits: pd.DataFrame, shift: float, color: Any) -> None:
    crossing = fits[fits["crossing"] != NONE]
    drawn = crossing[crossing["value"] <= _HIGHEST]
    low, high = drawn["low"].clip(lower=1e-3), drawn["high"].clip(upper=_TOP)
    axis.vlines(drawn["depth"] + shift, low, high, color=color, lw=0.8)
    for status, (marker, filled) in MARKERS.items():
        some = rows(drawn, crossing=status)
        looks = {"ms": 3.5, "mew": 0.8, "color": color, "mfc": color if filled else "white"}
        axis.plot(some["depth"] + shift, some["value"], marker, **looks)
    beyond = crossing[crossing["value"] > _HIGHEST]
    looks = {"ms": 3.5, "mew": 0.8, "color": color, "mfc": "white"}
    axis.plot(beyond["depth"] + shift, [_BEYOND] * len(beyond), "^", **looks)
    none = rows(fits, crossing=NONE)
    axis.plot(none["depth"] + shift, [_NONE] * len(none), "x", **looks)


def _distances(
    figure: SubFigure,
    distance: pd.DataFrame,
    lengths: pd.DataFrame,
    layers: pd.DataFrame,
    stage: Stage,
    options: Mapping[str, Any],
) -> None:
    """Draw stiffness of the whole gradient against distance, with one panel per layer."""
    bins, fits = (
        rows(table, metric=options["metric"], step=stage.step) for table in (distance, lengths)
    )
    measured = rows(layers, layer=set(bins["layer"]))
    number = min(_PANELS, len(measured))
    if number == 0:
        return
    places = np.unique(np.linspace(0, len(measured) - 1, number).round().astype(int))
    axes = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]
    for axis, place in zip(axes, places, strict=True):
        layer = measured.iloc[place]["layer"]
        line, monotone = (
            rows(fits, layer=layer, estimator=name).iloc[0] for name in ("line", "monotone")
        )
        xi = line["value"] if line["crossing"] != NONE else 0.0
        reach = 1.1 * np.nanmax([line["max_distance"], xi if xi < line["limit"] else 0.0])
        most = float(min(line["limit"], reach))
        found = distance_panel(
            axis, rows(bins, layer=layer), line, monotone, options["color"], most
        )
        axis.set_xlim(0, most)
        axis.xaxis.set_major_locator(MaxNLocator(3))
        name = _name(measured.iloc[place])
        name = name if len(name) > _LONGEST else name.replace("\n", " ")
        axis.set_title(f"{name}\n{found}", fontsize=6)
        axis.set_xlabel("distance")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(max(min(low, -0.08), -1.08), min(max(high, 0.3), 1.08))
    axes[0].set_ylabel(f"{style.METRIC_NAMES[options['metric']]}\nwithin classes")
    stage_name = style.stage_name(stage).replace("\n", " ")
    figure.suptitle(f"distance between what the layer reads, {stage_name}", fontsize=8)
    distance_legend(figure)


def _shift(number: int, count: int) -> float:
    """Return how far a stage's marks move aside, so that those of all stages are seen."""
    return 0.5 * ((number + 0.5) / count - 0.5)


def _name(layer: pd.Series) -> str:
    return f"{layer['kind']}\n{_short(layer['layer'])}"


def _short(name: str) -> str:
    """Shorten a long path in the network to its last number and at most two names after it."""
    parts = name.split(".")
    if len(name) <= _LONGEST:
        return name
    numbers = [place for place, part in enumerate(parts) if part.isdigit()]
    after = parts[numbers[-1] + 1 :] if numbers else parts
    return ".".join([*(parts[place] for place in numbers[-1:]), *after[-2:]])


def _layer_axis(axis: Axes, layers: pd.DataFrame, extra: str = "") -> None:
    """Name the layers as in PyTorch, from the input to the output, as far as there is room."""
    number = len(layers)
    if number <= 6:
        ticks, names = list(range(number)), [_name(row) for _, row in layers.iterrows()]
        rotation = 0
    else:
        ticks = list(range(0, number, -(-number // _NAMED)))
        names = [_short(str(layers["layer"].iloc[tick])) for tick in ticks]
        rotation = 90
    if extra:
        ticks, names = [*ticks, number], [*names, extra.replace("\n", " ") if rotation else extra]
    axis.set_xticks(ticks, names, rotation=rotation)
    axis.set_xlim(-0.5, number - 0.5 + bool(extra))
