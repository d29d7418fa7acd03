"""Stiffness against distance, and critical lengths."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_cases import (
    CHECKPOINTS,
    REFERENCE,
    RUNS,
    base,
    draw,
    line_values,
    panels,
    tables,
    texts,
)
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from stiffness.figures import (
    distance,
)

pytestmark = pytest.mark.usefixtures("few_dots")


# --- distance ------------------------------------------------------------------------------------


def with_fit(estimator: str = "line", **changes: Any) -> dict[str, Any]:
    made = tables()
    rows = made["critical_length"]["estimator"] == estimator
    for name, value in changes.items():
        made["critical_length"].loc[rows, name] = value
    return made


NO_CROSSING = dict.fromkeys(["value", "low", "high"], np.nan) | {"crossing": "none"}


def found_xi(axis: plt.Axes) -> str:
    """What stands above a panel of xi."""
    return axis.get_title()


def test_a_fit_without_a_crossing_says_so(drawn):
    figure = drawn("distance", with_fit(**NO_CROSSING))
    assert texts(figure).count("no crossing") == 8
    for axis in panels(figure):
        assert r"\xi" not in found_xi(axis)
    assert "nan" not in texts(figure)


def test_an_extrapolated_crossing_says_so(drawn):
    figure = drawn("distance", with_fit(crossing="extrapolated", value=1.71, low=1.6, high=1.82))
    assert texts(figure).count("extrapolated") == 8 + 1  # and the legend
    assert texts(figure).count("1.71") == 8


def test_a_measured_crossing_is_given_with_its_interval(drawn):
    figure = drawn("distance", with_fit(value=0.83, low=0.72, high=0.94))
    for axis in panels(figure):
        text = found_xi(axis)
        assert "0.83 (0.72 to 0.94)" in text
        assert "extrapolated" not in text
        assert "no crossing" not in text


def test_an_undefined_interval_is_not_a_number_in_the_picture(drawn):
    figure = drawn("distance", with_fit(value=0.83, low=np.nan, high=np.nan))
    assert "0.83" in texts(figure)
    assert "nan" not in texts(figure)


def test_an_open_interval_is_drawn_to_the_edge_and_said_to_be_open(drawn):
    made = with_fit(value=0.83, low=0.72, high=np.inf)
    figure = drawn("distance", made)
    assert texts(figure).count("(0.72 to ∞)") == 8
    for axis in panels(figure):
        assert [0.72, 2.0] in [list(line.get_xdata()) for line in axis.lines]


def test_an_interval_off_the_axis_leaves_nothing_at_its_edge(drawn):
    figure = drawn("distance", with_fit(crossing="extrapolated", value=2.2, low=2.1, high=2.4))
    for axis in panels(figure):
        (bar,) = [
            line for line in axis.lines if line.get_color() == distance._LINE and not marks_of(line)
        ]
        assert not len(bar.get_xdata())


@pytest.mark.parametrize("kind", ["distance", "critical_length"])
def test_open_and_undefined_intervals_are_no_trouble(kind, tmp_path):
    made = with_fit(value=0.83)
    ends = [(0.7, np.inf), (np.nan, np.nan), (0.0, 1e9), (0.9, 0.95)]  # the last without the value
    for step, (low, high) in zip(CHECKPOINTS, ends, strict=True):
        rows = made["critical_length"]["step"] == step
        made["critical_length"].loc[rows, ["low", "high"]] = [low, high]
    made["distance"]["high"] = made["distance"]["value"] - 1e-9  # below its value by rounding
    draw(kind, made, [tmp_path / "a.png"])
    assert (tmp_path / "a.png").exists()


def test_the_monotone_crossing_has_a_mark_of_its_own_in_the_legend(drawn):
    figure = drawn("distance", with_fit("monotone", value=0.77, low=0.7, high=0.8))
    line, monotone = (
        crossing_marks(figure, base((REFERENCE, 0)) + 0.5),
        crossing_marks(figure, 0.77),
    )
    assert len(line) == len(monotone) == 8
    assert line[0].get_marker() != monotone[0].get_marker()
    assert line[0].get_color() != monotone[0].get_color()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        r"$\xi$ of the line (open: extrapolated; square: misfit)",
        r"$\xi$ of the best falling curve (arrow: beyond the data)",
    ]


def test_beyond_the_data_is_an_arrow_where_they_end_and_none_is_nothing(drawn):
    beyond = {"crossing": "beyond the data", "value": np.nan, "low": 0.9, "high": np.inf}
    figure = drawn("distance", with_fit("monotone", **beyond))
    arrows = crossing_marks(figure, 1.3)
    assert [arrow.get_marker() for arrow in arrows] == [">"] * 8
    for axis in panels(figure):
        assert [0.9, 2.0] in [list(line.get_xdata()) for line in axis.lines]
    figure = drawn("distance", with_fit("monotone", **NO_CROSSING))
    assert not crossing_marks(figure, 1.3)
    assert not [line for axis in panels(figure) for line in axis.lines if line.get_marker() == "|"]


def crossing_marks(figure: Figure, value: float) -> list:
    """The marks on the line y = 0 at ``value``."""
    return [
        line
        for axis in panels(figure)
        for line in axis.lines
        if list(line.get_xdata()) == [value] and list(line.get_ydata()) == [0]
    ]


def is_hollow(mark) -> bool:
    return to_rgba(mark.get_markerfacecolor()) != to_rgba(mark.get_markeredgecolor())


@pytest.mark.parametrize(("crossing", "hollow"), [("measured", False), ("extrapolated", True)])
def test_the_crossing_is_marked(drawn, crossing, hollow):
    figure = drawn("distance", with_fit(crossing=crossing, value=1.71, low=1.6, high=1.82))
    marks = crossing_marks(figure, 1.71)
    assert len(marks) == 8
    assert all(is_hollow(mark) == hollow for mark in marks)


def test_the_fit_is_drawn_differently_beyond_the_data(drawn):
    axis = panels(drawn("distance"))[0]
    level = base((REFERENCE, 0))
    height = 0.5 * level + 0.25 - 0.5 * 1.3
    ends = {
        line.get_linestyle()
        for line in axis.lines
        if [1.3, height] in np.round(line.get_xydata(), 9).tolist()
        or np.isclose(line.get_xydata(), [1.3, height]).all(axis=1).any()
    }
    assert len(ends) == 2


def test_points_without_an_interval_are_left_out(drawn):
    made = tables()
    assert np.isclose(line_values(drawn("distance", made)), base((REFERENCE, 0)) + 0.4).any()
    made["distance"][["low", "high"]] = np.nan
    assert not np.isclose(line_values(drawn("distance", made)), base((REFERENCE, 0)) + 0.4).any()


def test_too_few_pairs_for_a_fit_are_drawn_without_one(drawn):
    nothing = dict.fromkeys(["slope", "slope_low", "slope_high", "intercept"], np.nan)
    figure = drawn("distance", with_fit(**NO_CROSSING, **nothing))
    assert texts(figure).count("no crossing") == 8


# --- critical length -----------------------------------------------------------------------------

FITS = [
    ("extrapolated", 75.0),
    ("extrapolated", 3.5),
    ("measured", 0.8),
    ("none", np.nan),
]


@pytest.fixture
def one_of_each() -> dict[str, Any]:
    """One run: above the axis, extrapolated, measured, no crossing."""
    made = tables({(REFERENCE, 0): "ok"}, learning_rates=[REFERENCE])
    table = made["critical_length"]
    for step, (crossing, value) in zip(CHECKPOINTS, FITS, strict=True):  # by either estimator
        rows = table["step"] == step
        table.loc[rows, "crossing"] = crossing
        table.loc[rows, ["value", "low", "high"]] = [value, value - 0.1, value + 0.1]
    return made


def line_panels(figure: Figure) -> list[plt.Axes]:
    """The panels of the line's length; those of the area length stand below them."""
    return [axis for axis in panels(figure) if axis.get_subplotspec().rowspan.start < 2]


