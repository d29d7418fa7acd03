"""Every kind of figure on experiments of different shapes: no text hides another, none is cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from inspect import signature
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from stiffness.data.hierarchy import Hierarchy, read_hierarchy
from stiffness.figures import style
from stiffness.figures.siblings import NAMES
from stiffness.gradients.arithmetic import ARITHMETICS
from stiffness.measures import extremes
from stiffness.measures.comparison import EPOCH, LOSS
from stiffness.measures.detection import SCORES
from stiffness.measures.pairs import METRICS, PAIR_MODES
from stiffness.measures.stopping import LAST_EPOCH, VALIDATION_LOSS
from stiffness.plan.kinds import KINDS

TOLERANCE = 1.5  # points, two pixels of a screen
EPOCHS = [0.0, 0.01, 0.1, 1.0, 10.0, 40.0]
CIFAR100 = Path(__file__).parents[3] / "workflow" / "hierarchies" / "cifar100.yaml"
FASHION = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker"]
FASHION += ["Bag", "Ankle boot"]


@dataclass
class Shape:
    """What an experiment is like."""

    name: str
    rates: list[str]
    seeds: list[int]
    stages: list[Any]
    hierarchy: Hierarchy
    layers: list[str]
    space: str = "input"
    dead: dict[tuple[str, int], str] = field(default_factory=dict)


def two_levels(*groups: list[str]) -> Hierarchy:
    names = [f"group {number}" for number, _ in enumerate(groups)]
    return Hierarchy(
        dict(zip(names, groups, strict=True)), {"first": names[:1], "others": names[1:]}
    )


SHAPES = {
    "digits": Shape(
        "digits_fc",
        ["3e-4", "1e-3", "3e-3"],
        [0],
        [0, 0.1, 1, "last"],
        two_levels(list("0123"), list("456"), list("789")),
        ["0", "3", "6", "10"],
    ),
    "a hundred classes": Shape(
        "cifar100_resnet", ["5e-4"], [0], ["last"], read_hierarchy(CIFAR100), ["stem.0"]
    ),
    "long names": Shape(
        "fashion_mnist_10k_noise50_cnn",
        ["1e-4", "3e-4", "1e-3", "2e-3", "3e-3"],
        [0, 1, 2],
        [0, {"accuracy": 0.35}, {"accuracy": 0.95}, 1, "last"],
        two_levels(FASHION[:5], FASHION[5:8], FASHION[8:]),
        [f"bert.encoder.layer.{n}.attention.output.dense" for n in range(12)],
        "bert.encoder.layer.11.attention.output.dense",
        {("3e-3", seed): "diverged" for seed in range(3)} | {("2e-3", 1): "at chance"},
    ),
}


SIBLINGS = [
    *NAMES,
    *("cosine_within_with_zeros", "cosine_between_with_zeros"),
]


# --- tables --------------------------------------------------------------------------------------


def product(**columns: Any) -> pd.DataFrame:
    """One row for each combination of the values."""
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


def measured(table: pd.DataFrame, value: Any, error: Any = 0.04) -> pd.DataFrame:
    return table.assign(value=value, low=value - error, high=value + error)


def at_checkpoints(table: pd.DataFrame) -> pd.DataFrame:
    steps = pd.DataFrame({"step": range(len(EPOCHS)), "epoch": EPOCHS})
    return table.merge(steps, how="cross")


def of_arithmetics(table: pd.DataFrame) -> pd.DataFrame:
    every = product(arithmetic=ARITHMETICS)
    return table.merge(every, how="cross").assign(n_pairs=100)


@cache
def tables(name: str) -> Mapping[str, Any]:
    """What any ``draw`` asks for, but options and outputs."""
    shape = SHAPES[name]
    names = sorted(shape.hierarchy.class_names)
    rate = shape.rates[len(shape.rates) // 2]
    runs = product(experiment=[shape.name], lr=shape.rates, seed=shape.seeds)
    keys = zip(runs["lr"], runs["seed"], strict=True)
    runs["status"] = [shape.dead.get(key, "ok") for key in keys]
    of_runs = list(runs)
    runs = runs.assign(epochs=EPOCHS[-1], onset_epoch=10.0 + runs["seed"], onset_reached=True)
    history = at_checkpoints(runs[of_runs])
    left = 1 - history["step"] / len(EPOCHS)  # from 1 down to near 0 at the end of training
    history = history.assign(train_loss=2.4 * left**3, validation_loss=2.3 * left + 0.1)
    history = history.assign(train_accuracy=1 - left, validation_accuracy=0.8 - 0.7 * left)
    measures = product(pair_mode=PAIR_MODES, metric=METRICS)
    groups = ["within", "between", "super_class", "super_super_class"]
    groups += [f"{group}_{part}" for group in groups[:2] for part in ("clean", "mislabelled")]
    key = ["experiment", "lr", "seed", "status", "step", "epoch"]
    rows = history[key].merge(measures, how="cross")
    summary = rows.merge(product(quantity=groups), how="cross")
    places = summary["quantity"].map(groups.index)
    summary = measured(summary, 0.9 - 0.15 * places - 0.05 * summary["step"])
    summary["n_pairs"] = np.where(places == 0, 10, 90)
    bins = rows.merge(product(distance=np.linspace(0.1, 1.3, 14)), how="cross")
    # Stiffness of one stage stays high, of another falls through 0.
    distance = measured(bins, 1 - 0.25 * bins["distance"] * bins["step"], 0.02)
    fits = rows.merge(product(estimator=["line", "monotone", "area"]), how="cross")
    crossings = np.array(["none", "extrapolated", "extrapolated", "misfit", "measured"])
    crossing = crossings[np.minimum(fits["step"], 4)]
    xi = np.where(crossing == "none", np.nan, 4 / np.maximum(fits["step"], 1))
    fits = measured(fits, xi, 0.1).assign(crossing=crossing, slope=-0.25 * fits["step"])
    fits = fits.assign(intercept=1.0, max_distance=1.35, median_distance=0.7, limit=2.0)
    fits = fits.assign(radius=1.1)
    beyond = (fits["estimator"] == "monotone") & (fits["crossing"] != "measured")
    fits.loc[beyond, ["crossing", "value", "high"]] = ["beyond the data", np.nan, np.inf]
    area = fits["estimator"] == "area"
    fits.loc[area, ["value", "low", "high"]] = [0.8, 0.7, 0.9]
    fits.loc[area, "crossing"] = "measured"
    reference = {"lr": rate, "seed": shape.seeds[0]}
    run = product(seed=shape.seeds[:1], step=range(len(EPOCHS)))
    of_layers = pd.DataFrame({"layer": shape.layers, "depth": range(len(shape.layers))})
    of_layers = of_layers.assign(kind="Conv2d")
    cells = run.merge(measures, how="cross").merge(
        product(class_a=names, class_b=names), how="cross"
    )
    order = {name: number for number, name in enumerate(names)}
    apart = (cells["class_a"].map(order) - cells["class_b"].map(order)).abs()
    classes = measured(cells, np.cos(apart) * 0.8).assign(lr=rate)
    whole = (classes["pair_mode"] == "train-train") & (classes["metric"] == "cosine")
    return {
        "runs": runs,
        "history": history,
        "summary": summary,
        "summaries": of_arithmetics(summary),
        "areas": measured(
            history[key].merge(product(score=SCORES), how="cross"),
            0.7,
        ),
        "siblings": of_arithmetics(
            measured(
                rows.drop(columns="metric")
                .drop_duplicates()
                .merge(product(quantity=SIBLINGS), how="cross"),
                0.4,
            )
        ),
        "confidence": of_arithmetics(
            measured(
                history[key].merge(
                    product(split=["train", "validation"], quantity=["confident", "zero", "wrong"]),
                    how="cross",
                ),
                0.3,
            )
        ),
        "classes": classes,
        "whole_set": classes[whole].assign(n_examples=60000),
        "distance": distance,
        "critical_length": fits,
        "by_layer": {
            name: table[(table[list(reference)] == pd.Series(reference)).all(axis=1)]
            .drop(columns=["lr", "experiment", "status"])
            .merge(of_layers, how="cross")
            for name, table in (
                ("summary", summary),
                ("distance", distance),
                ("critical_length", fits),
            )
        },
        **comparisons(shape),
        "extremes": contact_rows(names),
        "images": torch.arange(60 * 64).reshape(60, 1, 8, 8).to(torch.uint8),
        "learning_rate": rate,
        "learning_rates": shape.rates,
        "stages": shape.stages,
        "space": shape.space,
        "hierarchy": shape.hierarchy,
    }


def comparisons(shape: Shape) -> dict[str, pd.DataFrame]:
    """Learning rates at equal epoch and loss, and early stopping."""
    quantities = ["within", "between", "xi line", "xi monotone"]
    about = product(pair_mode=PAIR_MODES, metric=METRICS, quantity=quantities)
    levels = pd.DataFrame(
        {"by": [EPOCH] * 4 + [LOSS] * 4, "level": [1, 2, 5, 40, 1.9, 0.4, 0.1, 0.01]}
    )
    levels = levels.merge(product(lr=shape.rates), how="cross").merge(about, how="cross")
    order = product(by=[EPOCH, LOSS]).merge(about, how="cross")
    rules = [VALIDATION_LOSS, "sign stiffness", "cosine stiffness", LAST_EPOCH]
    stopping = product(lr=shape.rates, seed=shape.seeds, rule=rules)
    place = stopping["rule"].map(rules.index)
    return {
        "levels": measured(levels, 0.8),
        "order": order.assign(tau=-0.62, low=-0.81, high=-0.43, seeds=len(shape.seeds)),
        "stopping": stopping.assign(
            epoch=10.0 + place, reached=place != 1, validation_accuracy=0.9 - 0.01 * place
        ),
    }


def contact_rows(names: list[str]) -> pd.DataFrame:
    """Every example is taken for another class, and named."""
    groups = [(extremes.EXAMPLE, end, extremes.EXAMPLES) for end in (extremes.MOST, extremes.LEAST)]
    groups += [(extremes.PAIR, end, extremes.PAIRS) for end in (extremes.MOST, extremes.LEAST)]
    groups += [(extremes.OTHER, extremes.MOST, extremes.PAIRS)]
    rows = [
        (name, group, end, place, -0.25, place, place + 10, other, other, other, 0.5)
        for name, other in zip(names, names[::-1], strict=True)
        for group, end, number in groups
        for place in range(number)
    ]
    table = pd.DataFrame(rows, columns=extremes.COLUMNS)
    return table.merge(product(seed=[0], step=range(len(EPOCHS))), how="cross")


def across(made: Mapping[str, Any]) -> dict[str, Any]:
    """The same tables for three experiments."""
    names = [f"{made['runs']['experiment'].iloc[0]}{end}" for end in ("", "_sgd", "_batch128")]
    given = {"learning_rates": made["learning_rates"], "batch_size": 32}
    several = {
        name: pd.concat([made[name].assign(experiment=one) for one in names])
        for name in (
            "runs",
            "history",
            "summary",
            "critical_length",
            "summaries",
            "siblings",
            "confidence",
            "areas",
        )
    }
    sgd = {"name": "sgd", "momentum": 0.9}
    return {**made, **several} | {
        "columns": [
            {
                "experiment": name,
                "lr": made["learning_rate"],
                "share": share,
                "training_arithmetic": "keras" if share else "float32",
            }
            for name, share in zip(names, (0, 0.25, 0.9), strict=True)
        ],
        "experiments": [{"experiment": name, "optimizer": sgd} | given for name in names],
    }


def draw(kind: str, shape: str, outputs: list[Path]) -> None:
    about, made = KINDS[kind], dict(tables(shape))
    if about.across:
        made = across(made)
    if about.by_stage:
        made["stages"] = made["stages"][-1:]
    function = import_module(f"stiffness.figures.{about.module or kind}").draw
    given = made | {"options": about.looks().model_dump(), "outputs": outputs}
    function(**{name: given[name] for name in signature(function).parameters})


# --- boxes ---------------------------------------------------------------------------------------


@pytest.fixture
def figure(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Draws a kind of figure and returns it, without a file."""
    kept: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def make(kind: str, shape: str) -> Figure:
        draw(kind, shape, [])
        return kept[-1]

    yield make
    plt.close("all")


