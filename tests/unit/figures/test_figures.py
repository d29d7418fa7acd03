"""Every kind of figure, drawn from small tables with default options."""

from inspect import signature
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from stiffness.data.hierarchy import Hierarchy
from stiffness.errors import StiffnessError
from stiffness.figures import (
    class_matrices,
    class_matrix,
    critical_length,
    distance,
    hierarchy_curves,
    hierarchy_matrix,
    matrix,
    stiffness_curves,
    style,
    training_curves,
)
from stiffness.measures.pairs import METRICS, PAIR_MODES
from stiffness.plan.config import Figures
from stiffness.plan.kinds import KINDS as EVERY_KIND

KINDS = {
    "training_curves": training_curves,
    "class_matrices": class_matrices,
    "class_matrix": class_matrix,
    "class_matrix_stages": class_matrix,
    "hierarchy_matrix": hierarchy_matrix,
    "hierarchy_curves": hierarchy_curves,
    "stiffness_curves": stiffness_curves,
    "distance": distance,
    "critical_length": critical_length,
}
ALL_RUNS = ("stiffness_curves", "critical_length")
BY_STAGE = ("class_matrices", "class_matrix_stages", "distance")
OF_ONE_STAGE = [kind for kind in KINDS if EVERY_KIND[kind].by_stage]
ONE_RUN = [kind for kind in KINDS if kind not in ALL_RUNS]  # show the reference learning rate
DPI = 50  # fast
DEAD = ("diverged", "at chance", "collapsed")

OPTIONS = Figures().model_dump()

REFERENCE, OTHER = "1e-3", "3e-3"
RUNS = {(REFERENCE, 0): "ok", (REFERENCE, 1): "ok", (OTHER, 0): "ok"}
CHECKPOINTS = {0: 0.0, 2: 0.02, 100: 1.0, 300: 3.0}
STAGES = [0, 0.03, 1, "last"]
ACCURACIES = {0: 0.1, 2: 0.2, 100: 0.5, 300: 0.4}
CLASSES = ["zebra", "ant", "bee"]
HIERARCHY = Hierarchy(
    {"insects": ["bee", "ant"], "mammals": ["zebra"]}, {"small": ["insects"], "large": ["mammals"]}
)


# --- tables --------------------------------------------------------------------------------------


def base(run: tuple[str, int]) -> float:
    """A value by which a run's data can be told from another's."""
    return {(REFERENCE, 0): 0.31, (REFERENCE, 1): 0.47, (OTHER, 0): 0.62}[run]


def tables(statuses: dict[tuple[str, int], str] = RUNS, **changes: Any) -> dict[str, Any]:
    """All that a draw() may ask for, but options and outputs."""
    made: dict[str, list[dict]] = {
        name: []
        for name in ("runs", "history", "summary", "classes", "distance", "critical_length")
    }
    for (lr, seed), status in statuses.items():
        level = base((lr, seed))
        key = {"experiment": "some_net", "lr": lr, "seed": seed, "status": status}
        made["runs"].append(key | {"epochs": 3.0, "onset_epoch": 1.0, "onset_reached": True})
        for number, (step, epoch) in enumerate(CHECKPOINTS.items()):
            at = key | {"step": step, "epoch": epoch}
            loss = level * (4 - number)
            scores = {"train_loss": loss, "validation_loss": loss + 0.1}
            made["history"].append(at | scores | {"validation_accuracy": ACCURACIES[step]})
            for mode in PAIR_MODES:
                for metric in METRICS:
                    row = at | {"pair_mode": mode, "metric": metric, "n_excluded": 0}
                    add_measurements(made, row, level, number)
    return (
        {name: pd.DataFrame(rows) for name, rows in made.items()}
        | {"learning_rate": REFERENCE, "learning_rates": [OTHER, REFERENCE], "stages": STAGES}
        | {"space": "input"}
        | {"hierarchy": HIERARCHY}
        | changes
    )


def estimate(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n_pairs": 30}


def add_measurements(
    made: dict[str, list[dict]], row: dict[str, Any], level: float, number: int
) -> None:
    quantities = {"within": 1, "between": -1, "super_class": 0.5, "super_super_class": -0.5}
    for quantity, share in quantities.items():
        made["summary"].append(
            row
            | {"quantity": quantity, "arithmetic": "exact"}
            | estimate(share * level + 0.01 * number)
        )
    # Reference rates only, as the rule reads them; no two cells alike, so not symmetric.
    if row["lr"] == REFERENCE:
        for a, name_a in enumerate(CLASSES):
            for b, name_b in enumerate(CLASSES):
                pair = {"class_a": name_a, "class_b": name_b}
                value = level - 0.2 * a + 0.1 * b - 0.05 * number
                made["classes"].append(row | pair | estimate(value))
    for position in (0.2, 0.6, 1.1):
        made["distance"].append(
            row | {"distance": position} | estimate(level + 0.5 - 0.5 * position)
        )
    line = {"slope": -0.5, "slope_low": -0.6, "slope_high": -0.4, "intercept": 0.5 * level + 0.25}
    for estimator, fit in (("line", line), ("monotone", dict.fromkeys(line, np.nan))):
        value = level + (0.5 if estimator == "line" else 0.4)
        crossing = {"estimator": estimator, "crossing": "measured", "max_distance": 1.3}
        made["critical_length"].append(row | estimate(value) | crossing | fit)


def options_of(kind: str, **changes: Any) -> dict[str, Any]:
    return OPTIONS[kind] | changes


def draw(kind: str, made: dict[str, Any], outputs: list[Path], **changes: Any) -> None:
    function = KINDS[kind].draw
    given = (
        {"summaries": made["summary"]}
        | made
        | {"options": options_of(kind, **changes), "outputs": outputs}
    )
    if kind in OF_ONE_STAGE:
        given["stages"] = given["stages"][-1:]
    if kind == "critical_length":
        given |= critical_length.prepare(given["critical_length"])
    function(**{name: given[name] for name in signature(function).parameters})


@pytest.fixture(scope="module")
def plain() -> dict[str, Figure]:
    """Figures of the unchanged tables by kind, each drawn once: to be read, not changed."""
    return {}


@pytest.fixture
def drawn(monkeypatch, plain):
    """Draw, and return the figure instead of saving it."""
    kept: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def make(kind: str, made: dict[str, Any] | None = None, **changes: Any) -> Figure:
        unchanged = made is None and not changes
        if unchanged and kind in plain:
            return plain[kind]
        draw(kind, tables() if made is None else made, [], **changes)
        if unchanged:
            plain[kind] = kept[-1]
        return kept[-1]

    yield make
    plt.close("all")


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(plt.Text))


def panels(figure: Figure) -> list[plt.Axes]:
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def line_values(figure: Figure) -> np.ndarray:
    """Every height at which something was plotted."""
    lines = [line for axis in figure.axes for line in axis.lines]
    return np.concatenate([np.asarray(line.get_ydata(), float) for line in lines])


@pytest.fixture(autouse=True)
def few_dots(monkeypatch) -> None:
    monkeypatch.setitem(plt.rcParams, "savefig.dpi", DPI)


every_kind = pytest.mark.parametrize("kind", KINDS)


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
