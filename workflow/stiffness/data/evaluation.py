"""The fixed evaluation subset on which stiffness is measured (Section 3.2)."""

from dataclasses import dataclass
from pathlib import Path

import torch

from stiffness.data.arrays import Arrays
from stiffness.data.batch import (
    Inputs,
    concatenate_inputs,
    flatten_inputs,
    take,
    trim_padding,
    unflatten_inputs,
)
from stiffness.data.draws import draw_stratified
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors


@dataclass(frozen=True)
class Evaluation:
    """[training subset ; validation subset], each sorted by class.

    Attributes:
        inputs: preprocessed images, float32 [N, C, H, W] with |X| = 1; or other numbers, float32
            [N, ...]; or tokens, integers [N, T] by name.
        targets: int64 [N], class numbers.
        indices: int64 [N], positions in the training (first ``num_train``) or validation set.
        num_train: number of examples from the training set; they come first.
        class_names: one name per class.
        clean_targets: int64 [num_train], the labels of the training examples before some were made
            wrong; None where none were.
    """

    inputs: Inputs
    targets: torch.Tensor
    indices: torch.Tensor
    num_train: int
    class_names: list[str]
    clean_targets: torch.Tensor | None = None

    @property
    def mislabelled(self) -> torch.Tensor | None:
        """Which training examples have a wrong label, bool [num_train]; None if none can have."""
        if self.clean_targets is None:
            return None
        return self.targets[: self.num_train] != self.clean_targets

    def save(self, path: str | Path) -> None:
        """Write to one safetensors file."""
        tensors = {
            **flatten_inputs(self.inputs, "inputs"),
            "targets": self.targets,
            "indices": self.indices,
        }
        if self.clean_targets is not None:
            tensors["clean_targets"] = self.clean_targets
        metadata = {"num_train": self.num_train, "class_names": self.class_names}
        write_tensors(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "Evaluation":
        """Read what ``save`` wrote; raises ``StiffnessError`` as ``read_tensors`` does."""
        tensors, metadata = read_tensors(path)
        try:
            return cls(
                inputs=unflatten_inputs(tensors, "inputs"),
                targets=tensors["targets"],
                indices=tensors["indices"],
                num_train=metadata["num_train"],
                class_names=metadata["class_names"],
                clean_targets=tensors.get("clean_targets"),
            )
        except KeyError:
            raise StiffnessError(f"{path}: not an evaluation subset") from None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input, such as (C, H, W); () for tokens."""
        return tuple(self.inputs.shape[1:]) if isinstance(self.inputs, torch.Tensor) else ()

    def distances(
        self, rows: slice | torch.Tensor = slice(None), columns: slice | torch.Tensor = slice(None)
    ) -> torch.Tensor:
        """Cosine distances between preprocessed images (Eq. 8).

        Args:
            rows, columns: which examples, n and m of them; by default all.

        Returns:
            float32 [n, m], 1 - cos(X_i, X_j), in [0, 2].

        Raises:
            StiffnessError: the inputs are tokens, which are no vectors.
        """
        if not isinstance(self.inputs, torch.Tensor):
            raise StiffnessError(
                "distance_layers: token inputs have no distance; name layers of the network"
            )
        return cosine_distances(self.inputs[rows], self.inputs[columns])

    def raw_images(self, arrays: Arrays) -> torch.Tensor:
        """The images as they were before preprocessing, uint8 [N, C, H, W].

        Args:
            arrays: the data set that the subset was drawn from.

        Raises:
            StiffnessError: the inputs are no images.
        """
        parts = []
        for rows, inputs in (
            (self.indices[: self.num_train], arrays.train_inputs),
            (self.indices[self.num_train :], arrays.validation_inputs),
        ):
            if not isinstance(inputs, torch.Tensor) or inputs.dtype != torch.uint8:
                raise StiffnessError("contact_sheet: shows images of bytes; these inputs are none")
            parts.append(inputs[rows])
        return torch.cat(parts)


def cosine_distances(vectors: torch.Tensor, others: torch.Tensor | None = None) -> torch.Tensor:
    """Cosine distances between vectors (Eq. 8).

    Args:
        vectors: [N, ...].
        others: [M, ...]; by default the same as ``vectors``.

    Returns:
        float32 [N, M], 1 - cos(X_i, X_j), in [0, 2]; 1 where a vector is 0.
    """
    units = _normalize(vectors)
    return (1 - units @ (units if others is None else _normalize(others)).T).clamp_(0, 2).float()


def _normalize(vectors: torch.Tensor) -> torch.Tensor:
    flat = vectors.flatten(1).double()
    largest = flat.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    return torch.nn.functional.normalize(flat / largest, dim=1)


def draw_evaluation(arrays: Arrays, train: int, validation: int, seed: int) -> Evaluation:
    """Draw the evaluation subset without replacement, stratified by label (Section 3.2).

    Classes get equal shares, as in the paper's balanced sets; where the number of classes does
    not divide the total, the first classes get one more.

    Args:
        train, validation: how many examples of each set.
        seed: of the draw.

    Raises:
        StiffnessError: a class has fewer examples than its share, or a class would get none.
    """
    generator = torch.Generator().manual_seed(seed)
    names = arrays.class_names
    chosen = [
        draw_stratified(arrays.train_targets, train, names, "evaluation: train", generator),
        draw_stratified(
            arrays.validation_targets, validation, names, "evaluation: validation", generator
        ),
    ]
    inputs = concatenate_inputs(
        take(arrays.train_inputs, chosen[0]), take(arrays.validation_inputs, chosen[1])
    )
    targets = torch.cat([arrays.train_targets[chosen[0]], arrays.validation_targets[chosen[1]]])
    prepared = trim_padding(arrays.preprocess(inputs))
    clean = None if arrays.clean_targets is None else arrays.clean_targets[chosen[0]]
    return Evaluation(prepared, targets, torch.cat(chosen), train, names, clean)
