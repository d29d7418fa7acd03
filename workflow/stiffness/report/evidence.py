"""What one experiment's tables offer to the claims, with resamples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from stiffness.files import read_table, read_tensors, rows
from stiffness.measures.equal_loss import FIRST_EPOCH as FIRST_EPOCH
from stiffness.measures.pairs import Floats
from stiffness.measures.replicates import Replicates, RunValues
from stiffness.measures.seeds import seed_weights
from stiffness.training.runs import OK, read_seed_tables


class NotTestable(Exception):
    """An experiment cannot speak to a claim; the message says what is missing."""


class TooShort(Exception):
    """The runs of an experiment ended too early to decide a claim.

    Attributes:
        effects: what was measured all the same.
    """

    def __init__(self, reason: str, effects: Sequence[Any] = ()) -> None:
        super().__init__(reason)
        self.effects = list(effects)


@dataclass(frozen=True)
class Curve:
    """A quantity of one learning rate, averaged over seeds.

    Attributes:
        epochs: [K] of the checkpoints.
        losses: training losses [K], means over seeds.
        estimates: [K].
        replicates: resamples [K, R], which vary examples and seeds.
    """

    epochs: Floats
    losses: Floats
    estimates: Floats
    replicates: Floats

    def near(self, epoch: float) -> int:
        """Return the place of the nearest checkpoint."""
        return int(np.abs(self.epochs - epoch).argmin())

    @property
    def late(self) -> slice:
        """The checkpoints from epoch 1 on."""
        return slice(int(np.searchsorted(self.epochs, FIRST_EPOCH)), None)


class Evidence:
    """One experiment: its settings and its tables, each read when it is first asked for.

    Args:
        name: the experiment's name.
        settings: the experiment's entry of the configuration, defaults filled in.
        files: paths of what is measured. ``tables`` holds the tables by arithmetic and name;
            ``parts`` holds rows (learning rate, seed, path), one per run and segment, by the names
            "classes", "whole_set", "replicates/<arithmetic>" and "layer_stiffness/<table>";
            ``arrays`` is the data set's file, or None. A part that is absent is not measured.
        source: where the data set comes from ("text", "torchvision", ...).
        has_hierarchy: whether the classes have a hierarchy.
    """

    def __init__(
        self,
        name: str,
        settings: Mapping[str, Any],
        files: Mapping[str, Any],
        source: str,
        has_hierarchy: bool,
    ) -> None:
        self.name, self.settings, self.files = name, settings, files
        self.source, self.has_hierarchy = source, has_hierarchy
        self.reference = str(settings["reference_learning_rate"])
        self._replicates: dict[str, Replicates] = {}

    def table(self, name: str, arithmetic: str = "exact") -> pd.DataFrame:
        """Read a table of the experiment, such as "summary".

        Raises:
            NotTestable: the experiment has no such table.
            StiffnessError: the table's file is missing or unreadable.
        """
        path = self.files["tables"].get(arithmetic, {}).get(name)
        if path is None:
            raise NotTestable(f"table {name} of arithmetic {arithmetic} is not measured")
        return read_table(path)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """Statuses, onsets and best scores: one row per run."""
        return self.table("runs")

    @cached_property
    def history(self) -> pd.DataFrame:
        """Losses and accuracies: one row per checkpoint of each run."""
        return self.table("history")

    @cached_property
    def critical_length(self) -> pd.DataFrame:
        """Critical lengths and fits: one row per checkpoint, space, estimator, metric and mode."""
        return self.table("critical_length")

    def alive(self, lr: str | None = None) -> pd.DataFrame:
        """Return the runs of a learning rate (the reference) that did not die.

        Raises:
            NotTestable: there is none.
        """
        rate = lr or self.reference
        alive = rows(self.runs, lr=rate, status=OK)
        if alive.empty:
            raise NotTestable(f"no run at learning rate {rate} is alive")
        return alive

    def replicates(self, arithmetic: str = "exact") -> Replicates:
        """Return the resamples of all runs, in one arithmetic of the loss gradient.

        Raises:
            NotTestable: the arithmetic is not measured.
        """
        parts = self.files["parts"].get(f"replicates/{arithmetic}")
        if not parts:
            raise NotTestable(f"arithmetic {arithmetic} is not measured")
        if arithmetic not in self._replicates:
            runs, files = [(lr, seed) for lr, seed, _ in parts], [path for *_, path in parts]
            summary = self.table("summary", arithmetic)
            self._replicates[arithmetic] = Replicates.from_files(runs, files, self.history, summary)
        return self._replicates[arithmetic]

    def curve(
        self,
        quantity: str,
        metric: str = "sign",
        mode: str = "train-val",
        arithmetic: str = "exact",
        lr: str | None = None,
    ) -> Curve:
        """Return a quantity of the summary, averaged over the seeds of a rate (the reference).

        Raises:
            NotTestable: no run is alive, or the arithmetic is not measured.
        """
        return self._mean(self.runs_of(quantity, metric, mode, arithmetic, lr))

    def runs_of(
        self,
        quantity: str,
        metric: str = "sign",
        mode: str = "train-val",
        arithmetic: str = "exact",
        lr: str | None = None,
    ) -> list[RunValues]:
        """Return a quantity of the summary, one entry per living run of a rate (the reference).

        Raises:
            NotTestable: no run is alive, or the arithmetic is not measured.
        """
        rate = lr or self.reference
        self.alive(rate)
        found = self.replicates(arithmetic).stiffness(quantity, mode, metric)
        return [run for run in found if run.lr == rate]

    def seeds(self, all_rates: bool = False) -> int:
        """Count the living seeds of the reference rate, or of the rate that has the fewest."""
        alive = rows(self.runs, status=OK).groupby("lr")["seed"].nunique()
        rates = sorted(self.runs["lr"].unique()) if all_rates else [self.reference]
        return min(int(alive.get(rate, 0)) for rate in rates)

    @cached_property
    def classes(self) -> int:
        """The number of classes.

        Raises:
            NotTestable: class stiffness is not measured.
        """
        parts = self.files["parts"].get("classes")
        if not parts:
            raise NotTestable("class stiffness is not measured")
        return int(read_table(parts[0][-1])["class_a"].nunique())

    def lengths(self, estimator: str) -> list[RunValues]:
        """Return xi (cosine, train-val) of the seeds of the reference learning rate.

        Raises:
            NotTestable: no run is alive.
        """
        self.alive()
        space = self.settings["distance_layers"][0]
        found = self.replicates().critical_lengths(estimator, space, "train-val", "cosine")
        return [run for run in found if run.lr == self.reference]

    def weights(self, runs: Sequence[RunValues]) -> Floats:
        """Return the weights [S, R] of the seeds; see ``seed_weights``."""
        return seed_weights(
            len(runs), runs[0].replicates.shape[1], self.settings["bootstrap"]["seed"]
        )

    def onset(self) -> float:
        """Return the epoch of the lowest validation loss, the median over seeds.

        Raises:
            TooShort: the loss has not risen again in every run.
        """
        alive = self.alive()
        if not alive["onset_reached"].all():
            raise TooShort("over-fitting has not set in by the end of every run")
        return float(alive["onset_epoch"].median())

    def whole_set(self) -> pd.DataFrame:
        """Return cosine class stiffness over all pairs of the training set, by step and seed.

        Raises:
            NotTestable: the experiment does not measure it, or has not yet.
        """
        return self._part("whole_set", "the whole training set is not measured (figure whole_set)")

    def layers(self, name: str) -> pd.DataFrame:
        """Return a table of stiffness by layer of the reference rate, with a column seed.

        Raises:
            NotTestable: it is not measured, or has not been yet.
        """
        missing = "stiffness by layer is not measured (figure layers)"
        return self._part(f"layer_stiffness/{name}", missing)

    def validation_examples(self) -> int:
        """Return the number of validation examples of the data set.

        Raises:
            NotTestable: the data set's arrays are not among the results.
            StiffnessError: their file is missing or unreadable.
        """
        if self.files["arrays"] is None:
            raise NotTestable("the data set's arrays.safetensors is not there")
        tensors, _ = read_tensors(self.files["arrays"], ["validation_targets"])
        return len(tensors["validation_targets"])

    def _part(self, name: str, missing: str) -> pd.DataFrame:
        """Join a table of the living runs of the reference rate, with a column seed."""
        alive = set(self.alive()["seed"])
        parts = [
            (path, seed)
            for lr, seed, path in self.files["parts"].get(name, ())
            if lr == self.reference and seed in alive
        ]
        table = read_seed_tables(*zip(*parts, strict=True)) if parts else pd.DataFrame()
        if table.empty:
            raise NotTestable(missing)
        return table

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
