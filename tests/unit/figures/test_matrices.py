"""Class matrices, and hierarchies of classes."""

import numpy as np
import pandas as pd
import pytest
from figure_cases import (
    CHECKPOINTS,
    CLASSES,
    HIERARCHY,
    REFERENCE,
    base,
    draw,
    panels,
    tables,
    texts,
)
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from stiffness.data.hierarchy import Hierarchy
from stiffness.figures import (
    matrix,
)
from stiffness.measures.pairs import METRICS, PAIR_MODES

pytestmark = pytest.mark.usefixtures("few_dots")


# --- class matrices ------------------------------------------------------------------------------


def images(figure: Figure) -> list:
    return [axis.images[0] for axis in figure.axes if axis.images]


def test_colour_limits_are_symmetric_and_shared_within_a_metric(drawn):
    made = tables()
    cosine = made["classes"]["metric"] == "cosine"
    made["classes"].loc[cosine, ["value", "low", "high"]] *= 0.2
    limits = [image.get_clim() for image in images(drawn("class_matrices", made))]
    assert len(limits) == 24
    assert all(low == -high for low, high in limits)
    sign, cosines = set(limits[:12]), set(limits[12:])
    assert sign == {(-1.0, 1.0)}
    assert len(cosines) == 1
    largest = made["classes"].loc[cosine, "value"].abs().max()
    assert largest <= cosines.pop()[1] < 1


def test_rows_are_class_a_and_columns_class_b_in_the_given_order(drawn):
    first = images(drawn("class_matrices"))[0]
    level, classes = base((REFERENCE, 0)), range(3)
    expected = [[level - 0.2 * a + 0.1 * b for b in classes] for a in classes]
    np.testing.assert_allclose(first.get_array(), expected)


