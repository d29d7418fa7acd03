"""Stiffness by layer: what is drawn where, and on which scale."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from stiffness.figures import layers, style
from stiffness.plan.config import Figures

OPTIONS = Figures().model_dump()["layers"]
STEPS = {0: 0.0, 50: 1.0}
LAYERS = {"0": "Conv2d", "3": "Conv2d", "10": "Linear"}
LIMITS = {"0": 2.0, "3": 1.0, "10": 1.0}
CROSSINGS = {"0": "measured", "3": "extrapolated", "10": "none"}


def tables(status: str = "ok", names: dict[str, str] = LAYERS) -> dict[str, Any]:
    key = {"experiment": "some_net", "lr": "1e-3", "seed": 0, "status": status}
    history, whole, summary, distance, lengths = [], [], [], [], []
    for step, epoch in STEPS.items():
        history.append(key | {"step": step, "epoch": epoch, "validation_accuracy": 0.5})
        for metric in ("sign", "cosine"):
            at = {"step": step, "epoch": epoch, "metric": metric, "pair_mode": "train-val"}
            for quantity, value in (("within", 0.8), ("between", 0.1)):
                interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
                whole.append(key | at | {"quantity": quantity} | interval)
            for depth, (layer, kind) in enumerate(names.items()):
                here = at | {"seed": 0, "depth": depth, "layer": layer, "kind": kind}
                for quantity, value in (("within", 0.7), ("between", 0.2)):
                    value -= 0.05 * depth
                    row = here | {"quantity": quantity, "value": value}
                    row |= {"low": value - 0.1, "high": value + 0.1}
                    summary.append(row)
                    # Must not be drawn: another mode, another seed.
                    summary.append(row | {"pair_mode": "val-val", "value": 9.0})
                    summary.append(row | {"seed": 1, "value": 9.0})
                for place in (0.2, 0.6):
                    interval = {"value": 0.5 - place, "low": 0.1, "high": 0.4, "n_pairs": 9}
                    distance.append(here | {"distance": place} | interval)
                crossing = CROSSINGS.get(layer, "measured")
                found = crossing != "none"
                fit = {
                    "crossing": crossing,
                    "value": 0.6 / (depth + 1) if found else np.nan,
                    "low": 0.1 if found else np.nan,
                    "high": np.inf if found else np.nan,
                    "slope": -1.0,
                    "intercept": 0.6,
                    "max_distance": 0.7,
                    "median_distance": 0.4 / (depth + 1),
                    "limit": LIMITS.get(layer, 1.0),
                }
                for estimator in ("line", "monotone"):
                    lengths.append(here | {"estimator": estimator} | fit)
    return {
        "runs": pd.DataFrame([key | {"epochs": 1.0}]),
        "history": pd.DataFrame(history),
        "summary": pd.DataFrame(whole),
        "by_layer": {
            "summary": pd.DataFrame(summary),
            "distance": pd.DataFrame(distance),
            "critical_length": pd.DataFrame(lengths),
        },
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    kept: list[plt.Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def draw(made: dict[str, Any], **options: Any) -> plt.Figure:
        given = {"learning_rate": "1e-3", "stages": [0, 1], "outputs": []}
        layers.draw(**made, **given, options=OPTIONS | options)
        return kept[-1]

    yield draw
    plt.close("all")


def points(axis: plt.Axes, marker: str, filled: bool | None = None) -> list[float]:
    """Heights of the marks, from the left."""
    lines = [line for line in axis.lines if line.get_marker() == marker]
    if filled is not None:
        lines = [
            line for line in lines if (to_hex(line.get_markerfacecolor()) != "#ffffff") == filled
        ]
    found = [point for line in lines for point in line.get_xydata()]
    return [round(float(y), 6) for x, y in sorted(map(tuple, found))]


def test_each_layer_stands_at_its_depth_and_the_whole_network_beside_them(drawn: Any) -> None:
    for axis in drawn(tables()).axes[:2]:
        assert points(axis, "o") == [0.7, 0.7, 0.65, 0.65, 0.6, 0.6, 0.8, 0.8]
        assert points(axis, "s") == [0.2, 0.2, 0.15, 0.15, 0.1, 0.1, 0.1, 0.1]
        names = [label.get_text() for label in axis.get_xticklabels()]
        assert names == ["Conv2d\n0", "Conv2d\n3", "Linear\n10", "whole\nnetwork"]


def test_xi_is_drawn_as_it_is_and_in_units_of_the_median_distance(drawn: Any) -> None:
    _, _, absolute, relative, *_ = drawn(tables()).axes
    assert points(absolute, "o", filled=True) == [0.6, 0.6]
    assert points(absolute, "o", filled=False) == [0.3, 0.3]
    assert points(relative, "o", filled=True) == [1.5, 1.5]
    assert points(relative, "o", filled=False) == [1.5, 1.5]
    for axis in (absolute, relative):
        crosses = points(axis, "x")
        assert len(crosses) == 2
        assert min(crosses) > 30
        low, high = axis.get_ylim()
        assert low < 0.5
        assert max(crosses) < high


def test_what_is_above_the_axis_is_an_arrow(drawn: Any) -> None:
    made = tables()
    far = made["by_layer"]["critical_length"]
    far.loc[far["layer"] == "3", "value"] = 40.0
    axis = drawn(made).axes[2]
    assert len(points(axis, "^")) == 2
    assert points(axis, "o", filled=False) == []


def test_what_cannot_be_is_shaded_a_layer_at_a_time(drawn: Any) -> None:
    axis = drawn(tables()).axes[2]
    shades = sorted(
        (float(path.vertices[:, 0].min()), float(path.vertices[:, 1].min()))
        for area in axis.collections
        for path in area.get_paths()
        if len(path.vertices) > 4
    )
    assert shades == [(-0.5, 2.0), (0.5, 1.0), (1.5, 1.0)]


def test_a_panel_a_layer_at_the_last_stage(drawn: Any) -> None:
    figure = drawn(tables())
    panels = figure.axes[4:]
    titles = [axis.get_title().split("\n") for axis in panels]
    assert [title[0] for title in titles] == ["Conv2d 0", "Conv2d 3", "Linear 10"]
    assert titles[0][1].startswith(r"$\xi$ = ")
    assert titles[2][1] == "no crossing"
    assert panels[0].get_xlim() == (0, pytest.approx(0.77))
    text = " ".join(text.get_text() for text in figure.findobj(plt.Text))
    assert "distance between what the layer reads, epoch 1" in text


def test_deep_networks_have_few_names_and_five_panels(drawn: Any) -> None:
    names = {f"encoder.layer.{number}.query": "Linear" for number in range(60)}
    figure = drawn(tables(names=names))
    assert len(figure.axes[2].get_xticks()) == 20
    assert figure.axes[2].get_xticklabels()[1].get_text() == "3.query"
    assert len(figure.axes[4:]) == 5
    assert figure.axes[-1].get_title().startswith("Linear 59.query\n")


def test_layers_without_distances_leave_the_lower_panels_empty(drawn: Any) -> None:
    made = tables()
    for name in ("distance", "critical_length"):
        made["by_layer"][name] = made["by_layer"][name].iloc[:0]
    assert len(drawn(made).axes) == 4


def test_a_dead_run_is_said_to_be_dead(drawn: Any) -> None:
    figure = drawn(tables("diverged"))
    assert not figure.axes
    assert "diverged" in figure.texts[0].get_text()


def test_the_files_are_pictures(tmp_path: Path) -> None:
    outputs = [tmp_path / "a.pdf", tmp_path / "a.png"]
    layers.draw(**tables(), learning_rate="1e-3", stages=[0, 1], options=OPTIONS, outputs=outputs)
    assert all(path.stat().st_size > 5000 for path in outputs)