def marks(axis: plt.Axes) -> dict[str, list]:
    """Marks by shape; those with data only."""
    found: dict[str, list] = {}
    for line in axis.lines:
        if line.get_marker() not in ("None", "", None) and len(line.get_xdata()):
            found.setdefault(line.get_marker(), []).append(line)
    return found


def test_measured_points_are_filled_and_extrapolated_ones_hollow(drawn, one_of_each):
    for axis in line_panels(drawn("critical_length", one_of_each)):
        points = {float(line.get_ydata()[0]): is_hollow(line) for line in marks(axis)["o"]}
        assert points == {0.8: False, 3.5: True}


def test_no_crossing_is_a_cross_away_from_the_axis(drawn, one_of_each):
    for axis in line_panels(drawn("critical_length", one_of_each)):
        (cross,) = marks(axis)["x"]
        assert len(cross.get_ydata()) == 1
        assert max(axis.get_yticks()) < cross.get_ydata()[0] < axis.get_ylim()[1]


def test_values_above_the_axis_are_not_drawn_at_their_value(drawn, one_of_each):
    for axis in line_panels(drawn("critical_length", one_of_each)):
        heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
        assert np.nanmax(heights) < axis.get_ylim()[1] < 75
        corners = [path.vertices for line in axis.collections for path in line.get_paths()]
        assert np.nanmax(np.concatenate(corners)[:, 1]) < 10
        drawn_marks = marks(axis)
        (beyond,) = [drawn_marks[shape] for shape in drawn_marks if shape not in ("o", "x")]
        assert max(axis.get_yticks()) < beyond[0].get_ydata()[0] < axis.get_ylim()[1]
        assert beyond[0].get_ydata()[0] != marks(axis)["x"][0].get_ydata()[0]


