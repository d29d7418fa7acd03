"""Losses and stiffness against epoch."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from figure_cases import (
    line_values,
    panels,
    tables,
    texts,
)
from matplotlib.figure import Figure

from stiffness.figures import (
    style,
    training_curves,
)
from stiffness.measures.pairs import METRICS, PAIR_MODES

pytestmark = pytest.mark.usefixtures("few_dots")


# --- training curves -----------------------------------------------------------------------------


def with_onset(reached: bool) -> dict[str, Any]:
    made = tables()
    made["runs"]["onset_reached"] = reached
    return made


def onset_line(figure: Figure):
    """Of the first of two seeds; the second's has no label of its own."""
    first, second = [
        line for line in figure.axes[0].lines if line.get_color() == training_curves._ONSET
    ]
    assert list(first.get_xdata()) == [1.0, 1.0]
    assert str(second.get_label()).startswith("_")
    return first


def test_the_onset_stands_in_every_panel(drawn):
    figure = drawn("training_curves", with_onset(True))
    for axis in panels(figure):
        assert any(list(line.get_xdata()) == [1.0, 1.0] for line in axis.lines)


def test_an_onset_not_reached_does_not_look_like_one(drawn):
    reached = onset_line(drawn("training_curves", with_onset(True)))
    not_reached = onset_line(drawn("training_curves", with_onset(False)))
    assert reached.get_linestyle() != not_reached.get_linestyle()
    assert reached.get_label() != not_reached.get_label()
    assert "epoch 1" in reached.get_label()


@pytest.mark.parametrize("metric", METRICS)
def test_training_curves_show_each_metric_in_its_column(drawn, metric):
    made = tables()
    other = made["summary"]["metric"] != metric
    made["summary"].loc[other, ["value", "low", "high"]] = 0.123
    figure = drawn("training_curves", made)
    for axis in panels(figure)[2:]:
        heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
        own = axis.get_subplotspec().colspan.start == list(METRICS).index(metric)
        assert np.isclose(heights, 0.123).any() != own


def test_training_curves_show_every_arithmetic_that_is_measured(drawn):
    made = tables()
    others = [
        made["summary"].assign(arithmetic=name, value=value, low=value, high=value)
        for name, value in (("float32", 0.77), ("keras", 0.11))
    ]
    figure = drawn("training_curves", made | {"summaries": pd.concat([made["summary"], *others])})
    values = line_values(figure)
    for value in (0.77, 0.11):
        assert np.isclose(values, value).any()
    for name in ("exact", "float32", "keras"):
        assert name in texts(figure)
    assert "exact" not in texts(drawn("training_curves"))


def test_training_curves_show_three_pair_modes(drawn):
    made = tables()
    for number, mode in enumerate(PAIR_MODES):
        rows = made["summary"]["pair_mode"] == mode
        made["summary"].loc[rows, "value"] = 0.2 + 0.01 * number
    values = line_values(drawn("training_curves", made))
    for number in range(3):
        assert np.isclose(values, 0.2 + 0.01 * number).any()


@pytest.mark.parametrize(
    "kind", ["stiffness_curves", "hierarchy_curves", "distance", "critical_length"]
)
def test_only_the_pair_mode_asked_for_is_drawn(kind, drawn):
    made = tables()
    for name in ("summary", "distance", "critical_length"):
        others = made[name]["pair_mode"] != "val-val"
        made[name].loc[others, ["value", "low", "high"]] = 0.987
    figure = drawn(kind, made, pair_mode="val-val")
    assert not np.isclose(line_values(figure), 0.987).any()
    assert style.MODE_NAMES["val-val"] in texts(figure)
