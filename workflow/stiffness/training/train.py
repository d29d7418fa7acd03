"""Gradient descent on a loss, with checkpoints (sections 3.1 and 3.2).

The paper's optimiser is Adam at a constant rate; others, and a linear warm-up, are options.

A run is a chain of segments. A segment starts from the state that the one before it left and writes
one folder: the checkpoints, a table of losses and accuracies, and the state to continue from. While
it works, the same files lie in a hidden folder and are saved after every epoch. A segment that was
interrupted continues from there and ends with the same bits, because everything random in an epoch
is seeded from (seed, epoch). It starts over instead where the settings, the data, this code, the
device or the number of threads are others than it began with: each of them may change the bits. On
a GPU the bits are the same where all operators of the network have a deterministic algorithm; torch
warns of those that have none.
"""

import inspect
import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from stiffness.data.arrays import Arrays, Normalization
from stiffness.data.batch import (
    MASK,
    Inputs,
    call,
    flatten_inputs,
    place,
    shorten,
    take,
    text_lengths,
    trim_padding,
)
from stiffness.device import deterministic, device_name, full_float32, send
from stiffness.digests import file_digest, json_digest, mix_seed, tensors_digest, text_digest
from stiffness.errors import StiffnessError
from stiffness.files import (
    exclusive_lock,
    read_metadata,
    read_table,
    read_tensors,
    replace_directory,
    write_table,
    write_tensors,
)
from stiffness.training.losses import (
    LossFunction,
    LossSpec,
    build_loss,
    chance_loss,
    training_loss,
)
from stiffness.training.models import ModelSpec, build_model, check_tokens, load_weights
from stiffness.training.schedule import checkpoint_steps

logger = logging.getLogger(__name__)