def test_what_no_two_inputs_reach_is_shaded_from_2(drawn, one_of_each):
    for axis in line_panels(drawn("critical_length", one_of_each)):
        (shade,) = [patch for patch in axis.patches if patch.get_height() > 1]
        assert shade.get_y() == 2
        assert shade.get_y() + shade.get_height() >= axis.get_ylim()[1]


def test_no_line_bridges_a_checkpoint_without_a_value(drawn):
    made = tables({(REFERENCE, 0): "ok"}, learning_rates=[REFERENCE])
    gap = made["critical_length"]["step"] == 2
    made["critical_length"].loc[gap, ["value", "low", "high"]] = np.nan
    made["critical_length"].loc[gap, "crossing"] = "none"
    axis = panels(drawn("critical_length", made))[0]
    joined = [line for line in axis.lines if line.get_linestyle() == "-" and not marks_of(line)]
    heights = [list(line.get_ydata()) for line in joined if len(line.get_ydata()) == 4]
    assert heights
    assert all(np.isnan(height[1]) for height in heights)


def marks_of(line) -> bool:
    return line.get_marker() not in ("None", "", None)


def test_training_proceeds_to_the_right_in_both_columns(drawn):
    figure = drawn("critical_length")
    for axis in panels(figure):
        left, right = axis.get_xlim()
        assert (left > right) == bool(axis.get_subplotspec().colspan.start)


def test_points_are_geometric_means_over_the_seeds_of_a_rate(drawn):
    axis = panels(drawn("critical_length"))[1]
    found = {(round(x, 6), round(y, 6)) for line in marks(axis)["o"] for x, y in line.get_xydata()}
    of_rates = {lr: [base(run) for run in RUNS if run[0] == lr] for lr, _ in RUNS}
    expected = {
        (
            round(float(np.mean(levels)) * number, 6),
            round(float(np.prod([level + 0.5 for level in levels]) ** (1 / len(levels))), 6),
        )
        for levels in of_rates.values()
        for number in (1, 2, 3, 4)
    }
    assert found == expected


def test_there_is_no_mean_where_a_seed_has_no_crossing(drawn):
    made = tables()
    none = (made["critical_length"]["seed"] == 1) & (made["critical_length"]["step"] == 2)
    made["critical_length"].loc[none, ["value", "low", "high"]] = np.nan
    made["critical_length"].loc[none, "crossing"] = "none"
    for axis in line_panels(drawn("critical_length", made)):
        (cross,) = marks(axis)["x"]
        assert len(cross.get_ydata()) == 1
        assert sum(len(line.get_ydata()) for line in marks(axis)["o"]) == 7


def test_a_misfit_is_a_hollow_square(drawn):
    made = with_fit(crossing="misfit", value=1.21, low=1.1, high=1.3)
    for axis in line_panels(drawn("critical_length", made)):
        assert set(marks(axis)) == {"s"}
        assert all(is_hollow(mark) for mark in marks(axis)["s"])
    figure = drawn("distance", made)
    assert texts(figure).count("misfit: the bins are not 0 there") == 8
    squares = crossing_marks(figure, 1.21)
    assert [mark.get_marker() for mark in squares] == ["s"] * 8
    assert all(is_hollow(mark) for mark in squares)


def test_the_area_length_stands_below_the_line(drawn):
    made = tables()
    area = made["critical_length"].query("estimator == 'line'").assign(estimator="area", value=0.77)
    area = area.assign(low=0.7, high=0.8, radius=1.25)
    figure = drawn(
        "critical_length", made | {"critical_length": pd.concat([made["critical_length"], area])}
    )
    for axis in panels(figure):
        heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in axis.lines])
        below = axis not in line_panels(figure)
        assert np.isclose(heights, 0.77).any() == below
    assert "up to a distance of 1.2" in figure.get_suptitle()


def test_points_without_an_interval_are_points(drawn):
    made = tables({(REFERENCE, 0): "ok"}, learning_rates=[REFERENCE])
    made["critical_length"][["low", "high"]] = np.nan
    (points,) = marks(line_panels(drawn("critical_length", made))[0])["o"]
    assert len(points.get_ydata()) == 4


def test_an_open_interval_is_drawn_to_the_edge_of_the_axis(drawn):
    made = tables({(REFERENCE, 0): "ok"}, learning_rates=[REFERENCE])
    made["critical_length"]["high"] = np.inf
    for axis in line_panels(drawn("critical_length", made)):
        corners = np.concatenate(
            [path.vertices for band in axis.collections for path in band.get_paths()]
        )
        assert corners[:, 1].max() == axis.get_ylim()[1]
