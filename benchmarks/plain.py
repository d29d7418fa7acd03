"""Figures 5 and 12 of the paper as one plain script, without the workflow and its library.

    python benchmarks/plain.py --data data

It trains one network at five learning rates, one after another, on Fashion-MNIST, computes the
cosines of per-example gradients by torch.func at every checkpoint, and draws both figures without
intervals. ``end_to_end.py`` times it against the workflow. All data stay in memory as tensors.
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

RATES = ["1e-4", "3e-4", "1e-3", "2e-3", "3e-3"]
# Images that are trained on, and of each set those that stiffness and losses are measured on.
TRAINED, EVALUATED, HISTORY = 10_000, 500, 5000
SETS = ("train", "validation")
BATCH = 32
EARLY, INTERVAL = 8, 2  # checkpoints in the first epoch, and epochs from one to the next
seconds: dict[str, float] = defaultdict(float)
"""Wall time by part."""


@contextmanager
def timed(part: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[part] += time.perf_counter() - began


def read_idx(folder: Path, name: str) -> torch.Tensor:
    """A file of Fashion-MNIST, unpacked or as gzip."""
    plain, packed = folder / name, folder / f"{name}.gz"
    raw = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    shape = [int.from_bytes(raw[4 * k : 4 * k + 4], "big") for k in range(1, raw[3] + 1)]
    values = np.frombuffer(raw, np.uint8, offset=4 * len(shape) + 4).reshape(shape)
    return torch.from_numpy(values.copy())


def balanced(labels: torch.Tensor, number: int) -> torch.Tensor:
    """Positions of ``number`` random examples, equally many of each of ten classes."""
    members = [(labels == label).nonzero().flatten() for label in range(10)]
    return torch.cat([m[torch.randperm(len(m))[: number // 10]] for m in members])


def read_data(folder: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Images [N, 1, 28, 28] with |X| = 1 and labels [N]: both sets and parts of them."""
    raw = folder / "FashionMNIST/raw"
    sets = {}
    for name, prefix in (("train", "train"), ("validation", "t10k")):
        images = read_idx(raw, f"{prefix}-images-idx3-ubyte")[:, None].float()
        sets[name] = images, read_idx(raw, f"{prefix}-labels-idx1-ubyte").long()
    chosen = balanced(sets["train"][1], TRAINED)
    sets["train"] = sets["train"][0][chosen], sets["train"][1][chosen]
    mean, std = sets["train"][0].mean(), sets["train"][0].std()
    for name, (images, labels) in sets.items():
        images = (images - mean) / std
        images /= images.flatten(1).norm(dim=1)[:, None, None, None]
        sets[name] = images.contiguous(memory_format=torch.channels_last), labels
    for name in SETS:
        images, labels = sets[name]
        chosen = balanced(labels, EVALUATED)
        sets[f"{name} subset"] = images[chosen], labels[chosen]
        chosen = torch.randperm(len(labels))[:HISTORY]
        sets[f"{name} history"] = images[chosen], labels[chosen]
    return sets


