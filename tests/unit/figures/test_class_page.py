"""The page of class matrices: what it holds, and that it needs nothing else."""

import base64
import json
import re
from typing import Any

import numpy as np
import pandas as pd

from stiffness.figures.class_page import page
from stiffness.plan.config import Figures

NAMES = ["</script>", "b & c", "d"]
OPTIONS = Figures().model_dump()["class_matrices"] | {"pair_modes": ["train-val"]}
KEY = {"experiment": "some_net", "lr": "1e-3", "seed": 0, "status": "ok"}


def made(**changes: Any) -> str:
    rows = [
        {"seed": 0, "step": step, "metric": metric, "pair_mode": "train-val", "n_pairs": 100 + a}
        | {"class_a": NAMES[a], "class_b": NAMES[b]}
        | {"value": 0.1 * a - 0.2 * b, "low": 0.1 * a - 0.2 * b - 0.01, "high": 0.5}
        for step in (0, 50)
        for metric in ("sign", "cosine")
        for a in range(3)
        for b in range(3)
    ]
    classes = pd.DataFrame(rows)
    alone = (classes["class_a"] == "d") & (classes["class_b"] == "d")
    classes.loc[alone, ["value", "low", "high"]] = np.nan
    history = [
        KEY | {"step": step, "epoch": step / 50, "validation_accuracy": 0.5} for step in (0, 50)
    ]
    runs = pd.DataFrame([KEY | {"epochs": 1.0} | changes])
    return page(runs, pd.DataFrame(history), classes, "1e-3", [0, "last"], OPTIONS)


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_every_matrix_is_there_with_intervals_and_pairs() -> None:
    data = data_of(made())
    assert data["names"] == NAMES
    found = [(one["stage"], one["metric"]) for one in data["panels"]]
    assert found == [
        (stage, f"{metric} stiffness")
        for metric in ("sign", "cosine")
        for stage in ("initialisation", "epoch 1")
    ]
    for panel in data["panels"]:
        cells = np.frombuffer(base64.b64decode(panel["cells"]), "<i2").reshape(3, 3, 3)
        assert (cells[:, 2, 2] == data["undefined"]).all()
        value, low, high = cells[:, 1, 2] / data["scale"]
        np.testing.assert_allclose([value, low, high], [-0.3, -0.31, 0.5], atol=1e-4)
        pairs = np.frombuffer(base64.b64decode(panel["pairs"]), "<u4").reshape(3, 3)
        assert pairs[:, 0].tolist() == [100, 101, 102]
    assert len(data["shades"]) == 101


def test_the_page_names_its_run_and_asks_for_nothing() -> None:
    text = made()
    assert "some_net, learning rate 1e-3, 1 seed, 1 epoch" in text
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)


def test_a_dead_run_has_no_matrices() -> None:
    text = made(status="diverged")
    assert data_of(text)["panels"] == []
    assert "not a finding: diverged" in text
