"""The subset's estimate against the whole set: what is compared with what."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from stiffness.figures import style, whole_set
from stiffness.plan.config import Figures

OPTIONS = Figures().model_dump()["whole_set"]
NAMES = ["zebra", "ant", "bee"]
STEPS = {0: 0.0, 50: 1.0}


def tables(status: str = "ok") -> dict[str, pd.DataFrame]:
    key = {"experiment": "some_net", "lr": "1e-3", "seed": 0, "status": status}
    history, summary, classes, whole = [], [], [], []
    for step, epoch in STEPS.items():
        at = key | {"step": step, "epoch": epoch, "metric": "cosine", "pair_mode": "train-train"}
        history.append(key | {"step": step, "epoch": epoch, "validation_accuracy": 0.5})
        for quantity, value in (("within", 0.8), ("between", 0.1)):
            interval = {"value": value, "low": value - 0.1, "high": value + 0.1}
            summary.append(at | {"quantity": quantity} | interval)
            # Must not be drawn: another mode, another seed.
            summary.append(at | {"quantity": quantity, "pair_mode": "val-val", "value": 9.0})
            summary.append(at | {"quantity": quantity, "seed": 1, "value": 9.0})
        for i, a in enumerate(NAMES):
            for j, b in enumerate(NAMES):
                pair = {"class_a": a, "class_b": b}
                value = 0.7 if i == j else 0.1 * (i + j)
                # The interval holds every cell but that of the first two classes.
                off = 0.5 if {i, j} == {0, 1} else 0.05
                whole.append({"step": step, "seed": 0, "n_examples": 1200, "value": value} | pair)
                interval = {"value": value + off, "low": value + off - 0.1}
                classes.append(at | pair | interval | {"high": value + off + 0.1})
    return {
        "runs": pd.DataFrame([key | {"epochs": 1.0}]),
        "history": pd.DataFrame(history),
        "summary": pd.DataFrame(summary),
        "classes": pd.DataFrame(classes),
        "whole_set": pd.DataFrame(whole),
    }


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Any:
    kept: list[plt.Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def draw(status: str = "ok") -> plt.Figure:
        whole_set.draw(
            **tables(status), learning_rate="1e-3", stages=[0, 1], options=OPTIONS, outputs=[]
        )
        return kept[-1]

    yield draw
    plt.close("all")


def test_each_stage_has_its_estimates_and_the_whole_sets_values(drawn: Any) -> None:
    left, _ = drawn().axes
    lines = {line.get_label(): line.get_ydata() for line in left.lines}
    assert list(lines["within classes, all 1,200 examples"]) == pytest.approx([0.7, 0.7])
    assert list(lines["between classes, all 1,200 examples"]) == pytest.approx([0.2, 0.2])
    subset = {bars.get_label(): bars.lines[0].get_ydata() for bars in left.containers}
    assert list(subset["within classes, subset"]) == pytest.approx([0.8, 0.8])
    assert list(subset["between classes, subset"]) == pytest.approx([0.1, 0.1])
    assert [text.get_text() for text in left.get_xticklabels()] == ["initialisation", "epoch 1"]


def test_each_pair_of_classes_is_one_point_and_the_share_held_is_named(drawn: Any) -> None:
    _, right = drawn().axes
    for bars in right.containers:
        x, y = np.asarray(bars.lines[0].get_data(), dtype=float)
        assert len(x) == 6
        assert sorted(np.round(y - x, 6)) == [0.05] * 5 + [0.5]
        assert bars.get_label().endswith(": 83 %")


def test_cells_without_an_interval_count_neither_way() -> None:
    cells = pd.DataFrame({"low": [0, 0, np.nan], "high": [1, 1, np.nan], "whole": [0.5, 2.0, 0.5]})
    assert whole_set.coverage(cells) == 0.5
    assert np.isnan(whole_set.coverage(cells.iloc[2:]))


def test_a_dead_run_is_said_to_be_dead(drawn: Any) -> None:
    figure = drawn("diverged")
    assert not figure.axes
    assert "diverged" in figure.texts[0].get_text()
