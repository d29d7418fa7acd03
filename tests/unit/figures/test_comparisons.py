"""Figures of equal loss, of early stopping and of the claims."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from stiffness.figures import claims, early_stopping, equal_loss
from stiffness.measures.equal_loss import EPOCH, LOSS
from stiffness.measures.pairs import METRICS
from stiffness.measures.stopping import LAST_EPOCH, VALIDATION_LOSS
from stiffness.plan.config import Figures

CONFIG = Figures().model_dump()
EPOCHS = [0.0, 0.1, 1.0, 5.0]
RATES = ["3e-3", "1e-3"]


@pytest.fixture
def runs() -> pd.DataFrame:
    rows = [("some_net", lr, seed, "ok") for lr in RATES for seed in (0, 1)]
    table = pd.DataFrame(rows, columns=["experiment", "lr", "seed", "status"])
    return table.assign(epochs=3.0, onset_epoch=1.0)


@pytest.fixture
def figure(monkeypatch, tmp_path):
    """The figure that a draw() made, kept open; and its picture, which must not be empty."""
    kept: list = []
    monkeypatch.setattr(plt, "close", kept.append)

    def make(draw, *arguments):
        path = tmp_path / "figure.png"
        draw(*arguments, [path])
        assert np.asarray(Image.open(path).convert("L")).std() > 1
        return kept[-1]

    yield make
    monkeypatch.undo()
    plt.close("all")


def words(figure) -> str:
    return "\n".join(one.get_text() for one in figure.findobj(plt.Text))


def lines(axis) -> list[np.ndarray]:
    return [np.asarray(line.get_ydata(), float) for line in axis.lines]


# --- equal loss ----------------------------------------------------------------------------------


def level_rows(xi: float) -> pd.DataFrame:
    rows = []
    for by, levels in ((EPOCH, (1.0, 2.0, 5.0)), (LOSS, (0.9, 0.5, 0.1))):
        for level in levels:
            for lr in RATES:
                for quantity in ("within", "between", "xi line", "xi monotone"):
                    for metric in METRICS:
                        value = xi if quantity.startswith("xi") else 0.4
                        key = {"by": by, "level": level, "lr": lr, "quantity": quantity}
                        key |= {"pair_mode": "train-val", "metric": metric}
                        rows.append(key | {"value": value, "low": value - 0.1, "high": value + 0.1})
    return pd.DataFrame(rows)


def order_rows() -> pd.DataFrame:
    key = {"by": LOSS, "quantity": "xi line", "pair_mode": "train-val", "metric": "cosine"}
    return pd.DataFrame([key | {"tau": -0.62, "low": -0.81, "high": -0.43, "seeds": 3}])


def test_rates_are_compared_at_levels(runs, figure):
    drawn = figure(equal_loss.draw, runs, level_rows(1.5), order_rows(), CONFIG["equal_loss"])
    assert "−0.62 (−0.81 to −0.43)" in words(drawn)
    for axis in drawn.axes[6:]:  # the rows of xi
        assert any(np.allclose(line, 1.5) for line in lines(axis))
    assert [text.get_text() for text in drawn.axes[-1].get_xticklabels()] == ["1e-3", "3e-3"]


def test_no_crossing_is_no_number(runs, figure):
    drawn = figure(equal_loss.draw, runs, level_rows(np.inf), order_rows(), CONFIG["equal_loss"])
    crosses = [line for line in drawn.axes[6].lines if line.get_marker() == "x"]
    assert sum(len(line.get_ydata()) for line in crosses) == 3 * len(RATES)
    assert "none" in words(drawn)


def test_a_length_above_the_axis_has_a_mark_within_it(runs, figure):
    drawn = figure(equal_loss.draw, runs, level_rows(11.0), order_rows(), CONFIG["equal_loss"])
    axis = drawn.axes[6]
    marks = [line for line in axis.lines if line.get_marker() == "^"]
    assert sum(len(line.get_ydata()) for line in marks) == 3 * len(RATES)
    assert all(max(line.get_ydata(), default=0) < axis.get_ylim()[1] for line in axis.lines[1:])


def test_rates_without_a_common_loss_say_so(runs, figure):
    rows = level_rows(1.5)
    drawn = figure(
        equal_loss.draw, runs, rows[rows["by"] == EPOCH], order_rows(), CONFIG["equal_loss"]
    )
    assert "no value is common" in words(drawn)


# --- early stopping ------------------------------------------------------------------------------


def stopping_rows() -> pd.DataFrame:
    rows = []
    for lr in RATES:
        for seed in (0, 1):
            for rule, epoch, reached, accuracy in (
                (VALIDATION_LOSS, 4.0, True, 0.9),
                ("sign stiffness", 3.0, True, 0.87),
                ("cosine stiffness", 5.0, False, 0.88),
                (LAST_EPOCH, 5.0, True, 0.88),
            ):
                row = {"lr": lr, "seed": seed, "rule": rule, "epoch": epoch, "reached": reached}
                rows.append(row | {"validation_accuracy": accuracy, "validation_loss": 0.5})
    return pd.DataFrame(rows)


def test_stopping_shows_epochs_and_cost(runs, figure):
    drawn = figure(early_stopping.draw, runs, stopping_rows(), CONFIG["early_stopping"])
    left, right = drawn.axes
    points = {(float(x), float(y)) for line in left.lines for x, y in line.get_xydata()}
    assert {(4.0, 3.0), (4.0, 5.0)} <= points
    costs = np.concatenate(lines(right))
    assert np.isclose(costs, -3).sum() == len(RATES) * 2  # points of accuracy, by sign
    never = [line for line in left.lines if str(line.get_markerfacecolor()) == "white"]
    assert len(never) == len(RATES) * 2


# --- claims --------------------------------------------------------------------------------------


def test_claims_show_verdicts_and_the_deciding_effect(figure):
    key = {"claim": "C1", "verdict": "not decided"}
    rows = pd.DataFrame(
        [
            key
            | {"experiment": name, "experiment_verdict": verdict, "effect_verdict": verdict}
            | {"counts": name == "other_net"}
            | {"value": value, "low": value - 0.1, "high": value + 0.1}
            for name, verdict, value in (
                ("one_net", "supported", 0.37),
                ("other_net", "contradicted", -0.52),
                ("third_net", "", np.nan),
            )
        ]
    )
    rows["effect"] = "share of pairs"
    extents = {"one_net": "1 seed, 3 epochs", "other_net": "2 seeds, 3 epochs"}

    def shown(table: pd.DataFrame) -> tuple[str, list[float]]:
        drawn = figure(claims.draw, table, {"C1": "it is so"}, extents, CONFIG["claims"])
        return words(drawn), [patch.get_alpha() for patch in drawn.axes[0].patches]

    text, opacities = shown(rows)
    for part in ("it is so", "other_net", "share of pairs", "−0.52 (−0.62 to −0.42)", "✗"):
        assert part in text
    # The one that is no evidence has its verdict and no number.
    assert "no evidence: ✓ one_net" in text
    assert "0.37" not in text
    assert "third" not in text
    assert "one_net: 1 seed, 3 epochs; other_net: 2 seeds, 3 epochs" in text
    assert "None of the paper's experiments" not in text
    alone, pale = shown(rows.assign(counts=False, verdict="not run"))
    assert "None of the paper's experiments has been run" in alone
    assert "0.37 (0.27 to 0.47)" in alone
    assert max(pale) < 0.5 * min(opacities)
    short = rows.assign(experiment_verdict="too short", reason="still improving at its end")
    ended, _ = shown(short.assign(effect_verdict=np.nan, effect=np.nan, counts=True))
    assert "still improving at its end" in ended
    assert "nan" not in ended
    silent, _ = shown(rows.assign(experiment_verdict=""))
    assert "No experiment that has been run speaks to these claims." in silent
    unknown, _ = shown(rows.assign(low=np.nan, high=np.nan))
    assert "−0.52, no interval" in unknown


def test_claims_say_a_text_once_for_all_arithmetics(figure):
    row = {"verdict": "not run", "experiment": "net", "counts": False, "effect": "share"}
    row |= {"value": 0.5, "low": 0.4, "high": 0.6, "effect_verdict": "supported"}
    heard = {"C1": "supported", "C1 float32": "supported", "C1 keras": "", "C2": "", "C2 keras": ""}
    rows = pd.DataFrame(
        [row | {"claim": name, "experiment_verdict": verdict} for name, verdict in heard.items()]
    )
    texts = dict.fromkeys(heard, "it is so")
    text = words(figure(claims.draw, rows, texts, {"net": "1 seed"}, CONFIG["claims"]))
    assert text.count("it is so") == 2  # of C1 and of C2
    assert "C1 float32  The same with float32 loss gradients." in text
    assert "C1 keras, C2 keras: the same with other loss gradients." in text
