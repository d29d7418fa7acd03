"""The resamples behind the intervals, read back for a whole experiment."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stiffness.files import read_tensors
from stiffness.measures.comparison import RunValues
from stiffness.measures.distance import ESTIMATORS
from stiffness.measures.pairs import Floats
from stiffness.training.runs import OK


@dataclass(frozen=True)
class Replicates:
    """Resamples of an experiment's runs by name; see ``tables.Measured``.

    Attributes:
        files: of the segments of each (learning rate, seed), in order.
        history: the experiment's table, for epochs, losses and which runs are alive.
        summary: its within-class and between-classes stiffness, and that of groups.
    """

    files: dict[tuple[str, int], list[str | Path]]
    history: pd.DataFrame
    summary: pd.DataFrame

    @classmethod
    def of(
        cls,
        runs: Sequence[tuple[str, int]],
        files: Sequence[str | Path],
        history: pd.DataFrame,
        summary: pd.DataFrame,
    ) -> "Replicates":
        """``files[k]`` is a segment of ``runs[k]``."""
        by_run: dict[tuple[str, int], list[str | Path]] = {}
        for run, file in zip(runs, files, strict=True):
            by_run.setdefault(run, []).append(file)
        return cls(by_run, history, summary)

    def stiffness(self, quantity: str, mode: str, metric: str) -> list[RunValues]:
        """A quantity of the summary, such as "within", of all runs that are alive."""
        rows = self.summary
        rows = rows[
            (rows["quantity"] == quantity)
            & (rows["pair_mode"] == mode)
            & (rows["metric"] == metric)
        ]
        return self._values(f"{quantity}/{mode}/{metric}", rows)

    def critical_lengths(
        self, estimator: str, layer: str, mode: str, metric: str
    ) -> list[RunValues]:
        """xi of all runs that are alive; infinite where there is no crossing.

        The value is the median of the resamples, which is defined where the estimate is not.
        """
        assert estimator in ESTIMATORS
        return self._values(f"xi/{estimator}/{layer}/{mode}/{metric}", None)

    def _values(self, name: str, values: pd.DataFrame | None) -> list[RunValues]:
        found = []
        for (lr, seed), files in self.files.items():
            of_run = (self.history["lr"] == lr) & (self.history["seed"] == seed)
            history = self.history[of_run].set_index("step").sort_index()
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
                mine = values[(values["lr"] == lr) & (values["seed"] == seed)].set_index("step")
                exact = mine.loc[step, "value"].to_numpy(np.float64)
            at = history.loc[step]
            epochs, losses = (at[key].to_numpy(np.float64) for key in ("epoch", "train_loss"))
            found.append(RunValues(lr, seed, epochs, losses, exact, replicates))
        return found


def _median(replicates: Floats) -> Floats:
    """Along the last axis; of an even number, the lower of the two, which may be infinite."""
    ordered = np.sort(replicates, axis=-1)
    middle = (replicates.shape[-1] - np.isnan(ordered).sum(-1) - 1) // 2
    median = np.take_along_axis(ordered, np.maximum(middle, 0)[..., None], -1)[..., 0]
    return np.asarray(np.where(middle >= 0, median, np.nan))
