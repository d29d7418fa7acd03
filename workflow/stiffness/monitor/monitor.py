"""``StiffnessMonitor``: stiffness in any training loop."""

import logging
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from stiffness.data.batch import Inputs, concatenate_inputs, length, place, take, trim_padding
from stiffness.data.evaluation import Evaluation
from stiffness.errors import StiffnessError, StiffnessWarning
from stiffness.gradients.arithmetic import Loss
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.plan import Plans
from stiffness.gradients.representations import representations
from stiffness.measures.tables import INPUT, SegmentTables
from stiffness.measures.tiles import WholeMatrix
from stiffness.monitor.isolation import measuring, unwrapped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Examples = tuple[Any, Any]
"""Inputs [N, ...], a tensor, an array or a mapping of them, and targets [N, ...]."""
_FEWEST = 8  # examples of the first estimate of the cost
logger = logging.getLogger(__name__)


class StiffnessMonitor:
    """Measure stiffness on fixed examples, as often as you like, while a network is trained.

    A measurement costs about as much as a few passes over the examples and an N x N product of
    their gradients; ``estimate_seconds`` says how long it will take, and ``seconds`` how long those
    so far have taken. Some hundred examples of each set are usual.

    Args:
        train: inputs and targets of training examples: a tensor, an array, or a mapping of tensors
            that the network takes by keyword (tokens and their mask), and what the loss compares
            the outputs with.
        validation: the same of examples that are not trained on.
        labels: the class of every training and of every validation example, numbers or names:
            ``(train_labels, validation_labels)``. By default the targets, where they are classes.
        loss, memory_budget, arithmetic: as for ``gradient_cosines``. Give the loss that the network
            is trained with.
        max_seconds: a measurement that takes longer is left out, with a warning. The first one is
            judged by a few examples, and later ones by the fastest so far.
        distance_layers: where the distance between examples is measured: "input" or layers by name.
            By default the input, where it is not made of tokens.
        distance_bins: the number of bins of distance.
        resamples, seed: of the bootstrap behind the intervals.

    Raises:
        StiffnessError: the arguments do not fit together.

    Examples:
        >>> import torch
        >>> from stiffness import StiffnessMonitor
        >>> x, y = torch.randn(40, 5), torch.arange(40) % 2
        >>> monitor = StiffnessMonitor(train=(x[:20], y[:20]), validation=(x[20:], y[20:]))
        >>> model = torch.nn.Linear(5, 2)
        >>> values = monitor.measure(model, step=0)
        >>> -1 <= values["stiffness/within/sign/train-val"] <= 1
        True
        >>> list(monitor.table.columns[:6])
        ['step', 'epoch', 'pair_mode', 'metric', 'quantity', 'value']
    """

    def __init__(
        self,
        train: Examples,
        validation: Examples,
        labels: tuple[Any, Any] | None = None,
        loss: Loss = "cross_entropy",
        memory_budget: str | int = "4GiB",
        max_seconds: float | None = None,
        arithmetic: str = "exact",
        distance_layers: Sequence[str] | None = None,
        distance_bins: int = 16,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        sides = {"train": train, "validation": validation}
        inputs, targets = zip(*(_tensors(*side) for side in sides.values()), strict=True)
        classes, self.class_names = _classes(targets, labels)
        number = len(targets[0])
        self.inputs = trim_padding(concatenate_inputs(*inputs))
        self.targets = torch.cat(targets)
        self.loss, self.memory_budget, self.arithmetic = loss, memory_budget, arithmetic
        self.max_seconds = max_seconds
        self.seconds: dict[int, float] = {}
        """What each measurement has taken, by step."""
        if distance_layers is None:
            plain = isinstance(self.inputs, torch.Tensor) and self.inputs.is_floating_point()
            distance_layers = [INPUT] if plain else []
        positions = torch.cat([torch.arange(number), torch.arange(len(targets[1]))])
        self._tables = SegmentTables(
            Evaluation(self.inputs, classes, positions, number, self.class_names),
            distance_bins,
            resamples,
            seed,
            layers=distance_layers,
        )
        self._plans = Plans()
        self._model: weakref.ref[nn.Module] | None = None

    def measure(self, model: nn.Module, step: int, epoch: float | None = None) -> dict[str, float]:
        """Measure a network, and leave it and its training exactly as they were.

        Training modes, buffers, gradients, hooks and random states stay the same. Wrappers of
        ``torch.compile``, of data parallelism and of ``accelerate`` are looked through, and nothing
        is computed in mixed precision.

        Args:
            model: on any device.
            step: number of optimiser steps so far. A second measurement at a step is left out.
            epoch: epochs so far, for tables and plots; a fraction within an epoch.

        Returns:
            Stiffness by name, such as "stiffness/within/cosine/train-val" (quantity, metric, pair
            mode), and "stiffness/seconds", what this measurement has taken. Empty where it was left
            out.

        Raises:
            StiffnessError: at the first measurement, as ``gradient_cosines``. Later a warning takes
                its place, so that no training is lost to a network that has diverged.

        Warns:
            StiffnessWarning: a measurement was left out, and why.
        """
        if step in self.seconds:
            self._leave_out(step, "it has been measured; another training needs its own monitor")
            return {}
        inner = unwrapped(model)
        if self._model is None or self._model() is not inner:
            self._model, self._plans = weakref.ref(inner), Plans()
        if self.max_seconds is not None:
            expected = self.estimate_seconds(model)
            if expected > self.max_seconds:
                self._leave_out(
                    step,
                    f"a measurement takes about {expected:.3g} s, and max_seconds is "
                    f"{self.max_seconds:g}; give fewer examples or more seconds",
                )
                return {}
        began = time.perf_counter()
        try:
            with measuring(inner):
                cosines, log_norms = self._cosines(inner, slice(None))
                vectors = self._representations(inner)
        except StiffnessError as error:
            if not self.seconds:
                raise
            self._leave_out(step, str(error))
            return {}
        whole = WholeMatrix(
            step, float("nan") if epoch is None else epoch, cosines.numpy(), log_norms.numpy()
        )
        rows = self._tables.add(whole, vectors)
        self.seconds[step] = time.perf_counter() - began
        logger.info(f"step {step}: stiffness measured in {self.seconds[step]:.3g} s")
        values = {
            f"stiffness/{row['quantity']}/{row['metric']}/{row['pair_mode']}": float(row["value"])
            for row in rows
        }
        return values | {"stiffness/seconds": self.seconds[step]}

    def estimate_seconds(self, model: nn.Module) -> float:
        """How long a measurement takes.

        Before the first measurement this is an estimate from the gradients of a few examples: at
        least so long, since the product of all gradients grows with the square of their number.
        Afterwards it is the fastest measurement so far.
        """
        if self.seconds:
            return min(self.seconds.values())
        inner, number = unwrapped(model), len(self.targets)
        order = torch.randperm(number, generator=torch.Generator().manual_seed(0))
        expected, few = 0.0, min(_FEWEST, number)
        with measuring(inner):
            self._cosines(inner, order[:few])  # what only the first call does
            while True:
                began = time.perf_counter()
                self._cosines(inner, order[:few])
                expected = (time.perf_counter() - began) * number / few
                far = self.max_seconds is not None and expected > 10 * self.max_seconds
                if far or few * _FEWEST >= number:
                    return expected
                few *= 2

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The workflow's tables by name: "summary", "classes", "distance", "critical_length" and
        "extremes". Examples are numbered from 0, training examples first."""
        return self._tables.finish().tables

    @property
    def table(self) -> pd.DataFrame:
        """The table "summary": within-class and between-classes stiffness with 95 % intervals, one
        row per step, pair mode, metric and quantity."""
        return self.tables["summary"]

    def plot(self) -> "Figure":
        """Draw ``table`` as the workflow would: stiffness against epochs, or steps; see
        ``plot_stiffness``."""
        from stiffness.monitor.plot import plot_stiffness  # matplotlib, for those who want it

        return plot_stiffness(self.table)

    def _cosines(
        self, model: nn.Module, rows: slice | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        cosines, log_norms = gradient_cosines(
            model,
            take(self.inputs, rows),
            self.targets[rows],
            self.loss,
            memory_budget=self.memory_budget,
            arithmetic=self.arithmetic,
            plans=self._plans,
        )
        assert isinstance(cosines, torch.Tensor)
        assert isinstance(log_norms, torch.Tensor)
        return cosines, log_norms

    def _representations(self, model: nn.Module) -> dict[str, torch.Tensor]:
        if not self._tables.inner:
            return {}
        device = next(model.parameters()).device
        return representations(model, place(self.inputs, device), self._tables.inner)

    def _leave_out(self, step: int, why: str) -> None:
        warnings.warn(f"step {step}: left out: {why}", StiffnessWarning, stacklevel=3)


def _tensors(inputs: Any, targets: Any) -> tuple[Inputs, torch.Tensor]:
    """Inputs and targets as tensors that are the monitor's own."""
    placed: Inputs
    if isinstance(inputs, Mapping):
        placed = {name: torch.as_tensor(value) for name, value in inputs.items()}
    else:
        placed = torch.as_tensor(inputs)
    expected = torch.as_tensor(targets)
    if length(placed) == 0 or length(placed) != len(expected):
        raise StiffnessError(
            f"train, validation: {length(placed)} inputs, but {len(expected)} targets"
        )
    return placed, expected


def _classes(
    targets: Sequence[torch.Tensor], labels: tuple[Any, Any] | None
) -> tuple[torch.Tensor, list[str]]:
    """int64 [N], numbers of classes, and their names."""
    if labels is None:
        if any(side.ndim != 1 or side.is_floating_point() for side in targets):
            raise StiffnessError(
                f"labels: the targets, {list(targets[0].shape)}, are no classes; give "
                "labels=(train_labels, validation_labels)"
            )
        labels = (targets[0], targets[1])
    given = [
        np.asarray(torch.as_tensor(side).cpu() if _is_tensor(side) else side) for side in labels
    ]
    lengths = [len(side) for side in given]
    if lengths != [len(side) for side in targets]:
        raise StiffnessError(
            f"labels: {lengths} for {[len(side) for side in targets]} training and validation "
            "examples"
        )
    names, numbers = np.unique(np.concatenate(given), return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), [str(name) for name in names]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)