def build(network: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    if network == "fc":
        widths = [784, 500, 300, 100, 10]
        layers.append(nn.Flatten())
        for fan_in, fan_out in pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        layers.pop()
    else:
        for fan_in, width in ((1, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(fan_in, width, 3), nn.MaxPool2d(2), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(32, 10)]
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def update(
    model: nn.Module, optimizer: torch.optim.Optimizer, images: torch.Tensor, labels: torch.Tensor
) -> None:
    loss = cross_entropy(model(images), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.inference_mode()
def mean_loss(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    batches = zip(images.split(250), labels.split(250), strict=True)
    return sum(float(cross_entropy(model(x), y, reduction="sum")) for x, y in batches) / len(labels)


def checkpoints(steps_per_epoch: int, epochs: int) -> set[int]:
    """The initialisation, steps in even ratios in the first epoch, then every second epoch."""
    early = np.round(steps_per_epoch ** (np.arange(EARLY + 1) / (EARLY + 1))).astype(int).tolist()
    late = [epoch * steps_per_epoch for epoch in range(INTERVAL, epochs, INTERVAL)]
    return {0, *early, *late, epochs * steps_per_epoch}


def cosines(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, chunk: int
) -> torch.Tensor:
    """Cosines [N, N] of the loss gradients of N examples (eq. 5)."""
    parameters = {name: p.detach().contiguous() for name, p in model.named_parameters()}

    def loss(params: dict, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        outputs = torch.func.functional_call(model, params, (image[None],))
        return cross_entropy(outputs, label[None])

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    rows = torch.empty(len(labels), sum(p.numel() for p in parameters.values()))
    for begin in range(0, len(labels), chunk):
        part = slice(begin, begin + chunk)
        found = gradient(parameters, images[part], labels[part])
        torch.cat([g.flatten(1) for g in found.values()], 1, out=rows[part])
    norms = rows.norm(dim=1)
    products = torch.from_numpy(rows.numpy() @ rows.numpy().T)  # numpy computes one triangle
    return products / norms / norms[:, None]


def stiffness(matrix: torch.Tensor, labels: torch.Tensor, distances: torch.Tensor) -> dict:
    """Within- and between-class stiffness (eq. 6, 7) and critical lengths of train-val pairs."""
    half = len(labels) // 2
    hot = nn.functional.one_hot(labels).float()
    counts = hot[:half].sum(0)[:, None] * hot[half:].sum(0)
    same = labels[:half, None] == labels[half:]
    apart = distances[same].numpy()
    found = {}
    for metric, values in (("sign", matrix.sign()), ("cosine", matrix)):
        values = values[:half, half:]
        classes = hot[:half].T @ values @ hot[half:] / counts
        within = classes.diagonal().mean()
        between = (classes.sum() - classes.trace()) / (classes.numel() - len(classes))
        slope, height = np.polyfit(apart, values[same].numpy(), 1)
        xi = -height / slope if slope < 0 < height else np.nan
        found[metric] = {"within": float(within), "between": float(between), "xi": float(xi)}
    return found


def measure(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    distances: torch.Tensor,
    chunk: int,
) -> dict:
    with timed("gradients"):
        matrix = cosines(model, images, labels, chunk)
    with timed("measures"):
        return stiffness(matrix, labels, distances)


def run(options: argparse.Namespace) -> list[dict]:
    """Train and measure at every rate; one row per checkpoint."""
    with timed("data"):
        sets = read_data(options.data)
        images = torch.cat([sets["train subset"][0], sets["validation subset"][0]])
        targets = torch.cat([sets["train subset"][1], sets["validation subset"][1]])
        flat = images.flatten(1)
        distances = 1 - flat[:EVALUATED] @ flat[EVALUATED:].T
    found, (inputs, labels) = [], sets["train"]
    steps_per_epoch = -(-len(labels) // BATCH)
    wanted = checkpoints(steps_per_epoch, options.epochs)
    for rate in RATES:
        torch.manual_seed(0)
        model = build(options.network)
        optimizer = torch.optim.Adam(model.parameters(), lr=float(rate), fused=True)
        batches: list[torch.Tensor] = []
        for step in range(max(wanted) + 1):
            if step in wanted:
                with timed("training"):
                    losses = {n: mean_loss(model, *sets[f"{n} history"]) for n in SETS}
                with timed("gradients"):
                    torch.set_num_threads(options.threads)
                    matrix = cosines(model, images, targets, options.chunk)
                    torch.set_num_threads(options.training_threads)
                with timed("measures"):
                    row = stiffness(matrix, targets, distances)
                found.append({"lr": rate, "epoch": step / steps_per_epoch, **losses, **row})
            with timed("training"):
                batches = batches or list(torch.randperm(len(labels)).split(BATCH))
                batch = batches.pop()
                update(model, optimizer, inputs[batch], labels[batch])
    return found


def draw(found: list[dict], output: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    metrics = ("sign", "cosine")
    figure5, panels5 = plt.subplots(2, 2, figsize=(7, 4.6), layout="constrained")
    figure12, panels12 = plt.subplots(2, 2, figsize=(7, 4.6), layout="constrained")
    for rate in RATES:
        rows = [row for row in found if row["lr"] == rate]
        epochs, losses = [row["epoch"] for row in rows], [row["train"] for row in rows]
        for column, metric in enumerate(metrics):
            for line, quantity in enumerate(("within", "between")):
                axis = panels5[line, column]
                axis.plot(epochs, [row[metric][quantity] for row in rows], label=rate)
                axis.set(ylabel=f"{quantity} class, {metric}", xscale="symlog", xlabel="epoch")
            for x, axis in zip((epochs, losses), panels12[column], strict=True):
                axis.plot(x, [row[metric]["xi"] for row in rows], "o-", ms=3, label=rate)
                axis.set(ylabel=f"critical length, {metric}", yscale="log")
    for axes, name, scale in zip(
        panels12.T, ("epoch", "training loss"), ("symlog", "log"), strict=True
    ):
        for axis in axes:
            axis.set(xlabel=name, xscale=scale)
    for figure, name in ((figure5, "fig5"), (figure12, "fig12")):
        figure.axes[0].legend(title="learning rate", fontsize=6)
        for suffix in ("pdf", "png"):
            figure.savefig(output / f"{name}.{suffix}", dpi=200)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--data", type=Path, default=Path("data"), help="holds FashionMNIST/raw")
    made.add_argument("--network", choices=("cnn", "fc"), default="cnn")
    made.add_argument("--epochs", type=int, default=20)
    made.add_argument("--chunk", type=int, default=64, help="examples per call of vmap")
    made.add_argument("--threads", type=int, default=2)
    made.add_argument("--training-threads", type=int, default=2)
    made.add_argument("--output", type=Path, default=Path("."), help="folder of the figures")
    return made


def main() -> None:
    options = parser().parse_args()
    found = run(options)
    with timed("figures"):
        draw(found, options.output)
    print(json.dumps({"seconds": seconds, "rows": found}))


if __name__ == "__main__":
    main()
