"""``measure_checkpoints``: stiffness from files of weights, without a workflow."""

import re
from collections.abc import Mapping, Sequence
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.monitor.isolation import unwrapped
from stiffness.monitor.monitor import Examples, StiffnessMonitor
from stiffness.training.imported import fit_weights, read_weights
from stiffness.training.models import ModelSpec, build_model


def measure_checkpoints(
    network: str | nn.Module,
    files: str | Path | Sequence[str | Path],
    train: Examples,
    validation: Examples,
    arguments: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Measure stiffness at every one of some checkpoints.

    Args:
        network: a network, or what builds it: "nets.py:build" or "package.nets:build", which is
            called with (input_shape, num_classes, **arguments), or "torchvision:resnet18" and the
            like. It keeps the weights of the last checkpoint.
        files: a pattern such as "runs/step=*.pt", or paths. A file is ``.safetensors``, or what
            ``torch.save`` has written of a state dict, alone or under a key such as "state_dict";
            no code in it is run. Its step, and its epoch where it has one, are numbers in its name
            ("epoch=3-step=1200.ckpt", "checkpoint-500/model.safetensors").
        train, validation: as for ``StiffnessMonitor``.
        arguments: of the function that builds the network.
        device: where to measure; by default where the network is.
        options: further arguments of ``StiffnessMonitor``, such as ``loss`` and ``labels``.

    Returns:
        The table of ``StiffnessMonitor``, one row per step, pair mode, metric and quantity, in the
        order of the steps; ``plot_stiffness`` draws it.

    Raises:
        StiffnessError: no such file, one that does not fit the network or cannot be read, a name
            without a number, two files of one step, or as ``StiffnessMonitor``.

    Examples:
        >>> import tempfile, torch
        >>> from stiffness import measure_checkpoints
        >>> x, y = torch.randn(40, 5), torch.arange(40) % 2
        >>> model = torch.nn.Linear(5, 2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(model.state_dict(), f"{folder}/step=0.pt")
        ...     torch.save({"state_dict": model.state_dict()}, f"{folder}/step=100.pt")
        ...     table = measure_checkpoints(
        ...         model, f"{folder}/*.pt", train=(x[:20], y[:20]), validation=(x[20:], y[20:])
        ...     )
        >>> table["step"].unique().tolist()
        [0, 100]
    """
    monitor = StiffnessMonitor(train, validation, **options)
    if isinstance(network, str):
        shape = monitor.inputs.shape[1:] if isinstance(monitor.inputs, torch.Tensor) else ()
        spec = ModelSpec(network, arguments=arguments or {})
        model = build_model(spec, tuple(shape), len(monitor.class_names), seed=0)
    else:
        model = unwrapped(network)
    if device is not None:
        model.to(device)
    for step, epoch, path in _in_order(files):
        model.load_state_dict(fit_weights(read_weights(path), model, path))
        try:
            monitor.measure(model, step, epoch)
        except StiffnessError as error:
            raise StiffnessError(f"{path}: {error}") from None
    return monitor.table


def _in_order(files: str | Path | Sequence[str | Path]) -> list[tuple[int, float | None, Path]]:
    """Step, epoch and path of every file, by step."""
    if isinstance(files, str | Path):
        found = [Path(path) for path in glob(str(files), recursive=True)]
        if not found:
            raise StiffnessError(f"files: there is no file {files}")
    else:
        found = [Path(path) for path in files]
    points = sorted(
        ((*_point(path), path) for path in found), key=lambda point: (point[0], point[2])
    )
    for (step, _, path), (other, _, next_path) in pairwise(points):
        if step == other:
            raise StiffnessError(f"files: {path} and {next_path} are both of step {step}")
    return points


def _point(path: Path) -> tuple[int, float | None]:
    """The step and the epoch in a file's name, or in that of its folder."""
    for name in (path.stem, path.parent.name):
        epochs = re.search(r"epoch\D?(\d+(?:\.\d+)?)", name)
        epoch = float(epochs[1]) if epochs else None
        steps = re.search(r"step\D?(\d+)", name) or re.search(r"(\d+)\D*$", name)
        if steps:
            return int(steps[1]), epoch
    raise StiffnessError(f"files: there is no number of a step in the name of {path}")