def test_each_panel_has_its_own_mode_metric_and_stage(drawn):
    made = tables()
    table = made["classes"]
    modes, metrics, steps = list(PAIR_MODES), list(METRICS), list(CHECKPOINTS)
    table["value"] = [
        0.1 * modes.index(row.pair_mode)
        + 0.01 * steps.index(row.step)
        - 0.5 * metrics.index(row.metric)
        for row in table.itertuples()
    ]
    found = [image.get_array()[0, 0] for image in images(drawn("class_matrices", made))]
    expected = [
        0.1 * mode + 0.01 * step - 0.5 * metric
        for metric in range(2)
        for mode in range(3)
        for step in range(4)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_an_undefined_cell_has_a_colour_of_its_own(drawn):
    made = tables()
    alone = (made["classes"]["class_a"] == "ant") & (made["classes"]["class_b"] == "ant")
    made["classes"].loc[alone, ["value", "low", "high"]] = np.nan
    image = images(drawn("class_matrices", made))[0]
    cells = image.to_rgba(image.get_array(), norm=True)
    scale = image.cmap(np.linspace(0, 1, 256))
    assert np.abs(scale - cells[1, 1]).sum(axis=1).min() > 0.05
    np.testing.assert_allclose(cells[1, 1], to_rgba(image.cmap.get_bad()), atol=1e-6)


def test_no_gradient_left_at_all_is_still_a_picture(tmp_path):
    # Late in training every cosine may be undefined.
    made = tables()
    made["classes"].loc[made["classes"]["metric"] == "cosine", ["value", "low", "high"]] = np.nan
    draw("class_matrices", made, [tmp_path / "a.png"])


def test_many_classes_are_not_named(drawn):
    names = [f"class {number}" for number in range(30)]
    made = tables()
    cells = pd.MultiIndex.from_product([names, names], names=["class_a", "class_b"])
    keys = (
        made["classes"]
        .drop(columns=["class_a", "class_b"])
        .drop_duplicates(["seed", "step", "pair_mode", "metric"])
    )
    made["classes"] = cells.to_frame(index=False).merge(keys, how="cross")
    figure = drawn("class_matrices", made)
    assert images(figure)[0].get_array().shape == (30, 30)
    assert not any(name in texts(figure).splitlines() for name in names)


# --- one class matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["class_matrix", "class_matrix_stages"])
def test_a_matrix_has_the_cells_and_names_of_its_metric_and_mode(kind, drawn):
    made = tables()
    others = (made["classes"]["metric"] != "cosine") | (made["classes"]["pair_mode"] != "val-val")
    made["classes"].loc[others, ["value", "low", "high"]] = 0.987
    figure = drawn(kind, made, metric="cosine", pair_mode="val-val")
    level, number = base((REFERENCE, 0)), len(images(figure))
    assert number == (1 if kind == "class_matrix" else 4)
    cells = np.array([[level - 0.2 * a + 0.1 * b for b in range(3)] for a in range(3)])
    for place, image in enumerate(images(figure), start=4 - number):
        np.testing.assert_allclose(image.get_array(), cells - 0.05 * place)
    assert len({image.get_clim() for image in images(figure)}) == 1
    axis = panels(figure)[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == CLASSES
    assert "class of the other validation example" in texts(figure)


@pytest.mark.parametrize(
    ("number", "width", "named"), [(100, 9.0, True), (100, 3.5, False), (10, 3.5, True)]
)
def test_names_are_left_out_where_they_cannot_be_read(number, width, named, drawn):
    names = [f"class {label}" for label in range(number)]
    row = {"step": 300, "metric": "sign", "pair_mode": "train-val", "seed": 0}
    cells = pd.MultiIndex.from_product([names, names], names=["class_a", "class_b"])
    table = cells.to_frame(index=False).assign(**row, value=0.1, low=0.0, high=0.2)
    figure = drawn("class_matrix", tables(classes=table), width=width, height=width)
    assert ("class 7" in texts(figure).splitlines()) == named


def square(others: float, diagonal: float, odd: float | None = None) -> np.ndarray:
    matrix = np.full((30, 30), others)
    np.fill_diagonal(matrix, diagonal)
    if odd is not None:
        matrix[0, 1] = odd
    return matrix


@pytest.mark.parametrize(
    ("matrices", "limit"),
    [
        ([square(0.013, 0.4)], 0.015),  # the diagonal does not pale the rest
        ([square(-0.042, 0.4, odd=0.9)], 0.05),  # nor does one odd cell of 870
        ([square(0.013, 0.4), square(0.2, 0.4)], 0.2),  # common to all
        ([square(-0.99, 1.0)], 1.0),
        ([square(0.0, 0.4)], 1.0),
        ([square(np.nan, np.nan)], 1.0),
        ([np.array([[0.3]])], 1.0),
    ],
    ids=range(7),
)
def test_limits_are_round_and_suit_what_is_off_the_diagonal(matrices, limit):
    assert matrix.color_limit(matrices) == pytest.approx(limit)


@pytest.mark.parametrize(("diagonal", "beyond"), [(0.9, True), (0.1, False)])
def test_the_colour_bar_says_its_limits_and_what_lies_beyond(drawn, diagonal, beyond):
    made = tables()
    own = made["classes"]["class_a"] == made["classes"]["class_b"]
    made["classes"]["value"] = np.where(own, diagonal, -0.13)
    figure = drawn("class_matrix", made)
    (bar,) = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert ("beyond the limits" in bar.get_ylabel()) == beyond
    assert [label.get_text() for label in bar.get_yticklabels()][-1] == "0.15"


# --- hierarchies ---------------------------------------------------------------------------------


def test_classes_are_sorted_and_groups_framed_and_named(drawn):
    figure = drawn("hierarchy_matrix")
    axis = panels(figure)[0]
    level = base((REFERENCE, 0)) - 0.05 * 3
    order = [2, 1, 0]  # bee, ant, zebra
    expected = [[level - 0.2 * a + 0.1 * b for b in order] for a in order]
    np.testing.assert_allclose(axis.images[0].get_array(), expected)
    assert [label.get_text() for label in axis.get_yticklabels()] == ["insects", "mammals"]
    np.testing.assert_allclose(axis.get_yticks(), [0.5, 2])
    frames = sorted((patch.get_xy(), patch.get_width()) for patch in axis.patches)
    assert frames == [((-0.5, -0.5), 2)] * 2 + [((1.5, 1.5), 1)] * 2
    assert [text.get_text() for text in axis.texts] == ["small"] * 2 + ["large"] * 2


def test_brackets_span_their_group(drawn):
    axis = panels(drawn("hierarchy_matrix"))[0]
    above = axis.lines[0].get_xdata()
    assert 0 < above[0] < 0.1
    assert 0.6 < above[-1] < 2 / 3
    assert min(axis.lines[0].get_ydata()) > 1
    right = axis.lines[1].get_ydata()
    assert 0.9 < right[0] < 1
    assert 1 / 3 < right[-1] < 0.4


def test_one_level_has_no_brackets(drawn):
    flat = Hierarchy(HIERARCHY.super_classes, {})
    axis = panels(drawn("hierarchy_matrix", tables(hierarchy=flat)))[0]
    assert len(axis.patches) == 2
    assert not axis.texts
    assert not axis.lines


def test_four_averages_with_their_bands(drawn):
    figure = drawn("hierarchy_curves")
    mean = (base((REFERENCE, 0)) + base((REFERENCE, 1))) / 2
    for axis in panels(figure):
        curves = [line.get_ydata() for line in axis.lines if len(line.get_ydata()) == 4]
        steps = 0.01 * np.arange(4)
        shares = (1, 0.5, -0.5, -1) if axis.get_subplotspec().is_first_row() else (0.5, -0.5, -1)
        np.testing.assert_allclose(curves, [share * mean + steps for share in shares])
        assert len(axis.collections) == len(shares)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert len(names) == 4
    assert "baseline" in names[-1]


def test_a_hierarchy_of_one_level_has_three_averages(drawn):
    made = tables()
    made["summary"] = made["summary"][made["summary"]["quantity"] != "super_super_class"]
    (legend,) = drawn("hierarchy_curves", made).legends
    assert len(legend.get_texts()) == 3
