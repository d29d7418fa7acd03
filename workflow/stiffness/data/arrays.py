"""The arrays that every later room reads: images or tokens, and their labels (Section 3.1).

Images are stored as bytes, and preprocessed when a network gets them.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from stiffness.data.batch import Inputs, flatten_inputs, length, take, unflatten_inputs
from stiffness.data.draws import draw_stratified, draw_wrong_labels
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Normalization:
    """Mean and standard deviation of the training pixels per channel, in units of the raw bytes."""

    mean: torch.Tensor  # float32 [C]
    std: torch.Tensor  # float32 [C]

    @classmethod
    def measure(cls, inputs: torch.Tensor) -> "Normalization":
        """Measure mean and deviation of uint8 [N, C, H, W] exactly, by counting byte values."""
        levels = torch.arange(256, dtype=torch.float64)
        means, stds = [], []
        for channel in range(inputs.shape[1]):
            pixels = inputs[:, channel].reshape(-1)
            share = torch.bincount(pixels, minlength=256).double() / pixels.numel()
            mean = (share * levels).sum()
            means.append(mean)
            stds.append((share * (levels - mean) ** 2).sum().sqrt())
        return cls(torch.stack(means).float(), torch.stack(stds).float())

    def to(self, device: torch.device) -> "Normalization":
        """The same on ``device``, where its use then copies nothing."""
        return Normalization(self.mean.to(device), self.std.to(device))

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """Preprocess uint8 [N, C, H, W] to float32: zero mean, unit variance, then |X| = 1.

        This is Section 3.1. An image that has the mean colour everywhere stays 0.
        """
        mean = self.mean.to(inputs.device)[:, None, None]
        std = self.std.to(inputs.device)[:, None, None]
        standard = (inputs.float() - mean) / std
        norms = standard.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        return standard / norms[:, None, None, None]


@dataclass(frozen=True)
class Arrays:
    """One data set: inputs, targets, and how to preprocess.

    Attributes:
        train_inputs, validation_inputs: images, uint8 [N, C, H, W]; or float32 [N, ...], which the
            network gets as they are; or tokens, integers [N, T] by the names that the network has
            for them.
        train_targets, validation_targets: int64 [N], class numbers.
        class_names: one name per class.
        normalization: of images; None for other inputs.
        clean_targets: int64 [N], the training labels before some were made wrong; None where none
            were.
    """

    train_inputs: Inputs
    train_targets: torch.Tensor
    validation_inputs: Inputs
    validation_targets: torch.Tensor
    class_names: list[str]
    normalization: Normalization | None
    clean_targets: torch.Tensor | None = None

    @classmethod
    def from_images(
        cls,
        train_inputs: torch.Tensor,
        train_targets: torch.Tensor,
        validation_inputs: torch.Tensor,
        validation_targets: torch.Tensor,
        class_names: list[str],
    ) -> "Arrays":
        """Check images and labels against each other, and measure the normalisation.

        Args:
            train_inputs, validation_inputs: uint8 [N, C, H, W].
            train_targets, validation_targets: integers [N], class numbers.

        Raises:
            StiffnessError: lengths, shapes or labels do not fit, or a channel is constant.
        """
        if validation_inputs.shape[1:] != train_inputs.shape[1:]:
            raise StiffnessError("validation set: images of another shape than the training set's")
        _check_targets("training", len(train_inputs), train_targets, class_names)
        _check_targets("validation", len(validation_inputs), validation_targets, class_names)
        return cls(
            train_inputs,
            train_targets.long(),
            validation_inputs,
            validation_targets.long(),
            class_names,
            _measure_normalization(train_inputs),
        )

    @classmethod
    def from_floats(
        cls,
        train_inputs: torch.Tensor,
        train_targets: torch.Tensor,
        validation_inputs: torch.Tensor,
        validation_targets: torch.Tensor,
        class_names: list[str],
    ) -> "Arrays":
        """Check inputs that are preprocessed already, and their labels.

        Args:
            train_inputs, validation_inputs: numbers [N, ...], which are kept as float32.
            train_targets, validation_targets: integers [N], class numbers.

        Raises:
            StiffnessError: lengths, shapes or labels do not fit, or a number is not finite.
        """
        if validation_inputs.shape[1:] != train_inputs.shape[1:]:
            raise StiffnessError("validation set: inputs of another shape than the training set's")
        for name, inputs, targets in (
            ("training", train_inputs, train_targets),
            ("validation", validation_inputs, validation_targets),
        ):
            _check_targets(name, len(inputs), targets, class_names)
            if inputs.ndim < 2 or not torch.isfinite(inputs).all():
                raise StiffnessError(
                    f"{name} set: inputs must be finite numbers [N, ...], these are "
                    f"{list(inputs.shape)}"
                )
        return cls(
            train_inputs.float().contiguous(),
            train_targets.long(),
            validation_inputs.float().contiguous(),
            validation_targets.long(),
            class_names,
            None,
        )

    @classmethod
    def from_tokens(
        cls,
        train_inputs: dict[str, torch.Tensor],
        train_targets: torch.Tensor,
        validation_inputs: dict[str, torch.Tensor],
        validation_targets: torch.Tensor,
        class_names: list[str],
    ) -> "Arrays":
        """Check tokens and labels against each other.

        Args:
            train_inputs, validation_inputs: integers [N, T] by name, padded to one T.
            train_targets, validation_targets: integers [N], class numbers.

        Raises:
            StiffnessError: names, lengths or labels do not fit.
        """
        ours, theirs = (
            {name: value.shape[1:] for name, value in inputs.items()}
            for inputs in (train_inputs, validation_inputs)
        )
        if ours != theirs:
            raise StiffnessError("validation set: tokens of other names or widths than training's")
        for name, inputs, targets in (
            ("training", train_inputs, train_targets),
            ("validation", validation_inputs, validation_targets),
        ):
            _check_targets(name, length(inputs), targets, class_names)
        return cls(
            train_inputs,
            train_targets.long(),
            validation_inputs,
            validation_targets.long(),
            class_names,
            None,
        )

    def with_few_examples(self, number: int, seed: int) -> "Arrays":
        """Keep ``number`` training examples, in equal shares of every class, in their old order.

        The normalisation is measured on them. The validation set does not change.

        Raises:
            StiffnessError: a class has too few, or would get none.
        """
        generator = torch.Generator().manual_seed(seed)
        key = "datasets: train_examples"
        chosen = draw_stratified(self.train_targets, number, self.class_names, key, generator)
        chosen = chosen.sort().values
        inputs, targets = take(self.train_inputs, chosen), self.train_targets[chosen]
        return replace(
            self,
            train_inputs=inputs,
            train_targets=targets,
            normalization=_measure_normalization(inputs)
            if self.normalization is not None and isinstance(inputs, torch.Tensor)
            else None,
        )

    def with_wrong_labels(self, share: float, seed: int) -> "Arrays":
        """Make exactly round(share * N) of N training labels wrong; see ``draw_wrong_labels``."""
        given = draw_wrong_labels(self.train_targets, len(self.class_names), share, seed)
        wrong = not torch.equal(given, self.train_targets)
        return replace(
            self, train_targets=given, clean_targets=self.train_targets if wrong else None
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, such as (C, H, W); () for tokens, whose number varies."""
        inputs = self.train_inputs
        return tuple(inputs.shape[1:]) if isinstance(inputs, torch.Tensor) else ()

    def preprocess(self, inputs: Inputs) -> Inputs:
        """Inputs as the network gets them: images normalised, others unchanged (Section 3.1)."""
        if self.normalization is None:
            return inputs
        assert isinstance(inputs, torch.Tensor)
        return self.normalization(inputs)

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file."""
        tensors = {
            **flatten_inputs(self.train_inputs, "train_inputs"),
            "train_targets": self.train_targets,
            **flatten_inputs(self.validation_inputs, "validation_inputs"),
            "validation_targets": self.validation_targets,
        }
        if self.clean_targets is not None:
            tensors["clean_targets"] = self.clean_targets
        if self.normalization is not None:
            tensors |= {"mean": self.normalization.mean, "std": self.normalization.std}
        write_tensors(path, tensors, {"class_names": self.class_names})

    @classmethod
    def load(cls, path: str | Path) -> "Arrays":
        """Read what ``save`` wrote; raises ``StiffnessError`` as ``read_tensors`` does."""
        tensors, metadata = read_tensors(path)
        try:
            images = "mean" in tensors
            return cls(
                unflatten_inputs(tensors, "train_inputs"),
                tensors["train_targets"],
                unflatten_inputs(tensors, "validation_inputs"),
                tensors["validation_targets"],
                metadata["class_names"],
                Normalization(tensors["mean"], tensors["std"]) if images else None,
                tensors.get("clean_targets"),
            )
        except KeyError:
            raise StiffnessError(f"{path}: not a file of data arrays") from None


def _measure_normalization(inputs: torch.Tensor) -> Normalization:
    normalization = Normalization.measure(inputs)
    if not (normalization.std > 0).all():
        raise StiffnessError(
            "a colour channel is the same in every training pixel: nothing to normalise"
        )
    return normalization


def _check_targets(name: str, number: int, targets: torch.Tensor, class_names: list[str]) -> None:
    if number != len(targets) or not number:
        raise StiffnessError(f"{name} set: {number} inputs but {len(targets)} labels")
    if targets.min() < 0 or targets.max() >= len(class_names):
        raise StiffnessError(f"{name} set: a label outside 0..{len(class_names) - 1}")
