"""Small tables of every kind of figure, and how tests draw and read them."""

from inspect import signature
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from stiffness.data.hierarchy import Hierarchy
from stiffness.figures import (
    class_matrices,
    class_matrix,
    critical_length,
    distance,
    hierarchy_curves,
    hierarchy_matrix,
    stiffness_curves,
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


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(plt.Text))


def panels(figure: Figure) -> list[plt.Axes]:
    return [axis for axis in figure.axes if axis.get_label() != "<colorbar>"]


def line_values(figure: Figure) -> np.ndarray:
    """Every height at which something was plotted."""
    lines = [line for axis in figure.axes for line in axis.lines]
    return np.concatenate([np.asarray(line.get_ydata(), float) for line in lines])


every_kind = pytest.mark.parametrize("kind", KINDS)
