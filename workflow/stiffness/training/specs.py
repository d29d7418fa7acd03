"""Everything that decides a run's weights, apart from the data and the number of epochs."""

import inspect
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.training.losses import LossSpec
from stiffness.training.models import ModelSpec


@dataclass(frozen=True)
class OptimizerSpec:
    """How a gradient becomes an update.

    Attributes:
        name: "adam" (Section 3.1), "adamw", "sgd", or another class of ``torch.optim``.
        momentum: of SGD.
        weight_decay: of all parameters; an L2 penalty with Adam and SGD, decoupled with AdamW.
        warmup_epochs: number of epochs in which the learning rate rises linearly from 0; it is
            constant after them.
    """

    name: str = "adam"
    momentum: float = 0.0
    weight_decay: float = 0.0
    warmup_epochs: float = 0.0

    def build(self, parameters: list[nn.Parameter], learning_rate: float) -> torch.optim.Optimizer:
        """Create the optimiser: the class of ``torch.optim`` that has the name, in any case.

        It gets those settings that it has. So a further optimiser needs its name in plan/config.py
        and, where it has settings of its own, a field there and here.

        Args:
            learning_rate: of every update; a warm-up sets it again before each of its updates.

        Raises:
            StiffnessError: torch.optim has no such class.
        """
        classes: dict[str, Any] = {
            name.lower(): kind
            for name, kind in vars(torch.optim).items()
            if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
        }
        if self.name not in classes:
            known = ", ".join(sorted(classes))
            raise StiffnessError(f"optimizer: unknown {self.name!r}; known: {known}")
        settings = {**asdict(self), "fused": True}
        accepted = inspect.signature(classes[self.name]).parameters
        used = {key: value for key, value in settings.items() if key in accepted}
        optimizer: torch.optim.Optimizer = classes[self.name](parameters, lr=learning_rate, **used)
        return optimizer


@dataclass(frozen=True)
class TrainingSpec:
    """Everything that decides a run's weights, apart from the data and the number of epochs.

    Attributes:
        early_checkpoints, checkpoint_interval: see ``checkpoint_steps``.
        learning_rate: as text, the way that config.yaml and the names of folders have it.
        seed: of the initialisation, the order of the examples and the augmentation.
        batch_size: examples per update.
        augmentation: "none" or "crop_flip" (4 pixels of padding, random crop, random flip).
        mixed_precision: products are computed in bfloat16 in training; losses, accuracies and
            weights stay float32.
        training_arithmetic: of the loss gradient, "float32" or "keras"; see ``training_loss``. The
            losses of the history are exact cross-entropies all the same.
        history_examples: the largest number of examples of each set that give losses and
            accuracies; 0 stands for all.
        loss: what the training lowers, and what the history records.
    """

    model: ModelSpec
    learning_rate: str
    seed: int
    batch_size: int
    early_checkpoints: int
    checkpoint_interval: float = 1
    augmentation: str = "none"
    optimizer: OptimizerSpec = OptimizerSpec()
    mixed_precision: bool = False
    training_arithmetic: str = "float32"
    history_examples: int = 0
    loss: LossSpec = field(default_factory=LossSpec)
