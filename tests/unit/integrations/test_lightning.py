"""The callback in short trainings of the real Lightning."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from stiffness import StiffnessError, StiffnessMonitor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lightning") is None, reason="needs lightning"),
    pytest.mark.filterwarnings("ignore"),  # of the library that is trained with
]


def make_module(lightning):
    """With dropout and batch normalisation, which tell what mode they are in."""

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
            )

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def validation_step(self, batch, _):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 1e-2)

    return Module()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.arange(96) % 3
    return torch.randn(96, 8, generator=torch.Generator().manual_seed(0)) + y[:, None], y


def fit(folder: Path, callbacks, epochs=3, **options):
    import lightning.pytorch as lightning  # after our callback, with which torchvision loads

    x, y = data()
    lightning.seed_everything(1, verbose=False)
    module = make_module(lightning)
    loaders = [
        torch.utils.data.DataLoader(
            torch.utils.data.TensorDataset(x[part], y[part]), batch_size=8, shuffle=shuffle
        )
        for part, shuffle in ((slice(0, 64), True), (slice(64, 96), False))
    ]
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=callbacks,
        logger=lightning.loggers.CSVLogger(folder),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        **options,
    )
    trainer.fit(module, *loaders)
    return trainer, module


def monitor_of() -> StiffnessMonitor:
    x, y = data()
    return StiffnessMonitor(train=(x[:32], y[:32]), validation=(x[64:], y[64:]), resamples=40)


@pytest.mark.parametrize(
    "options",
    [{}, {"accumulate_grad_batches": 2, "precision": "bf16-mixed"}],
    ids=["plain", "mixed"],
)
def test_curves_reach_the_logger_and_no_bit_of_the_training_changes(tmp_path, options):
    from stiffness.integrations.lightning import StiffnessCallback

    monitor = monitor_of()
    trainer, watched = fit(tmp_path / "watched", [StiffnessCallback(monitor)], **options)
    _, alone = fit(tmp_path / "alone", [], **options)
    for (name, one), other in zip(
        watched.state_dict().items(), alone.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    per_epoch = 8 // options.get("accumulate_grad_batches", 1)
    assert list(monitor.seconds) == [0, per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert monitor.table.groupby("step")["epoch"].first().tolist() == [0, 1, 2, 3]
    logged = pd.read_csv(Path(trainer.logger.log_dir) / "metrics.csv")
    for (quantity, metric, mode), rows in monitor.table.groupby(
        ["quantity", "metric", "pair_mode"]
    ):
        shown = logged[f"stiffness/{quantity}/{metric}/{mode}"].dropna()
        assert shown.tolist() == pytest.approx(rows["value"].tolist(), rel=1e-6)  # float32
    last = monitor.table.iloc[-1]
    name = f"stiffness/{last['quantity']}/{last['metric']}/{last['pair_mode']}"
    assert float(trainer.callback_metrics[name]) == pytest.approx(last["value"], rel=1e-6)


def test_some_epochs_alone(tmp_path):
    from stiffness.integrations.lightning import StiffnessCallback

    monitor = monitor_of()
    fit(tmp_path, [StiffnessCallback(monitor, every_n_epochs=2)], epochs=5)
    assert list(monitor.seconds) == [0, 16, 32]
    with pytest.raises(StiffnessError, match="every_n_epochs: must be at least 1, got 0"):
        StiffnessCallback(monitor, every_n_epochs=0)


def test_a_training_can_stop_by_its_stiffness(tmp_path):
    from stiffness.integrations.lightning import StiffnessCallback

    monitor = monitor_of()
    from lightning.pytorch.callbacks import EarlyStopping  # now that torchvision loads

    stop = EarlyStopping(
        "stiffness/within/sign/train-val", mode="max", check_on_train_epoch_end=True, patience=1
    )
    fit(tmp_path, [StiffnessCallback(monitor), stop], epochs=30)
    curve = monitor.table.query(
        "quantity == 'within' and metric == 'sign' and pair_mode == 'train-val' and step > 0"
    )["value"]
    assert stop.stopped_epoch > 0
    # The last epoch is the first one that was no better than the best before it.
    better = curve.cummax().diff().gt(0).tolist()[1:]
    assert better == [True] * (len(better) - 1) + [False]