def boxes_of(figure: Figure) -> tuple[dict[Text, Bbox], dict[Legend, Bbox]]:
    """Where every text and every legend that is drawn stands."""
    texts: dict[Text, Bbox] = {}
    legends: dict[Legend, Bbox] = {}
    with pytest.MonkeyPatch.context() as patch:
        for kind, found in ((Text, texts), (Legend, legends)):

            def spy(self: Any, renderer: Any, own: Any = kind.draw, found: Any = found) -> None:
                own(self, renderer)
                found[self] = self.get_window_extent(renderer)

            patch.setattr(kind, "draw", spy)
        figure.draw_without_rendering()
    shown = {text: box for text, box in texts.items() if text.get_text().strip()}
    return {text: box for text, box in shown.items() if text.get_visible()}, legends


def faults(figure: Figure) -> list[str]:
    """Texts that hide one another, lie under a legend, or stick out of the figure."""
    texts, legends = boxes_of(figure)
    pixels = TOLERANCE * figure.dpi / 72
    found = []
    for (one, first), (other, second) in combinations(texts.items(), 2):
        if meet(first, second, pixels):
            found.append(f"{one.get_text()!r} overlaps {other.get_text()!r}")
    for text, box in texts.items():
        for legend, place in legends.items():
            if text not in legend.findobj(Text) and meet(box, place, pixels):
                found.append(f"{text.get_text()!r} lies under a legend")
        outside = min(box.x0, box.y0, figure.bbox.x1 - box.x1, figure.bbox.y1 - box.y1)
        if outside < -pixels:
            found.append(f"{text.get_text()!r} sticks out of the figure")
    return found


def meet(first: Bbox, second: Bbox, pixels: float) -> bool:
    width = min(first.x1, second.x1) - max(first.x0, second.x0)
    height = min(first.y1, second.y1) - max(first.y0, second.y0)
    return min(width, height) > pixels


# The longest names and the most curves are tried with every run of the tests.
@pytest.mark.parametrize(
    "shape",
    [pytest.param(name, marks=() if name == "long names" else pytest.mark.slow) for name in SHAPES],
)
@pytest.mark.parametrize("kind", KINDS)
def test_every_text_can_be_read(kind: str, shape: str, figure: Any) -> None:
    assert not faults(figure(kind, shape))
