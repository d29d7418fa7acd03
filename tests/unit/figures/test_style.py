"""What the figures share: colours, saving, averages, and which run is shown."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from stiffness.errors import StiffnessError
from stiffness.figures import style
from stiffness.measures.pairs import METRICS, PAIR_MODES
from stiffness.training.stages import Stage


@pytest.fixture
def figure():
    figure, axis = plt.subplots(figsize=(2, 1.5))
    axis.plot([0, 1], [1, 2])
    yield figure
    plt.close("all")


# --- axes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "shown"), [(0.01, [0.01, 0.02, 0.05]), (1e-5, [1e-5, 1e-4])])
def test_ticks_of_losses_do_not_crowd(least, shown):
    figure, axis = plt.subplots()
    axis.plot([0, 1], [3, least])
    axis.set_yscale("log")
    style.loss_ticks(axis.yaxis)
    low, high = axis.get_ylim()
    ticks = [tick for tick in axis.yaxis.get_major_locator()() if low <= tick <= high]
    assert np.allclose(ticks[: len(shown)], shown)
    assert len(ticks) <= 9
    plt.close(figure)


# --- colours -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "palette", ["viridis", "rocket", "colorblind", "deep", "muted", "bright", "pastel", "dark"]
)
@pytest.mark.parametrize("number", [1, 5])
def test_a_palette_gives_as_many_colors(palette, number):
    colors = [to_rgb(color) for color in style.colors(palette, number)]
    assert len(colors) == number
    assert len(set(colors)) == number


@pytest.mark.parametrize("palette", ["no_such_palette", ""])
def test_an_unknown_palette_is_named(palette):
    with pytest.raises(StiffnessError, match=f"unknown palette {palette!r}"):
        style.colors(palette, 3)


def test_every_mode_and_metric_has_a_name():
    assert set(style.MODE_NAMES) == set(PAIR_MODES)
    assert set(style.METRIC_NAMES) == set(METRICS)


# --- saving --------------------------------------------------------------------------------------


def test_save_writes_every_path_and_closes_the_figure(figure, tmp_path):
    outputs = [tmp_path / "new" / "a.pdf", tmp_path / "new" / "a.png"]
    style.save(figure, outputs)
    assert sorted((tmp_path / "new").iterdir()) == outputs
    assert outputs[0].read_bytes().startswith(b"%PDF")
    assert outputs[1].read_bytes().startswith(b"\x89PNG")
    assert not plt.get_fignums()


def test_a_failed_save_leaves_nothing_behind(figure, tmp_path):
    with pytest.raises(ValueError, match="not supported"):
        style.save(figure, [tmp_path / "a.nonsense"])
    assert not list(tmp_path.iterdir())
    assert not plt.get_fignums()


def test_a_failed_save_leaves_the_old_picture(figure, tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("old")

    def fail(*args, **kwargs):
        raise OSError("broken")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="broken"):
        style.save(figure, [path])
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == "old"


def test_a_png_has_300_dots_an_inch(figure, tmp_path):
    style.save(figure, [tmp_path / "a.png"])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (600, 450)


def test_a_pdf_has_no_date(figure, tmp_path):
    style.save(figure, [tmp_path / "a.pdf"])
    assert b"CreationDate" not in (tmp_path / "a.pdf").read_bytes()


# --- axes ----------------------------------------------------------------------------------------


def with_onset(*epochs: float) -> pd.DataFrame:
    return pd.DataFrame({"status": "ok", "onset_epoch": epochs})


@pytest.mark.parametrize("last", [0.05, 1, 30, 400])
def test_epochs_from_zero_to_the_last(figure, last):
    (axis,) = figure.axes
    epochs = pd.Series([0, 0.001, 0.01, last])
    style.epoch_axis(axis, epochs, with_onset(last))
    low, high = axis.get_xlim()
    assert low == 0
    assert last <= high < 1.2 * last
    ticks, names = axis.get_xticks(), [label.get_text() for label in axis.get_xticklabels()]
    assert ticks[0] == 0
    assert (np.diff(ticks) > 0).all()
    assert ticks[-1] <= last
    assert [float(name) for name in names] == pytest.approx(list(ticks), rel=0.05)
    shown = axis.transData.transform([(epoch, 1) for epoch in epochs])[:, 0]
    assert (np.diff(shown) > 1).all()


@pytest.mark.parametrize(
    ("onsets", "turn"), [([8.0], 8), ([4.0, 8.0, 20.0], 8), ([39.0], 20), ([np.nan], 1)]
)
def test_what_follows_the_onset_fills_half_of_the_width(figure, onsets, turn):
    (axis,) = figure.axes
    epochs = pd.Series([0, 0.001, 0.01, *range(1, 41)])
    label = style.epoch_axis(axis, epochs, with_onset(*onsets))
    assert label == f"epoch (logarithmic to {turn}, then linear)"
    place = axis.transAxes.inverted().transform(axis.transData.transform([(turn, 1)]))[0, 0]
    assert place == pytest.approx(0.5, abs=1e-6)
    late = axis.transData.transform([(epoch, 1) for epoch in (20, 25, 30, 35, 40)])[:, 0]
    np.testing.assert_allclose(np.diff(late), np.diff(late)[0])


def test_places_of_epochs_can_be_turned_back():
    scale = style.EpochScale(0.001, 8, 60)
    epochs = np.array([0, 0.0005, 0.001, 0.3, 8, 20, 60])
    np.testing.assert_allclose(scale.inverse(scale.forward(epochs)), epochs, atol=1e-12)


def test_without_early_checkpoints_epochs_are_linear(figure):
    (axis,) = figure.axes
    assert style.epoch_axis(axis, pd.Series([0.0, 1, 2, 3]), with_onset(2.0)) == "epoch"
    assert axis.get_xscale() == "linear"


def test_an_axis_of_the_initialisation_alone(figure):
    style.epoch_axis(figure.axes[0], pd.Series([0.0]), with_onset(0.0))
    figure.canvas.draw()


def test_a_curve_has_its_band(figure):
    (axis,) = figure.axes
    # Stiffness lies in [-1, 1], and so does what is drawn of its interval.
    table = pd.DataFrame(
        {"epoch": [0, 1], "value": [0.1, 0.9], "low": [-1.2, 0.7], "high": [0.4, 1.1]}
    )
    style.curve(axis, table, "epoch", "red", "name")
    line = axis.lines[-1]
    np.testing.assert_array_equal(line.get_xydata(), [[0, 0.1], [1, 0.9]])
    assert line.get_label() == "name"
    corners = {tuple(corner) for corner in axis.collections[0].get_paths()[0].vertices}
    assert {(0, -1), (0, 0.4), (1, 0.7), (1, 1)} <= corners


# --- which run -----------------------------------------------------------------------------------


def runs(*rows: tuple[str, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["lr", "seed", "status"])


@pytest.mark.parametrize(
    ("seeds", "seed", "expected"),
    [
        ([0], None, "1 seed, 30 epochs"),
        ([0], 0, "1 seed, 30 epochs"),
        ([0, 1, 2], None, "3 seeds, 30 epochs"),
        ([0, 1, 2], 1, "seed 1 (one of 3), 30 epochs"),
    ],
)
def test_a_title_says_seeds_and_epochs(seeds, seed, expected):
    table = runs(*(("1e-3", one, "ok") for one in seeds), ("1e-3", 7, "diverged"))
    table = table.assign(experiment="some_net", epochs=30.0)
    title = style.heading(table, "train–val pairs", learning_rate="1e-3", seed=seed)
    assert title == f"some_net, learning rate 1e-3, {expected}, train–val pairs"


def test_rates_with_fewer_living_seeds_are_counted():
    table = runs(("1e-3", 0, "ok"), ("1e-3", 1, "ok"), ("3e-3", 0, "ok"), ("3e-3", 1, "diverged"))
    assert style.extent(table.assign(epochs=3.0)) == "1 to 2 seeds, 3 epochs"


def test_dead_runs_are_named():
    assert style.dead_runs(runs(("1e-3", 0, "ok"))) == ""
    text = style.dead_runs(
        runs(("1e-3", 0, "ok"), ("3e-2", 1, "at chance"), ("1e-1", 0, "diverged"))
    )
    for part in ("3e-2", "seed 1", "at chance", "1e-1", "seed 0", "diverged"):
        assert part in text
    assert "1e-3" not in text


@pytest.mark.parametrize(
    ("epoch", "name"),
    [
        (0.0, "initialisation"),
        (0.0106, "epoch 0.011"),
        (1.0, "epoch 1"),
        (30.0, "epoch 30"),
        (120.0, "epoch 120"),
    ],
)
def test_the_name_of_a_stage_by_epoch(epoch, name):
    assert style.stage_name(Stage(7, epoch, 0.3)) == name


@pytest.mark.parametrize(
    ("accuracy", "wanted", "name"),
    [
        (0.3512, 0.35, "accuracy 0.351,\nepoch 6"),
        (0.3699, 0.35, "accuracy 0.370,\nepoch 6"),
        (0.0831, 0.05, "accuracy 0.083\n(asked for 0.05),\nepoch 6"),
        (0.5234, 0.6, "accuracy 0.60 not\nreached; best 0.523,\nepoch 6"),
        (0.9987, 0.999, "accuracy 0.999 not\nreached; best 0.999,\nepoch 6"),
    ],
)
def test_the_name_of_a_stage_by_accuracy(accuracy, wanted, name):
    assert style.stage_name(Stage(7, 6.0, accuracy, wanted)) == name
