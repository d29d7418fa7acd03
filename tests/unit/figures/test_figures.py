"""Every kind of figure, drawn from small tables with default options: files, dead runs, labels."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_cases import (
    ALL_RUNS,
    BY_STAGE,
    CLASSES,
    DEAD,
    DPI,
    KINDS,
    OF_ONE_STAGE,
    ONE_RUN,
    OPTIONS,
    OTHER,
    REFERENCE,
    RUNS,
    base,
    draw,
    every_kind,
    line_values,
    options_of,
    panels,
    tables,
    texts,
)
from PIL import Image

from stiffness.errors import StiffnessError

pytestmark = pytest.mark.usefixtures("few_dots")


# --- files ---------------------------------------------------------------------------------------


def save_wider(kind: str, folder: Path) -> list[Path]:
    """A little larger than by default, so that its sizes are not just a default."""
    options, outputs = options_of(kind), [folder / f"{kind}.pdf", folder / f"{kind}.png"]
    larger = {"width": options["width"] + 0.3, "height": options["height"] + 0.7}
    draw(kind, tables(), outputs, **larger)
    return outputs


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory) -> tuple[str, list[Path]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(plt.rcParams, "savefig.dpi", DPI)
        return request.param, save_wider(request.param, tmp_path_factory.mktemp(request.param))


def test_writes_both_files_and_nothing_else(saved):
    _, (pdf, png) = saved
    assert set(pdf.parent.iterdir()) == {pdf, png}
    assert pdf.stat().st_size > 5000
    with Image.open(png) as picture:
        assert len(picture.convert("L").getcolors()) > 2
    assert not plt.get_fignums()


def test_the_size_is_the_one_asked_for(saved):
    kind, (_, png) = saved
    options = options_of(kind)
    with Image.open(png) as picture:
        expected = (options["width"] + 0.3) * DPI, (options["height"] + 0.7) * DPI
        assert picture.size == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(
    "saved",
    [
        "class_matrix",
        *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "class_matrix"),
    ],
    indirect=True,
)
def test_the_same_tables_give_the_same_bytes(saved, tmp_path):
    kind, outputs = saved
    for first, second in zip(outputs, save_wider(kind, tmp_path), strict=True):
        assert first.read_bytes() == second.read_bytes()


@every_kind
def test_the_tables_are_left_as_they_were(kind, drawn):
    made = tables()
    drawn(kind, made)
    for name, table in tables().items():
        if isinstance(table, pd.DataFrame):
            pd.testing.assert_frame_equal(made[name], table)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "palette" in OPTIONS[kind]])
def test_an_unknown_palette_is_a_plain_error(kind, drawn):
    with pytest.raises(StiffnessError, match="no_such_palette"):
        drawn(kind, palette="no_such_palette")


# --- dead runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ONE_RUN)
@pytest.mark.parametrize("status", DEAD)
def test_a_dead_reference_run_is_said_to_be_dead(kind, status, drawn):
    figure = drawn(kind, tables(RUNS | {(REFERENCE, 0): status, (REFERENCE, 1): status}))
    assert status in texts(figure)
    assert "some_net" in texts(figure)
    assert REFERENCE in texts(figure)
    for axis in figure.axes:
        assert not [*axis.lines, *axis.collections, *axis.images]


@pytest.mark.parametrize("kind", ONE_RUN)
def test_a_dead_reference_run_still_has_its_files(kind, tmp_path):
    outputs = [tmp_path / "a.pdf", tmp_path / "a.png"]
    draw(kind, tables(RUNS | {(REFERENCE, 0): "diverged", (REFERENCE, 1): "diverged"}), outputs)
    assert set(tmp_path.iterdir()) == set(outputs)
    with Image.open(outputs[1]) as picture:
        assert len(picture.convert("L").getcolors()) > 2  # the words are there


@pytest.mark.parametrize("kind", ALL_RUNS)
@pytest.mark.parametrize("status", DEAD)
def test_dead_runs_are_named_in_the_title_and_not_drawn(kind, status, drawn):
    heights = {"stiffness_curves": base((OTHER, 0)), "critical_length": base((OTHER, 0)) + 0.5}
    dead, alive = drawn(kind, tables(RUNS | {(OTHER, 0): status})), drawn(kind)
    assert OTHER in dead.get_suptitle()
    assert "seed 0" in dead.get_suptitle()
    assert status in dead.get_suptitle()
    assert REFERENCE not in dead.get_suptitle()
    assert "not drawn" not in alive.get_suptitle()
    assert np.isclose(line_values(alive), heights[kind]).any()
    assert not np.isclose(line_values(dead), heights[kind]).any()


def test_a_dead_seed_is_left_out_of_the_mean(drawn):
    figure = drawn("stiffness_curves", tables(RUNS | {(REFERENCE, 0): "collapsed"}))
    assert np.isclose(line_values(figure), base((REFERENCE, 1))).any()
    mean = (base((REFERENCE, 0)) + base((REFERENCE, 1))) / 2
    assert not np.isclose(line_values(figure), mean).any()


@pytest.mark.parametrize("kind", ALL_RUNS)
def test_nothing_alive_is_a_picture_of_nothing(kind, tmp_path):
    # Saved, not only drawn: an axis without data must not break its scale.
    made = tables(dict.fromkeys(RUNS, "diverged"))
    draw(kind, made, [tmp_path / "a.png"])
    assert (tmp_path / "a.png").stat().st_size > 0


def test_the_living_seed_stands_in_for_a_dead_one(drawn):
    made = tables(RUNS | {(REFERENCE, 0): "diverged"})
    seed = base((REFERENCE, 1))
    losses = drawn("training_curves", made).axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(losses, seed * np.array([4, 3, 2, 1]))
    image = next(axis.images[0] for axis in drawn("class_matrices", made).axes if axis.images)
    assert image.get_array()[0, 0] == pytest.approx(seed)
    assert np.isclose(line_values(drawn("distance", made)), seed + 0.5 - 0.1).any()


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "class_matrices"])
def test_axes_have_labels_at_the_edges(kind, drawn):
    figure = drawn(kind)
    assert panels(figure)
    for axis in panels(figure):
        place = axis.get_subplotspec()
        if place.is_first_col():
            assert axis.get_ylabel() or axis.figure.get_supylabel()
        if place.is_last_row():
            assert axis.get_xlabel() or axis.figure.get_supxlabel()
        elif not axis.images and not axis.get_shared_x_axes().get_siblings(axis)[1:]:
            assert axis.get_xlabel()  # its x is not that of the panel below


def test_class_matrices_have_stages_modes_and_names_at_the_edges(drawn):
    figure = drawn("class_matrices")
    named = {"left": 0, "bottom": 0}
    for axis in panels(figure):
        place = axis.get_subplotspec()
        if place.is_first_row():
            assert axis.get_title()
        if place.is_first_col():
            assert axis.get_ylabel()
            assert [label.get_text() for label in axis.get_yticklabels()] == CLASSES
            named["left"] += 1
        if place.is_last_row():
            assert [label.get_text() for label in axis.get_xticklabels()] == CLASSES
            named["bottom"] += 1
    assert named == {"left": 6, "bottom": 4}
    bars = [axis for axis in figure.axes if axis.get_label() == "<colorbar>"]
    assert len(bars) == 2
    assert all(axis.get_ylabel() for axis in bars)


@every_kind
def test_the_experiment_is_named(kind, drawn):
    assert "some_net" in texts(drawn(kind))


@pytest.mark.parametrize("kind", BY_STAGE)
def test_stages_are_named(kind, drawn):
    text = texts(drawn(kind))
    for name in ("initialisation", "epoch 0.02", "epoch 1", "epoch 3"):
        assert name in text


@pytest.mark.parametrize("kind", [*BY_STAGE, *OF_ONE_STAGE])
@pytest.mark.parametrize("stages", [["last"], [3.0]], ids=str)
def test_one_stage_is_enough(kind, stages, drawn):
    assert "epoch 3" in texts(drawn(kind, tables(stages=stages)))


@pytest.mark.parametrize("kind", [*BY_STAGE, *OF_ONE_STAGE])
def test_a_stage_by_accuracy_says_what_it_is(kind, drawn):
    reached = texts(drawn(kind, tables(stages=[{"accuracy": 0.49}])))
    assert "accuracy 0.500" in reached
    assert "epoch 1" in reached
    assert "asked" not in reached
    over = " ".join(texts(drawn(kind, tables(stages=[{"accuracy": 0.45}]))).split())
    assert "accuracy 0.500 (asked for 0.45), epoch 1" in over
    missed = " ".join(texts(drawn(kind, tables(stages=[{"accuracy": 0.6}]))).split())
    assert "accuracy 0.60 not reached; best 0.500, epoch 1" in missed


@pytest.mark.parametrize("kind", BY_STAGE)
@pytest.mark.parametrize("number", [2, 3, 5])
def test_any_number_of_stages(kind, number, drawn):
    stages = [0, {"accuracy": 0.15}, {"accuracy": 0.9}, 1, "last"][-number:]
    figure = drawn(kind, tables(stages=stages))
    shown = [axis for axis in panels(figure) if axis.get_visible()]
    assert len(shown) % number == 0
    heads = [axis for axis in shown if kind != "distance" or axis.get_subplotspec().is_first_row()]
    assert sum(bool(axis.get_title()) for axis in heads) == number


@pytest.mark.parametrize("kind", ALL_RUNS)
def test_rates_are_in_order_of_size(kind, drawn):
    made = tables(learning_rates=[OTHER, REFERENCE])
    (legend,) = drawn(kind, made).legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names[:2] == [REFERENCE, OTHER]
