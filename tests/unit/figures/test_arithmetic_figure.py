"""Figures of the same checkpoints in several arithmetics, and their numbers."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from stiffness.figures import arithmetic, style
from stiffness.plan.config import Figures

OPTIONS = Figures().model_dump()["arithmetic"]
EPOCHS, SEEDS = [0.0, 1.0, 2.0, 3.0], (0, 1)
LEVELS = {"exact": 0.9, "keras": 0.3, "float32": 0.6}
COLUMNS = [
    {"experiment": "net", "lr": "1e-3", "training_arithmetic": "float32"},
    {"experiment": "net_keras", "lr": "1e-3", "training_arithmetic": "keras"},
]


def product(**columns) -> pd.DataFrame:
    return pd.MultiIndex.from_product(columns.values(), names=columns).to_frame(index=False)


@pytest.fixture
def tables() -> dict[str, pd.DataFrame]:
    runs = product(experiment=["net", "net_keras"], lr=["1e-3", "1e-2"], seed=SEEDS)
    runs = runs.assign(status="ok", onset_epoch=1.0, epochs=3.0)
    checkpoints = pd.DataFrame({"step": range(4), "epoch": EPOCHS})
    history = runs.merge(checkpoints, how="cross")
    history["train_loss"] = 10.0 ** -history["epoch"]
    history["validation_loss"] = 1.0
    rows = history[["experiment", "lr", "seed", "status", "step", "epoch"]]
    rows = rows.merge(product(arithmetic=LEVELS), how="cross")
    level = rows["arithmetic"].map(LEVELS)
    modes = product(pair_mode=["train-train", "val-val"])
    pairs = modes.merge(product(metric=["sign", "cosine"], quantity=["within", "between"]), "cross")
    summaries = rows.assign(value=level).merge(pairs, how="cross")
    summaries = summaries.assign(low=summaries["value"] - 0.1, high=summaries["value"] + 0.1)
    # The clip takes the gradients of half of the pairs.
    half = (summaries["arithmetic"] == "keras") & (summaries["metric"] == "cosine")
    summaries["n_pairs"] = np.where(half, 50, 100)
    names = [one[1]["quantity"] for one in arithmetic._QUANTITIES.values() if one[0] == "siblings"]
    siblings = rows.merge(modes.merge(product(quantity=names), "cross"), "cross").assign(value=0.5)
    parts = product(split=["train", "validation"], quantity=["confident", "zero", "wrong"])
    confidence = rows.merge(parts, how="cross").assign(low=0.2, value=0.25, high=0.3)
    return {
        "runs": runs,
        "history": history,
        "summaries": summaries,
        "siblings": siblings,
        "confidence": confidence,
    }


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch):
    figures: list = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: figures.append(figure))
    yield figures
    plt.close("all")


def lines(axis) -> dict[tuple[str, float], str]:
    """The colours of the curves of an axis, by their heights at the end."""
    curves = [line for line in axis.lines if len(line.get_xdata()) == len(EPOCHS)]
    return {round(float(line.get_ydata()[-1]), 6): to_hex(line.get_color()) for line in curves}


def test_one_line_per_arithmetic_and_what_the_clip_must_do(tables, kept) -> None:
    found = arithmetic.prepare(COLUMNS, **tables)
    arithmetic.draw(COLUMNS, **found, options=OPTIONS, outputs=[])
    axes = np.array(kept[0].axes).reshape(6, 2)
    palette = dict(zip(arithmetic.NAMES, OPTIONS["colors"], strict=True))
    drawn = lines(axes[2, 0])
    assert {drawn[LEVELS[name]] for name in LEVELS} == {palette[name] for name in LEVELS}
    assert drawn[0.45] == "#000000"  # half of 0.9
    assert lines(axes[5, 0]).keys() == {0.5}
    texts = "\n".join(text.get_text() for text in kept[0].findobj(plt.Text))
    assert "trained with Keras's clip" in texts
    assert "2 seeds, 3 epochs" in texts
    assert "Keras's clip" in texts


def test_three_axes(tables, kept) -> None:
    tables = {name: table[table["experiment"] == "net"] for name, table in tables.items()}
    arithmetic.draw_axes(**tables, learning_rate="1e-3", options=OPTIONS, outputs=[])
    axes = np.array(kept[0].axes).reshape(len(arithmetic._QUANTITIES), 3)
    by_loss = [line for line in axes[0, 1].lines if len(line.get_xdata()) == len(EPOCHS)]
    assert np.allclose(by_loss[0].get_xdata(), [0.001, 0.01, 0.1, 1])
    by_share = [line for line in axes[0, 2].lines if len(line.get_xdata()) == len(EPOCHS)]
    assert np.allclose(by_share[0].get_xdata(), 0.25)
    assert "2 seeds, 3 epochs" in kept[0].get_suptitle()


def test_dead_runs_are_named(tables, kept) -> None:
    for table in tables.values():
        table["status"] = "diverged"
    found = arithmetic.prepare(COLUMNS, **tables)
    arithmetic.draw(COLUMNS, **found, options=OPTIONS, outputs=[])
    texts = "\n".join(text.get_text() for text in kept[0].findobj(plt.Text))
    assert "not a finding:\ndiverged" in texts
    assert arithmetic.numbers(COLUMNS, **found, options=OPTIONS).empty


def test_numbers_at_the_onset_and_at_the_end(tables) -> None:
    found = arithmetic.prepare(COLUMNS, **tables)
    table = arithmetic.numbers(COLUMNS, **found, options=OPTIONS)
    assert set(table["stage"]) == {"onset", "end"}
    assert set(table.loc[table["stage"] == "onset", "epoch"]) == {1.0}
    assert set(table["seeds"]) == {2}
    key = ["experiment", "stage", "arithmetic", "quantity"]
    assert not table.duplicated(key).any()
    value = table.set_index(key)["value"]
    for name, level in LEVELS.items():
        assert value["net_keras", "end", name, "within-class sign"] == pytest.approx(level)
    assert value["net", "end", "keras", "share confident"] == pytest.approx(0.25)
    ends = table.loc[(table["stage"] == "end") & (table["experiment"] == "net")]
    assert ends["train_loss"].unique() == pytest.approx(1e-3)
