"""Stiffness while the ``Trainer`` of transformers trains: ``stiffness[transformers]``."""

import sys
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from stiffness.errors import StiffnessError
from stiffness.monitor.monitor import StiffnessMonitor


class StiffnessCallback(TrainerCallback):
    """Measure stiffness before training and every so many optimiser steps.

    The values go through ``Trainer.log``, so that TensorBoard, Weights & Biases and all other
    reporters of the trainer show them as they show its loss ("train/stiffness/within/...").

    Args:
        monitor: what is measured on which examples; ``monitor.table`` and ``monitor.plot()`` have
            the curves with their intervals.
        every_n_steps: optimiser steps between two measurements, each of which may take several
            batches (``gradient_accumulation_steps``).

    Raises:
        StiffnessError: steps that are not positive.

    Examples:
        ::

            monitor = StiffnessMonitor(train=(tokens, labels), validation=(others, their_labels))
            Trainer(..., callbacks=[StiffnessCallback(monitor, every_n_steps=500)]).train()
    """

    def __init__(self, monitor: StiffnessMonitor, every_n_steps: int = 500) -> None:
        if every_n_steps < 1:
            raise StiffnessError(f"every_n_steps: must be at least 1, got {every_n_steps}")
        self.monitor, self.every_n_steps = monitor, every_n_steps

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Measure the network as it is before the first step."""
        if state.global_step == 0:
            self._measure(state, kwargs["model"])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Measure after a step that is a multiple of ``every_n_steps``."""
        if state.global_step % self.every_n_steps == 0:
            self._measure(state, kwargs["model"])

    def _measure(self, state: TrainerState, model: Any) -> None:
        # The weights are the same in every process.
        if state.is_world_process_zero:
            values = self.monitor.measure(model, state.global_step, state.epoch or 0.0)
            if values:
                _calling_trainer().log(values)


def _calling_trainer() -> Trainer:
    """The trainer that has called: callbacks are given neither it nor its reporters."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if isinstance(trainer := frame.f_locals.get("self"), Trainer):
            return trainer
        frame = frame.f_back
    raise StiffnessError("StiffnessCallback: to be called by a Trainer of transformers")