STATE = "state.safetensors"
HISTORY = "history.parquet"
HISTORY_COLUMNS = [
    "step",
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "chance_loss",
    "chance_accuracy",
]
_EVALUATION_BATCH = 250
_POOL = 50  # batches whose texts are sorted by length


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


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint after ``step`` updates."""
    return f"step={step:08d}.safetensors"


def train_segment(
    arrays: Arrays,
    spec: TrainingSpec,
    start: int,
    end: int,
    previous: str | Path | None,
    output: str | Path,
    device: torch.device,
    data_dir: str | Path = ".",
) -> None:
    """Train epochs ``start + 1`` to ``end`` and write the folder ``output`` (Section 3.2).

    A loss that is not finite ends the run: it is recorded in the history, and no weights are saved
    from there on.

    Args:
        start, end: in epochs.
        previous: the folder of the segment that ends at ``start``; None for ``start == 0``.
        output: gets the checkpoints, ``HISTORY`` and ``STATE``; it appears when all is done.
        data_dir: where a pretrained model's folder is looked for.

    Raises:
        StiffnessError: ``previous`` is unreadable, or belongs to another model.
    """
    output = Path(output)
    work = output.parent / f".{output.name}.unfinished"

    def waiting() -> None:
        logger.info("another process trains this run: waiting")

    with (
        exclusive_lock(work.with_suffix(".lock"), waiting),
        full_float32(),
        deterministic(device),
    ):
        run = Run(arrays, spec, device, data_dir)
        run.start(start, end, previous)
        run.resume(work, start, previous)
        began, first = time.perf_counter(), run.epoch
        while run.epoch < end and not run.diverged:
            run.train_epoch(work)
            run.save(work)
            spent = time.perf_counter() - began
            # A run that diverged within an epoch is over, and may have finished none.
            finished = max(run.epoch - first, 1)
            left = 0.0 if run.diverged else spent / finished * (end - run.epoch)
            _log_progress(run, end, left)
        if not (work / STATE).exists():
            run.save(work)
        replace_directory(work, output)


class Run:
    """Model, optimiser, data on the device, and the history so far."""

    def __init__(
        self, arrays: Arrays, spec: TrainingSpec, device: torch.device, data_dir: str | Path
    ) -> None:
        self.spec, self.device, self.arrays = spec, device, arrays
        self.num_classes = len(arrays.class_names)
        model = build_model(spec.model, arrays.shape, self.num_classes, spec.seed, data_dir)
        for inputs in (arrays.train_inputs, arrays.validation_inputs):
            if isinstance(inputs, Mapping):
                check_tokens(model, inputs, self.num_classes, spec.model)
        self.initial_digest = tensors_digest(model.state_dict().values())
        # Pooling and convolutions on the CPU are several times faster in this layout.
        self.model = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.learning_rate = float(spec.learning_rate)
        self.optimizer = spec.optimizer.build(list(self.model.parameters()), self.learning_rate)
        self.inputs = {
            "train": self._place(arrays.train_inputs),
            "validation": self._place(arrays.validation_inputs),
        }
        self.targets = {
            "train": arrays.train_targets.to(device),
            "validation": arrays.validation_targets.to(device),
        }
        self.history_sets = {split: self._history_sets(split) for split in self.inputs}
        self.raw = self._raw()
        self.normalization = arrays.normalization and arrays.normalization.to(device)
        self.lengths = text_lengths(arrays.train_inputs)
        self.steps_per_epoch = math.ceil(len(arrays.train_targets) / spec.batch_size)
        counts = torch.bincount(arrays.train_targets, minlength=self.num_classes).double()
        shares = counts / counts.sum()
        self.loss = build_loss(spec.loss)
        self.chance_loss = chance_loss(self.loss, arrays.train_targets, self.num_classes)
        self.chance_accuracy = float(shares.max())
        self.data_digest = tensors_digest(_tensors(arrays))
        self.checkpoint_steps: frozenset[int] = frozenset()
        self.step = 0
        self.history: list[dict[Any, Any]] = []
        self.diverged = False

    @property
    def epoch(self) -> int:
        return self.step // self.steps_per_epoch

    def _place(self, inputs: Inputs) -> Inputs:
        placed = self.arrays.preprocess(place(inputs, self.device))
        if isinstance(placed, torch.Tensor) and placed.ndim == 4:
            return placed.contiguous(memory_format=torch.channels_last)
        return placed

    def _raw(self) -> torch.Tensor | None:
        """The images that augmentation starts from."""
        if self.spec.augmentation != "crop_flip":
            return None
        images = self.arrays.train_inputs
        if not isinstance(images, torch.Tensor) or self.arrays.normalization is None:
            raise StiffnessError(
                "augmentation: crop_flip is for images of bytes; set augmentation: none"
            )
        return images.to(self.device)

    def _history_sets(self, split: str) -> tuple[Inputs, torch.Tensor]:
        """Inputs and targets that losses and accuracies are measured on: all, or a fixed draw."""
        inputs, targets = self.inputs[split], self.targets[split]
        chosen = torch.arange(len(targets))
        if 0 < self.spec.history_examples < len(targets):
            generator = torch.Generator().manual_seed(mix_seed(self.spec.seed, -1))
            chosen = torch.randperm(len(targets), generator=generator)
            chosen = chosen[: self.spec.history_examples]
        elif isinstance(inputs, torch.Tensor):
            return inputs, targets
        chosen = chosen.to(self.device)
        if not isinstance(inputs, torch.Tensor) and MASK in inputs:
            # Neighbours of one length need little padding.
            chosen = chosen[inputs[MASK][chosen].sum(1).argsort(stable=True)]
        return take(inputs, chosen), targets[chosen]

    def start(self, start: int, end: int, previous: str | Path | None) -> None:
        """Choose the steps of checkpoints, and load the state that the previous segment left."""
        early, interval = self.spec.early_checkpoints, self.spec.checkpoint_interval
        self.checkpoint_steps = frozenset(
            checkpoint_steps(start, end, self.steps_per_epoch, early, interval)
        )
        if previous is None:
            return
        self._load(Path(previous), keep_history=False)
        if not self.diverged and self.epoch != start:
            raise StiffnessError(
                f"{previous}: ends at epoch {self.epoch}, not {start}; delete it and run again"
            )

    def resume(self, work: Path, start: int, previous: str | Path | None) -> None:
        """Continue an interrupted attempt at this same segment, if there is one."""
        # A pretrained network's folder may have changed since the attempt.
        origin = (
            read_metadata(Path(previous) / STATE)["fingerprint"]
            if previous
            else self.initial_digest
        )
        # Sums over several threads, or on another device, differ in their last bits.
        self.fingerprint = json_digest(
            [
                asdict(self.spec),
                start,
                self.data_digest,
                origin,
                _code_digest(),
                self.spec.model.digest() + self.spec.loss.digest(),
                torch.get_num_threads(),
                device_name(self.device),
            ]
        )
        try:
            if read_metadata(work / STATE)["fingerprint"] == self.fingerprint:
                self._load(work, keep_history=True)
                return
        except StiffnessError:
            pass  # nothing there, or an unfinished write: start the segment over
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        if start == 0 and not self.diverged:
            self.record(work)

    def _load(self, folder: Path, keep_history: bool) -> None:
        tensors, metadata = read_tensors(folder / STATE)
        # Everything is read before anything is changed: a damaged folder leaves the run as it was.
        rows = read_table(folder / HISTORY).to_dict("records") if keep_history else []
        # The history is written first and may be an epoch ahead of the state.
        self.history = [row for row in rows if row["step"] <= metadata["step"]]
        weights = {k[len("model/") :]: v for k, v in tensors.items() if k.startswith("model/")}
        load_weights(self.model, weights, str(folder / STATE), str(self.spec.model))
        self.step, self.diverged = metadata["step"], metadata["diverged"]
        parameters = list(self.model.parameters())
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, key = rest.partition("/")
                if tensor.shape == parameters[int(index)].shape:
                    # The fused update walks raw memory: moments need their parameter's layout.
                    tensor = torch.empty_like(parameters[int(index)]).copy_(tensor)
                state.setdefault(int(index), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def save(self, work: Path) -> None:
        """Save the history, then the state: the state is what a resumed run trusts."""
        table = pd.DataFrame(self.history, columns=HISTORY_COLUMNS)
        write_table(work / HISTORY, table)
        tensors = {f"model/{name}": value for name, value in self.model.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{index}/{key}": value for key, value in values.items()}
        metadata = {
            "step": self.step,
            "diverged": self.diverged,
            "fingerprint": self.fingerprint,
            "steps_per_epoch": self.steps_per_epoch,
        }
        write_tensors(work / STATE, tensors, metadata)

    def train_epoch(self, work: Path) -> None:
        """Visit all examples in an order drawn from (seed, epoch), and save the checkpoints."""
        # The order and the augmentation are drawn on the CPU, so that devices see the same data.
        generator = torch.Generator().manual_seed(mix_seed(self.spec.seed, self.epoch))
        with torch.random.fork_rng(devices=[] if self.device.type == "cpu" else [self.device]):
            torch.manual_seed(mix_seed(self.spec.seed, self.epoch))
            order = torch.randperm(len(self.targets["train"]), generator=generator)
            self.model.train()
            for batch in self._batches(order, generator):
                rows = send(batch, self.device)
                inputs = shorten(self._augmented(rows, generator), self._longest(batch))
                with torch.autocast(
                    self.device.type, torch.bfloat16, enabled=self.spec.mixed_precision
                ):
                    outputs = call(self.model, inputs)
                targets = self.targets["train"][rows]
                arithmetic = self.spec.training_arithmetic
                loss = training_loss(outputs.float(), targets, arithmetic, self.loss)
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                self._warm_up()
                self.optimizer.step()
                self.step += 1
                if self.step in self.checkpoint_steps:
                    self.record(work)
                    if self.diverged:
                        return
                    self.model.train()

    def _batches(self, order: torch.Tensor, generator: torch.Generator) -> list[torch.Tensor]:
        """Cut ``order`` into batches; texts of similar length share one, to need little padding.

        They stay on the CPU, which knows without waiting for a GPU how long a batch's texts are.
        """
        inputs, size = self.arrays.train_inputs, self.spec.batch_size
        if isinstance(inputs, torch.Tensor) or MASK not in inputs:
            return list(order.split(size))
        lengths = inputs[MASK].sum(1)
        # At least four pools: sorted as a whole, a small set would fall into the same batches.
        pools = order.split(max(1, min(_POOL, len(order) // (4 * size))) * size)
        batches = [
            batch
            for pool in pools
            for batch in pool[lengths[pool].argsort(stable=True)].split(size)
        ]
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[number] for number in shuffled]

    def _longest(self, batch: torch.Tensor) -> int | None:
        """Positions that the longest of a batch's texts uses; None for images."""
        return None if self.lengths is None else int(self.lengths[batch].max())

    def _warm_up(self) -> None:
        """Set the rate of the next update, which is number ``step + 1``."""
        steps = self.spec.optimizer.warmup_epochs * self.steps_per_epoch
        share = min(1.0, (self.step + 1) / steps) if steps > 0 else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * share

    def _augmented(self, batch: torch.Tensor, generator: torch.Generator) -> Inputs:
        if self.raw is None:
            return take(self.inputs["train"], batch)
        assert self.normalization is not None
        # Augment the bytes and preprocess after it, so that |X| = 1 holds for what is trained on.
        return crop_flip(self.raw[batch], self.normalization, generator)

    def record(self, work: Path, epoch: float | None = None) -> None:
        """Append losses and accuracies of both sets to the history, and save the weights.

        Args:
            work: the folder.
            epoch: by default it follows from the step.
        """
        self.model.eval()
        epoch = self.step / self.steps_per_epoch if epoch is None else epoch
        row: dict[str, float] = {"step": self.step, "epoch": epoch}
        for split in ("train", "validation"):
            loss, accuracy = _evaluate(self.model, self.loss, *self.history_sets[split])
            row |= {f"{split}_loss": loss, f"{split}_accuracy": accuracy}
        row |= {"chance_loss": self.chance_loss, "chance_accuracy": self.chance_accuracy}
        self.history.append(row)
        self.diverged = not math.isfinite(row["train_loss"])
        if not self.diverged:
            metadata = {"model": asdict(self.spec.model), "step": self.step, "epoch": row["epoch"]}
            write_tensors(work / checkpoint_name(self.step), self.model.state_dict(), metadata)


