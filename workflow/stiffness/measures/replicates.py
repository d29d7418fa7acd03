"""The resamples behind the intervals, read back for a whole experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stiffness.files import read_tensors, rows
from stiffness.measures.distance import ESTIMATORS
from stiffness.measures.pairs import Floats
from stiffness.training.runs import OK


@dataclass(frozen=True)
class RunValues:
    """One quantity of one run at its checkpoints.

    Attributes:
        lr: learning rate, as written in the configuration.
        seed: random seed of the run.
        epochs: [K], ascending.
        losses: training losses [K].
        estimates: [K]; a critical length may be infinite (no crossing).
        replicates: bootstrap resamples [K, R] of the estimates.
    """

    lr: str
    seed: int
    epochs: Floats
    losses: Floats
    estimates: Floats
    replicates: Floats


@dataclass(frozen=True)
class Replicates:
    """The resamples of an experiment's runs by name; see ``tables.Measured``.

    Attributes:
        files: the files of the segments of each (learning rate, seed), in order.
        history: the experiment's table of epochs, losses and statuses.
        summary: the experiment's table of stiffness within and between classes, and of groups.
    """

    files: dict[tuple[str, int], list[str | Path]]
    history: pd.DataFrame
    summary: pd.DataFrame

    @classmethod
    def from_files(
        cls,
        runs: Sequence[tuple[str, int]],
        files: Sequence[str | Path],
        history: pd.DataFrame,
        summary: pd.DataFrame,
    ) -> "Replicates":
        """Name the files of an experiment; each is read when it is first asked for.

        Args:
            runs: the (learning rate, seed) of each file.
            files: files of resamples, one per run and segment.
            history: see the class.
            summary: see the class.
        """
        by_run: dict[tuple[str, int], list[str | Path]] = {}
        for run, file in zip(runs, files, strict=True):
            by_run.setdefault(run, []).append(file)
        return cls(by_run, history, summary)

    def stiffness(self, quantity: str, mode: str, metric: str) -> list[RunValues]:
        """Return a quantity of the summary, such as "within", of all runs that are alive.

        Raises:
            StiffnessError: a file of resamples is missing, unreadable or lacks the quantity.
        """
        values = rows(self.summary, quantity=quantity, pair_mode=mode, metric=metric)
        return self._values(f"{quantity}/{mode}/{metric}", values)

    def critical_lengths(
        self, estimator: str, layer: str, mode: str, metric: str
    ) -> list[RunValues]:
        """Return the critical length xi of all runs that are alive (figures 11, 12).

        The value is the median of the resamples, which is defined where the estimate is not; it is
        infinite where there is no crossing.

        Raises:
            StiffnessError: a file of resamples is missing, unreadable or lacks the quantity.
        """
        assert estimator in ESTIMATORS
        return self._values(f"xi/{estimator}/{layer}/{mode}/{metric}", None)

    def _values(self, name: str, values: pd.DataFrame | None) -> list[RunValues]:
        found = []
        for (lr, seed), files in self.files.items():
            history = rows(self.history, lr=lr, seed=seed).set_index("step").sort_index()
            if len(history) == 0 or history["status"].iloc[0] != OK:
                continue
            steps, parts = [], []
            for file in files:
                tensors, _ = read_tensors(file, [name, "steps"])
                steps.append(tensors["steps"].numpy())
                parts.append(tensors[name].numpy())
            step, replicates = np.concatenate(steps), np.concatenate(parts).astype(np.float64)
            kept = np.isin(step, history.index)  # later ones are left from a longer training
            step, replicates = step[kept], replicates[kept]
            if values is None:
                exact: Floats = _median(replicates)
            else:
                exact = (
                    rows(values, lr=lr, seed=seed)
                    .set_index("step")
                    .loc[step, "value"]
                    .to_numpy(np.float64)
                )
            at = history.loc[step]
            epochs, losses = (at[key].to_numpy(np.float64) for key in ("epoch", "train_loss"))
            found.append(RunValues(lr, seed, epochs, losses, exact, replicates))
        return found


def _median(replicates: Floats) -> Floats:
    """Take the median along the last axis; of two middle values the lower, which may be inf."""
    ordered = np.sort(replicates, axis=-1)
    middle = (replicates.shape[-1] - np.isnan(ordered).sum(-1) - 1) // 2
    median = np.take_along_axis(ordered, np.maximum(middle, 0)[..., None], -1)[..., 0]
    return np.asarray(np.where(middle >= 0, median, np.nan))
