"""Stiffness while Lightning's ``Trainer`` trains: ``stiffness[lightning]``."""

from lightning.pytorch import Callback, LightningModule, Trainer

from stiffness.errors import StiffnessError
from stiffness.monitor.monitor import StiffnessMonitor


class StiffnessCallback(Callback):
    """Measure stiffness before training and at the end of every so many epochs.

    The values are logged by the module (``LightningModule.log_dict``), so that they reach every
    logger of the trainer, its progress and, by their names, callbacks such as ``EarlyStopping`` and
    ``ModelCheckpoint``. The network is the module itself: its ``forward`` returns the outputs that
    the monitor's loss compares with targets.

    Args:
        monitor: what is measured on which examples; ``monitor.table`` and ``monitor.plot()`` have
            the curves with their intervals.
        every_n_epochs: epochs between two measurements.

    Raises:
        StiffnessError: epochs that are not positive.

    Examples:
        ::

            monitor = StiffnessMonitor(train=(x, y), validation=(x_val, y_val))
            Trainer(callbacks=[StiffnessCallback(monitor, every_n_epochs=1)]).fit(module, data)
    """

    def __init__(self, monitor: StiffnessMonitor, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise StiffnessError(f"every_n_epochs: must be at least 1, got {every_n_epochs}")
        self.monitor, self.every_n_epochs = monitor, every_n_epochs

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the network as it is before the first step."""
        if trainer.global_step == 0:
            values = self._measure(trainer, pl_module, 0)
            # Lightning would hold what a module logs here back to the end of the first epoch.
            for logger in trainer.loggers:
                logger.log_metrics(values, step=0)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure after an epoch that is a multiple of ``every_n_epochs``."""
        epochs = trainer.current_epoch + 1
        if epochs % self.every_n_epochs == 0:
            pl_module.log_dict(self._measure(trainer, pl_module, epochs), rank_zero_only=True)

    def _measure(
        self, trainer: Trainer, pl_module: LightningModule, epochs: int
    ) -> dict[str, float]:
        # The weights are the same in every process.
        if not trainer.is_global_zero:
            return {}
        return self.monitor.measure(pl_module, trainer.global_step, float(epochs))