def crop_flip(
    images: torch.Tensor, normalization: Normalization, generator: torch.Generator
) -> torch.Tensor:
    """Pad by 4 pixels, crop at random, flip at random, and preprocess.

    Args:
        images: uint8 [N, C, H, W]; the padding has the mean colour, which preprocesses to 0.
        normalization: of the training images.
        generator: on the CPU, so that all devices see the same images.

    Returns:
        float32 [N, C, H, W] with |X| = 1.
    """
    count, _, height, width = images.shape
    shift = send(torch.randint(0, 9, (2, count), generator=generator), images.device) - 4
    flip = send(torch.rand(count, generator=generator) < 0.5, images.device)
    rows = torch.arange(height, device=images.device) + shift[0][:, None]
    columns = torch.arange(width, device=images.device).expand(count, width)
    columns = torch.where(flip[:, None], width - 1 - columns, columns) + shift[1][:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    index = torch.arange(count, device=images.device)[:, None, None]
    moved = images.permute(0, 2, 3, 1)[
        index, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]
    ]
    mean = normalization.mean.to(images.device)
    filled = torch.where(inside[..., None], moved.float(), mean).permute(0, 3, 1, 2)
    return normalization(filled).contiguous(memory_format=torch.channels_last)


@torch.inference_mode()
def _evaluate(
    model: nn.Module, loss: str | LossFunction, inputs: Inputs, targets: torch.Tensor
) -> tuple[float, float]:
    """Mean loss and accuracy."""
    total = torch.zeros((), dtype=torch.float64, device=targets.device)
    correct = torch.zeros((), dtype=torch.int64, device=targets.device)
    for begin in range(0, len(targets), _EVALUATION_BATCH):
        rows = slice(begin, begin + _EVALUATION_BATCH)
        outputs, labels = call(model, trim_padding(take(inputs, rows))), targets[rows]
        if isinstance(loss, str):
            total += nn.functional.cross_entropy(outputs.double(), labels, reduction="sum")
        else:
            total += loss(outputs.double(), labels).sum()
        correct += (outputs.argmax(1) == labels).sum()
    return float(total) / len(targets), int(correct) / len(targets)


def _tensors(arrays: Arrays) -> list[torch.Tensor]:
    return [
        *flatten_inputs(arrays.train_inputs, "").values(),
        arrays.train_targets,
        *flatten_inputs(arrays.validation_inputs, "").values(),
        arrays.validation_targets,
    ]


def _code_digest() -> str:
    """Of this room's modules: other code does not continue an unfinished segment."""
    folder = Path(__file__).parent
    return text_digest(" ".join(file_digest(path) for path in sorted(folder.glob("*.py"))))


def _log_progress(run: Run, end: int, seconds_left: float) -> None:
    minutes, seconds = divmod(round(seconds_left), 60)
    scores = "no checkpoint yet"
    if run.history:
        row: dict[str, Any] = run.history[-1]
        scores = (
            f"loss {row['train_loss']:.4f} accuracy {row['train_accuracy']:.4f}, "
            f"validation loss {row['validation_loss']:.4f} "
            f"accuracy {row['validation_accuracy']:.4f}"
        )
        if row["step"] != run.step:
            scores += f" (at epoch {row['epoch']:g})"
    logger.info("epoch %d/%d: %s, %d:%02d left", run.epoch, end, scores, minutes, seconds)
