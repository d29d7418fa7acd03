"""What one experiment's tables offer to the claims, with resamples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import safe_open

from stiffness.files import read_table
from stiffness.measures.pairs import Floats
from stiffness.measures.replicates import Replicates, RunValues
from stiffness.measures.seeds import seed_weights
from stiffness.training.runs import OK, concatenate_tables

FIRST_EPOCH = 1.0
"""Where training has begun in earnest; before it, stiffness depends on where a network started."""


class NotTestable(Exception):
    """An experiment cannot speak to a claim; the message says what is missing."""


@dataclass(frozen=True)
class Curve:
    """A quantity of the reference learning rate, averaged over seeds.

    Attributes:
        epochs, losses: [K] of the checkpoints; training losses are means over seeds.
        estimates: [K]; ``replicates`` [K, R] vary examples and seeds.
    """

    epochs: Floats
    losses: Floats
    estimates: Floats
    replicates: Floats

    def near(self, epoch: float) -> int:
        """The nearest checkpoint."""
        return int(np.abs(self.epochs - epoch).argmin())

    @property
    def late(self) -> slice:
        """The checkpoints from epoch 1 on."""
        return slice(int(np.searchsorted(self.epochs, FIRST_EPOCH)), None)


class Evidence:
    """One experiment: its settings and its tables, each read when first asked for.

    Args:
        name: of the experiment; its files lie in ``results``/name.
        settings: its entry of the configuration, defaults filled in.
        segments: (learning rate, seed, segment) of its trainings.
        source: of its data set ("text", "torchvision", ...); has_hierarchy: of its classes.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        segments: Sequence[tuple[str, int, str]],
        source: str,
        has_hierarchy: bool,
        results: str | Path = "results",
    ) -> None:
        self.name, self.settings, self.segments = name, settings, list(segments)
        self.source, self.has_hierarchy = source, has_hierarchy
        self.results = Path(results)
        self.folder = self.results / name
        self.reference = str(settings["reference_learning_rate"])
        self._replicates: dict[str, Replicates] = {}

    def table(self, name: str, precision: str = "exact") -> pd.DataFrame:
        return read_table(self.folder / "tables" / precision / f"{name}.parquet")

    @cached_property
    def runs(self) -> pd.DataFrame:
        return self.table("runs")

    @cached_property
    def history(self) -> pd.DataFrame:
        return self.table("history")

    @cached_property
    def critical_length(self) -> pd.DataFrame:
        return self.table("critical_length")

    def alive(self, lr: str | None = None) -> pd.DataFrame:
        """The runs of a learning rate (the reference) that did not die.

        Raises:
            NotTestable: there is none.
        """
        rate = lr or self.reference
        rows = self.runs[(self.runs["lr"] == rate) & (self.runs["status"] == OK)]
        if rows.empty:
            raise NotTestable(f"no run at learning rate {rate} is alive")
        return rows

    def replicates(self, precision: str = "exact") -> Replicates:
        if precision not in self.settings["precisions"]:
            raise NotTestable(f"precision {precision} is not measured")
        if precision not in self._replicates:
            files = [
                self._run_folder(lr, seed)
                / f"measures/{precision}/{segment}/replicates.safetensors"
                for lr, seed, segment in self.segments
            ]
            runs = [(lr, seed) for lr, seed, _ in self.segments]
            summary = self.table("summary", precision)
            self._replicates[precision] = Replicates.from_files(runs, files, self.history, summary)
        return self._replicates[precision]

    def curve(
        self,
        quantity: str,
        metric: str = "sign",
        mode: str = "train-val",
        precision: str = "exact",
        lr: str | None = None,
    ) -> Curve:
        """A quantity of the summary.

        Raises:
            NotTestable: no run is alive, or the precision is not measured.
        """
        rate = lr or self.reference
        self.alive(rate)
        found = self.replicates(precision).stiffness(quantity, mode, metric)
        return self._mean([run for run in found if run.lr == rate])

    def lengths(self, estimator: str, layer: str | None = None) -> list[RunValues]:
        """xi (cosine, train-val) of the seeds of the reference learning rate."""
        self.alive()
        space = layer or self.settings["distance_layers"][0]
        found = self.replicates().critical_lengths(estimator, space, "train-val", "cosine")
        return [run for run in found if run.lr == self.reference]

    def weights(self, runs: Sequence[RunValues]) -> Floats:
        """[S, R] of the seeds; see ``seed_weights``."""
        return seed_weights(
            len(runs), runs[0].replicates.shape[1], self.settings["bootstrap"]["seed"]
        )

    def onset(self) -> float:
        """The epoch of the lowest validation loss, the median over seeds.

        Raises:
            NotTestable: the loss has not risen again in every run.
        """
        alive = self.alive()
        if not alive["onset_reached"].all():
            raise NotTestable("over-fitting has not set in by the end of every run")
        return float(alive["onset_epoch"].median())

    def cells(self, metric: str, mode: str = "train-val") -> pd.DataFrame:
        """Class stiffness of the reference rate by step and seed, of the runs that are alive."""
        alive = set(self.alive()["seed"])
        parts = []
        for lr, seed, segment in self.segments:
            if lr == self.reference and seed in alive:
                path = self._run_folder(lr, seed) / f"measures/exact/{segment}/classes.parquet"
                part = read_table(path)
                chosen = (part["metric"] == metric) & (part["pair_mode"] == mode)
                parts.append(part[chosen].assign(seed=seed))
        return concatenate_tables(parts)

    def whole_set(self) -> pd.DataFrame:
        """Cosine class stiffness over all pairs of the training set, by step and seed.

        Raises:
            NotTestable: the experiment does not measure it, or has not yet.
        """
        parts = []
        for lr, seed, segment in self.segments:
            path = self._run_folder(lr, seed) / f"whole_set/{segment}.parquet"
            if lr == self.reference and path.exists():
                parts.append(read_table(path).assign(seed=seed))
        parts = [part for part in parts if len(part)]
        if not parts:
            raise NotTestable("the whole training set is not measured (figure whole_set)")
        return concatenate_tables(parts)

    def layers(self, name: str) -> pd.DataFrame:
        """A table of stiffness by layer, of the reference rate, with a column seed.

        Raises:
            NotTestable: it is not measured, or has not been yet.
        """
        alive = set(self.alive()["seed"])
        parts = []
        for lr, seed, segment in self.segments:
            path = self._run_folder(lr, seed) / f"layer_stiffness/exact/{segment}/{name}.parquet"
            if lr == self.reference and seed in alive and path.exists():
                parts.append(read_table(path).assign(seed=seed))
        parts = [part for part in parts if len(part)]
        if not parts:
            raise NotTestable("stiffness by layer is not measured (figure layers)")
        return concatenate_tables(parts)

    def validation_examples(self) -> int:
        """Of the data set.

        Raises:
            NotTestable: its arrays are not among the results.
        """
        path = self.results / "data" / self.settings["dataset"] / "arrays.safetensors"
        if not path.exists():
            raise NotTestable(f"{path} is not there")
        with safe_open(path, "np") as file:
            return int(file.get_slice("validation_targets").get_shape()[0])

    def _run_folder(self, lr: str, seed: int) -> Path:
        return self.folder / f"lr={lr}" / f"seed={seed}"

    def _mean(self, runs: Sequence[RunValues]) -> Curve:
        shared = sorted(set.intersection(*(set(run.epochs) for run in runs)))
        places = [np.searchsorted(run.epochs, shared) for run in runs]
        pairs = list(zip(runs, places, strict=True))
        replicates = np.stack([run.replicates[place] for run, place in pairs])
        return Curve(
            np.array(shared),
            np.mean([run.losses[place] for run, place in pairs], axis=0),
            np.mean([run.estimates[place] for run, place in pairs], axis=0),
            np.einsum("skr,sr->kr", replicates, self.weights(runs)),
        )
