"""The arrays every later room reads: stored as bytes, preprocessed on the way in (section 3.1)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Normalization:
    """Per-channel mean and standard deviation of the training pixels, in units of the raw bytes."""

    mean: torch.Tensor  # float32 [C]
    std: torch.Tensor  # float32 [C]

    @classmethod
    def of(cls, inputs: torch.Tensor) -> "Normalization":
        """Measure on uint8 [N, C, H, W], exactly: bytes are counted, not accumulated."""
        levels = torch.arange(256, dtype=torch.float64)
        means, stds = [], []
        for channel in range(inputs.shape[1]):
            pixels = inputs[:, channel].reshape(-1)
            share = torch.bincount(pixels, minlength=256).double() / pixels.numel()
            mean = (share * levels).sum()
            means.append(mean)
            stds.append((share * (levels - mean) ** 2).sum().sqrt())
        return cls(torch.stack(means).float(), torch.stack(stds).float())

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        """uint8 [N, C, H, W] -> float32 [N, C, H, W]: zero mean, unit variance, then |X| = 1.

        An image of one constant colour equal to the mean has no direction and stays 0.
        """
        mean = self.mean.to(inputs.device)[:, None, None]
        std = self.std.to(inputs.device)[:, None, None]
        standard = (inputs.float() - mean) / std
        norms = standard.flatten(1).norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
        return standard / norms[:, None, None, None]


@dataclass(frozen=True)
class Arrays:
    """One data set: uint8 [N, C, H, W] inputs, int64 [N] targets, and how to preprocess."""

    train_inputs: torch.Tensor
    train_targets: torch.Tensor
    validation_inputs: torch.Tensor
    validation_targets: torch.Tensor
    class_names: list[str]
    normalization: Normalization

    @classmethod
    def of(
        cls,
        train_inputs: torch.Tensor,
        train_targets: torch.Tensor,
        validation_inputs: torch.Tensor,
        validation_targets: torch.Tensor,
        class_names: list[str],
    ) -> "Arrays":
        """Check the parts against each other and measure the normalisation on the training set.

        Raises:
            StiffnessError: lengths, shapes or labels do not fit, or every pixel is the same.
        """
        for name, inputs, targets in (
            ("training", train_inputs, train_targets),
            ("validation", validation_inputs, validation_targets),
        ):
            if len(inputs) != len(targets) or not len(inputs):
                raise StiffnessError(f"{name} set: {len(inputs)} inputs but {len(targets)} labels")
            if inputs.shape[1:] != train_inputs.shape[1:]:
                raise StiffnessError(f"{name} set: images of another shape than the training set's")
            if targets.min() < 0 or targets.max() >= len(class_names):
                raise StiffnessError(f"{name} set: a label outside 0..{len(class_names) - 1}")
        normalization = Normalization.of(train_inputs)
        if not (normalization.std > 0).all():
            raise StiffnessError(
                "a colour channel is the same in every training pixel: nothing to normalise"
            )
        return cls(
            train_inputs,
            train_targets.long(),
            validation_inputs,
            validation_targets.long(),
            class_names,
            normalization,
        )

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file."""
        tensors = {
            "train_inputs": self.train_inputs,
            "train_targets": self.train_targets,
            "validation_inputs": self.validation_inputs,
            "validation_targets": self.validation_targets,
            "mean": self.normalization.mean,
            "std": self.normalization.std,
        }
        write_tensors(path, tensors, {"class_names": self.class_names})

    @classmethod
    def load(cls, path: str | Path) -> "Arrays":
        """Read what ``save`` wrote; raises ``StiffnessError`` as ``read_tensors`` does."""
        tensors, metadata = read_tensors(path)
        try:
            normalization = Normalization(tensors.pop("mean"), tensors.pop("std"))
            names = metadata["class_names"]
            return cls(**tensors, class_names=names, normalization=normalization)
        except (KeyError, TypeError):
            raise StiffnessError(f"{path}: not a file of data arrays") from None
