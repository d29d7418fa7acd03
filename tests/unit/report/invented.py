"""An invented experiment in memory, for which every claim holds unless it is told otherwise."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stiffness.measures.comparison import compare
from stiffness.measures.pairs import METRICS
from stiffness.measures.replicates import RunValues
from stiffness.report.evidence import Evidence, NotTestable
from stiffness.training.runs import OK

EPOCHS = np.array([0, 0.1, 1, 2, 3, 4, 5, 6, 7, 8])
TIME = EPOCHS / EPOCHS[-1]
ONSET = 3.0
RATES = ("1e-4", "1e-3", "1e-2")
ARITHMETICS = ("exact", "float32", "keras", "bfloat16")
CLASSES = "abcdef"
NOISE, R = 0.002, 160  # of resamples, whose intervals are about 0.004 on either side

FALLING = [0.97, 0.97, 1, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.4]
# By quantity, (quantity, metric), or (quantity, metric, arithmetic or pair mode): over EPOCHS.
AS_CLAIMED: dict[Any, Any] = {
    ("within", "sign"): FALLING,
    ("within", "cosine"): [0.9, 0.9, 0.9, 0.85, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2],
    ("within", "sign", "float32"): [*FALLING[:-1], 0.3],
    ("within", "sign", "keras"): [*FALLING[:-1], 0.2],
    ("within", "sign", "bfloat16"): [*FALLING[:-1], 0.3],
    "between": [-0.4, -0.35, -0.3, -0.3, -0.3, -0.2, -0.15, -0.1, -0.05, -0.02],
    "positive_share": [0.5] * 10,
    "super_class": [0.1, 0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.3, 0.2, 0.15],
    "super_super_class": [0.0, 0.3, 0.3, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0.08],
    "length": 1.5 - TIME / 2,
    "length_of_rate": [0.2, 0.0, -0.2],
    "crossing": "measured",
    "accuracy": [0.9, 0.901, 0.902],
    "accuracies": [0.1, 0.5, 0.6, 0.7, 0.8, 0.85, 1, 0.9, 0.9, 0.9],  # relative, over EPOCHS
    "end_of_rate": [0.2, 0.0, -0.2],
    "losses": 2.0 - 0.2 * np.arange(10),
    "loss_of_rate": [0.0, 0.0, 0.0],
    "slope": -0.5,
    "own_slope": -0.4,
    "half_interval": 0.01,
    "whole": 0.0,  # the whole set minus the subset
    "layers": [1.5, 1.0, 0.5],
    "medians": [1.0, 1.0, 1.0],
    "layer_crossings": ["measured"] * 3,
    "onset": ONSET,
    "onset_reached": True,
    "noise_of": {("between", "cosine"): 0.004},
    "seeds": 5,
    "seed_noise": 0.0,
}


class Invented(Evidence):
    """Evidence without files; keyword arguments replace entries of ``AS_CLAIMED``.

    Args:
        shape: what differs from ``AS_CLAIMED``.
        settings: what differs from the settings below.
        source: of the data.
        has_hierarchy: of the classes.
    """

    def __init__(
        self,
        shape: Mapping[Any, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        source: str = "text",
        has_hierarchy: bool = True,
    ) -> None:
        wanted = {
            "dataset": "cifar100",
            "model": {"name": "resnet20v1"},
            "reference_learning_rate": "1e-3",
            "arithmetic": list(ARITHMETICS),
            "distance_layers": ["input"],
            "bootstrap": {"resamples": R, "seed": 0},
        } | dict(settings or {})
        files = {"tables": {}, "parts": {}, "arrays": None}
        super().__init__("some", wanted, files, source, has_hierarchy)
        self.shape = AS_CLAIMED | dict(shape or {})

    classes = len(CLASSES)

    @cached_property
    def tables(self) -> dict[str, pd.DataFrame]:
        return self._made_tables()

    @cached_property
    def order(self) -> pd.DataFrame:
        return compare(
            {
                (f"xi {estimator}", "train-val", "cosine"): self.lengths_of(estimator)
                for estimator in ("line", "area")
            },
            seed=0,
        )[1]

    def validation_examples(self) -> int:
        return 10000

    def table(self, name: str, arithmetic: str = "exact") -> pd.DataFrame:
        if arithmetic not in self.settings["arithmetic"]:
            raise NotTestable(f"table {name} of arithmetic {arithmetic} is not measured")
        return self.order if name == "order" else self.tables[name]

    def replicates(self, arithmetic: str = "exact") -> Any:
        if arithmetic not in self.settings["arithmetic"]:
            raise NotTestable(f"arithmetic {arithmetic} is not measured")
        return _Replicates(self, arithmetic)

    def _part(self, name: str, missing: str) -> pd.DataFrame:
        return self.tables[name]

    def run_values(self, key: str, place: int, seed: int, values: np.ndarray, noise: float) -> Any:
        """A run of a rate, with resamples around its values."""
        generator = np.random.default_rng([len(key), place, seed])
        values = values + self.shape["seed_noise"] * generator.normal()
        drawn = values[:, None] + generator.normal(0, noise, (len(EPOCHS), R))
        losses = self.shape["losses"] + self.shape["loss_of_rate"][place]
        return RunValues(RATES[place], seed, EPOCHS, losses, values, drawn)

    def runs_by_rate(self) -> list[tuple[int, int]]:
        return [(place, seed) for place in range(3) for seed in range(self.shape["seeds"])]

    def lengths_of(self, estimator: str) -> list[RunValues]:
        found = []
        for place, seed in self.runs_by_rate():
            values = np.array(self.shape.get(f"length {estimator}", self.shape["length"]), float)
            by_rate = self.shape.get(f"of_rate {estimator}", self.shape["length_of_rate"])
            found.append(self.run_values("length", place, seed, values + by_rate[place], NOISE))
        return found

    def _made_tables(self) -> dict[str, pd.DataFrame]:
        shape = self.shape
        runs, history, summary, fits, whole, layers = [], [], [], [], [], []
        for place, seed in self.runs_by_rate():
            key = {"experiment": "some", "lr": RATES[place], "seed": seed, "status": OK}
            best = shape["accuracy"][place] + 1e-5 * seed
            onset = shape["onset"] + shape.get("onset_noise", 0.0) * (seed - 2)
            row = {"onset_epoch": onset, "onset_reached": shape["onset_reached"]}
            runs.append(key | row | {"best_validation_accuracy": best})
            losses = shape["losses"] + shape["loss_of_rate"][place]
            accuracies = shape.get(f"accuracies {RATES[place]}", shape["accuracies"])
            for step, epoch in enumerate(EPOCHS):
                at = {"step": step, "epoch": epoch}
                accuracy = best * accuracies[step]
                row = {"train_loss": losses[step], "validation_accuracy": accuracy}
                history.append(key | at | row)
                about = {"pair_mode": "train-val", "metric": "cosine", "layer": "input"}
                crossing = {"crossing": shape.get(("crossing", step), shape["crossing"])}
                for estimator, slope in (
                    ("line", shape["slope"]),
                    ("fixed_effects", shape["own_slope"]),
                ):
                    slope = shape.get(("slope", step), slope) if estimator == "line" else slope
                    ends = {"slope": slope, "slope_low": slope - 0.1, "slope_high": slope + 0.1}
                    row = about | {"estimator": estimator} | ends
                    fits.append(key | at | row | crossing)
                for quantity in ("within", "between"):
                    value, half = 0.3, shape["half_interval"]
                    ends = {"value": value, "low": value - half, "high": value + half}
                    row = {"pair_mode": "train-train", "metric": "cosine", "quantity": quantity}
                    summary.append(key | at | row | ends)
            if RATES[place] == self.reference:
                for a in "ab":
                    for b in "ab":
                        value = 0.3 + shape["whole"]
                        whole.append(
                            {"seed": seed, "step": 9, "class_a": a, "class_b": b, "value": value}
                        )
                for depth, level in enumerate(shape["layers"]):
                    row = {"seed": seed, "step": 9, "depth": depth, "estimator": "line"}
                    row |= {"metric": "cosine", "pair_mode": "train-val"}
                    row |= {"crossing": shape["layer_crossings"][depth]}
                    row |= {"median_distance": shape["medians"][depth]}
                    ends = {"value": level, "low": level - 0.1, "high": level + 0.1}
                    layers.append(row | ends)
        made = {"runs": runs, "history": history, "summary": summary, "critical_length": fits}
        made |= {"whole_set": whole, "layer_stiffness/critical_length": layers}
        return {name: pd.DataFrame(rows) for name, rows in made.items()}


class _Replicates:
    def __init__(self, evidence: Invented, arithmetic: str) -> None:
        self.evidence, self.arithmetic = evidence, arithmetic

    def stiffness(self, quantity: str, mode: str, metric: str) -> list[RunValues]:
        shape = self.evidence.shape
        keys = [
            (quantity, metric, self.arithmetic),
            (quantity, metric, mode),
            (quantity, metric),
            quantity,
        ]
        values = np.array(next(shape[key] for key in keys if key in shape), float)
        noise = shape["noise_of"].get((quantity, metric), NOISE)
        found = []
        for place, seed in self.evidence.runs_by_rate():
            shift = shape["end_of_rate"][place] * TIME if quantity == "within" else 0.0
            name = f"{quantity}{metric}{mode}{self.arithmetic}"
            found.append(self.evidence.run_values(name, place, seed, values + shift, noise))
        return found

    def critical_lengths(
        self, estimator: str, layer: str, mode: str, metric: str
    ) -> list[RunValues]:
        assert (layer, mode, metric) == ("input", "train-val", METRICS[1])
        return self.evidence.lengths_of(estimator)
