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

import logging
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from stiffness.data.arrays import Arrays
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
from stiffness.training.augmentation import crop_flip
from stiffness.training.losses import (
    LossFunction,
    build_loss,
    chance_loss,
    training_loss,
)
from stiffness.training.models import build_model, check_tokens, load_weights
from stiffness.training.schedule import checkpoint_steps
from stiffness.training.specs import TrainingSpec

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
