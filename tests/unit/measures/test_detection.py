"""Scores that find mislabelled examples."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from stiffness.measures.detection import COLUMNS, SCORES, area, detection


def test_the_area_is_that_of_the_roc_curve() -> None:
    generator = np.random.default_rng(0)
    wrong = generator.random(200) < 0.3
    scores = np.round(generator.normal(size=200) + wrong, 1)  # with ties
    value, low, high = area(scores, wrong)
    assert value == pytest.approx(roc_auc_score(wrong, scores), abs=1e-12)
    assert 0 < low < value < high < 1


def test_the_interval_covers() -> None:
    """Of normal scores one standard deviation apart the AUC is Phi(1 / sqrt 2) = 0.760."""
    generator = np.random.default_rng(1)
    wrong = np.arange(120) < 40
    held = 0
    for _ in range(400):
        _, low, high = area(generator.normal(size=120) + wrong, wrong)
        held += low <= 0.7602 <= high
    # 95 % of 400 are 380 with a standard deviation of 4.4.
    assert 365 <= held <= 395


def examples() -> pd.DataFrame:
    """Four examples at three checkpoints; the second and third are mislabelled."""
    rows = []
    correct = [[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1]]
    for step, right in enumerate(correct):
        for example in range(4):
            wrong = example in (1, 2)
            rows.append(
                {
                    "step": step,
                    "epoch": float(step),
                    "example": example,
                    "split": "train",
                    "mislabelled": wrong,
                    "log_norm": float(wrong) - step,
                    "loss": float(wrong),
                    "el2n": 0.5,
                    "correct": right[example],
                    "own_class_sign": -0.5 if wrong else 0.5,
                    "own_class_cosine": np.nan if example == 0 else 0.1 * example,
                }
            )
    return pd.DataFrame(rows)


def test_each_score() -> None:
    found = detection(examples(), 0.1)
    assert list(found) == COLUMNS
    value = found.set_index(["step", "score"])["value"]
    for score in ("grand", "loss", "tracin", "own_class_sign"):
        assert value[2, score] == 1
    assert value[2, "el2n"] == 0.5
    # The third was never right, the second was forgotten once, the others never.
    assert value[2, "forgetting"] == 1
    # At first nothing has been forgotten; the third and the fourth were never right.
    assert value[0, "forgetting"] == 0.5
    assert set(found["score"]) == {*SCORES}
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


def test_the_standard_error_is_that_of_hanley_and_mcneil() -> None:
    n, m = 10, 30
    value, low, high = area(np.arange(40.0) % 7, np.arange(40) % 4 < 1)
    first, second = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (n - 1) * (first - value**2) + (m - 1) * (second - value**2)
    assert high - value == pytest.approx(1.959964 * (variance / (n * m)) ** 0.5)
    assert value - low == pytest.approx(high - value)


def test_segments_add_up_in_any_order() -> None:
    table = examples()
    shuffled = pd.concat([table[table["step"] == step] for step in (2, 0, 1)])
    pd.testing.assert_frame_equal(detection(shuffled, 0.1), detection(table, 0.1))


def test_clean_labels_have_nothing_to_be_found() -> None:
    table = examples().assign(mislabelled=False)
    assert detection(table, 0.1).empty
