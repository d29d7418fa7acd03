"""Stiffness of many examples in processes that each hold a part of them.

    python benchmarks/sharded.py --examples 20000 --shards 5 --budget 512MiB

makes a random data set shaped like Fashion-MNIST and a checkpoint of the CNN, computes every tile
and then the tables of that checkpoint, each in a process of its own and by the code of the rules
gradient_tile and stiffness, and prints the seconds, on the clock and of processor time, and peak
resident memory of each.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from stiffness.data.evaluation import Evaluation
from stiffness.data.shards import tile_block, tile_names
from stiffness.files import write_tensors
from stiffness.gradients.measure import measure_segment as measure_gradients
from stiffness.measures.tables import measure_segment as measure_stiffness
from stiffness.training.models import ModelSpec, build_model

CNN = ModelSpec("cnn")
CLASSES, SHAPE = 10, (1, 28, 28)
STEPS = 30  # of Adam, so that gradients are not those of a network that knows nothing


def prepare(folder: Path, examples: int) -> None:
    """An evaluation subset, half of it training examples, sorted by class; and a checkpoint."""
    generator = torch.Generator().manual_seed(0)
    half = examples // 2
    targets = torch.cat(
        [
            torch.arange(n).mul(CLASSES).div(n, rounding_mode="floor")
            for n in (half, examples - half)
        ]
    )
    patterns = torch.randn(CLASSES, *SHAPE, generator=generator)
    inputs = torch.randn(examples, *SHAPE, generator=generator).mul_(2).add_(patterns[targets])
    inputs /= inputs.flatten(1).norm(dim=1)[:, None, None, None]
    names = [f"class {label}" for label in range(CLASSES)]
    Evaluation(inputs, targets, torch.arange(examples), half, names).save(
        folder / "subset.safetensors"
    )
    model = build_model(CNN, SHAPE, CLASSES, 0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(STEPS):
        batch = torch.randint(half, (32,), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
        optimizer.step()
    about = {"step": STEPS, "epoch": 0.0}
    write_tensors(
        folder / "checkpoints" / f"step={STEPS:08d}.safetensors", model.state_dict(), about
    )


def tile(folder: Path, name: str, shards: int, budget: str) -> None:
    subset = Evaluation.load(folder / "subset.safetensors")
    measure_gradients(
        folder / "checkpoints",
        subset,
        CNN,
        folder / "tiles" / name,
        torch.device("cpu"),
        budget,
        "exact",
        tile=tile_block(name, len(subset.targets), shards),
    )


def stiffness(folder: Path, shards: int, resamples: int) -> None:
    subset = Evaluation.load(folder / "subset.safetensors")
    folders = [folder / "tiles" / name / "cosines" for name in tile_names(shards)]
    made = measure_stiffness(folders, subset, 16, resamples, 0)
    assert len(made.tables["classes"]) == 6 * CLASSES**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--budget", default="512MiB")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="to keep what is made")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.job:
        work(options.folder, options)
    elif options.folder:
        everything(options.folder, options)
    else:
        with tempfile.TemporaryDirectory() as folder:
            everything(Path(folder), options)


def work(folder: Path, options: argparse.Namespace) -> None:
    """One job; prints a line of JSON."""
    began = time.perf_counter()
    if options.job == "prepare":
        prepare(folder, options.examples)
    elif options.job == "stiffness":
        stiffness(folder, options.shards, options.resamples)
    else:
        tile(folder, options.job, options.shards, options.budget)
    seconds = time.perf_counter() - began
    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu_seconds = used.ru_utime + used.ru_stime
    print(json.dumps([f"{seconds:.1f}", f"{cpu_seconds:.1f}", f"{used.ru_maxrss / 1024:.0f}"]))


def everything(folder: Path, options: argparse.Namespace) -> None:
    """All jobs, one after another; prints a table."""
    print(
        f"N = {options.examples}, {options.shards} shards, budget {options.budget}, "
        f"{options.resamples} resamples, {options.threads} threads\n"
    )
    print("| job | seconds | processor seconds | peak resident MiB |\n|---|---|---|---|")
    for job in ("prepare", *tile_names(options.shards), "stiffness"):
        command = [sys.executable, __file__, *sys.argv[1:], "--folder", str(folder), "--job", job]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        if job != "prepare":
            print("|", " | ".join([job, *json.loads(done.stdout)]), "|", flush=True)


if __name__ == "__main__":
    main()
