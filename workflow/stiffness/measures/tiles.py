"""The cosines of a checkpoint, tile by tile: one file, or one file per pair of shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stiffness.errors import StiffnessError
from stiffness.files import read_metadata, read_tensors
from stiffness.measures.pairs import Floats, Ints, Tile

_AGAIN = "delete the folder and run again"


class Checkpoint:
    """What the gradient room measured at one checkpoint; one tile is in memory at a time.

    Attributes:
        name: of its files.
        step, epoch: of the checkpoint.
        log_norms: [N], logarithms of gradient norms; -inf where a gradient is 0.
        predictions: [N], predicted classes; None where the files have none.
        outputs: float32 [N, ...], of the network; None where the files have none.
    """

    def __init__(self, paths: Sequence[Path], examples: int) -> None:
        """Find the tiles.

        Args:
            paths: of the tiles' files, in any order.
            examples: size N of the evaluation subset.

        Raises:
            StiffnessError: a file is unreadable or was measured on another subset, or the tiles
                are not those of one cut.
        """
        self._last: tuple[Path, dict[str, torch.Tensor]] | None = None
        self._files: dict[tuple[int, int, int, int], Path] = {}
        self.name = paths[0].name
        for path in paths:
            metadata = read_metadata(path)
            number = metadata.get("examples")
            if number is None:  # the whole matrix
                number = len(self._read(path)["log_norms"])
            if number != examples:
                raise StiffnessError(
                    f"{path}: {number} examples, but the evaluation subset has {examples}; {_AGAIN}"
                )
            rows, columns = (metadata.get(side, [0, number]) for side in ("rows", "columns"))
            self._files[*rows, *columns] = path
        self.step, self.epoch = metadata["step"], metadata["epoch"]
        shards = sorted(place[:2] for place in self._files if place[:2] == place[2:])
        upper = {first + second for first, second in combinations_with_replacement(shards, 2)}
        ends = [(0, 0), *shards, (examples, examples)]
        apart = any(one[1] != other[0] for one, other in pairwise(ends))
        if apart or upper != set(self._files) or len(paths) != len(upper):
            raise StiffnessError(
                f"{paths[0].parent}: this and the others are not the tiles of one cut of "
                f"{examples} examples; {_AGAIN}"
            )
        log_norms, predictions, outputs = [], [], []
        for shard in shards:
            tensors = self._read(self._files[shard + shard])
            log_norms.append(tensors["log_norms"].clone())  # and let the tile go
            if "predictions" in tensors:
                predictions.append(tensors["predictions"].clone())
            if "outputs" in tensors:
                outputs.append(tensors["outputs"].float().clone())
        self.log_norms: Floats = torch.cat(log_norms).numpy()
        self.predictions: Ints | None = (
            torch.cat(predictions).numpy() if len(predictions) == len(shards) else None
        )
        self.outputs: npt.NDArray[np.float32] | None = (
            torch.cat(outputs).numpy() if len(outputs) == len(shards) else None
        )

    def tiles(self, rows: slice, columns: slice) -> Iterator[Tile]:
        """Read the tiles one by one, and cut each to ``rows`` and ``columns``."""
        undefined = ~np.isfinite(self.log_norms)
        for (begin, end, first, last), path in sorted(self._files.items()):
            if max(begin, rows.start) >= min(end, rows.stop):
                continue
            if max(first, columns.start) >= min(last, columns.stop):
                continue
            values = self._read(path)["cosines"].numpy()
            gone = undefined[begin:end], undefined[first:last]
            if gone[0].any() or gone[1].any():
                # What is 0 in one tile may be a number just above it in another.
                values = values.copy()
                values[gone[0]] = values[:, gone[1]] = np.nan
            tile = Tile(slice(begin, end), slice(first, last), values).within(rows, columns)
            assert tile is not None
            yield tile

    def _read(self, path: Path) -> dict[str, torch.Tensor]:
        if self._last is None or self._last[0] != path:
            self._last = None  # before another one is read
            self._last = path, read_tensors(path)[0]
        return self._last[1]


@dataclass(frozen=True)
class WholeMatrix:
    """What was measured at a checkpoint and is in memory, not in files.

    Attributes:
        cosines: [N, N]; NaN where a gradient is 0.

    The other attributes are those of ``Checkpoint``.
    """

    step: int
    epoch: float
    cosines: npt.NDArray[np.floating]
    log_norms: Floats
    predictions: Ints | None = None
    outputs: npt.NDArray[np.float32] | None = None

    def tiles(self, rows: slice, columns: slice) -> Iterator[Tile]:
        """The one tile there is, cut to ``rows`` and ``columns``."""
        yield Tile(rows, columns, self.cosines[rows, columns])


def checkpoints(folders: Sequence[str | Path], examples: int) -> Iterator[Checkpoint]:
    """Visit the checkpoints of a segment in order.

    Args:
        folders: each has one file per checkpoint. There is one folder of whole matrices, or one
            folder per tile.
        examples: size of the evaluation subset.

    Raises:
        StiffnessError: as ``Checkpoint``, or a folder lacks a file that another has.
    """
    paths = [path for folder in folders for path in Path(folder).glob("step=*.safetensors")]
    for name in sorted({path.name for path in paths}):
        yield Checkpoint([Path(folder) / name for folder in folders], examples)
