"""Figures 5 and 12, from raw data to pictures: the workflow against the script plain.py.

    python benchmarks/end_to_end.py --data data          # on an idle machine with two cores

Both train one network at five learning rates on 10,000 images of Fashion-MNIST, measure stiffness
at the same steps on 500 + 500 images, and draw. The workflow also computes intervals from 1,000
resamples and further lengths. First the script's number of threads in training and the number of
examples per call of vmap are chosen as what is fastest here, which is not timed. At the end the
script measures the workflow's own last checkpoints: both must find the same stiffness.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import plain
import torch
from gradient_gram import processor

import workflow
from stiffness.data.evaluation import Evaluation
from stiffness.files import read_table, read_tensors, rows

PARTS = {
    "data": ("arrays", "evaluation"),
    "training": ("training",),
    "gradients": ("gradients",),
    "measures": ("measures", "tables"),
    "figures": ("figures",),
}
NAMES = {"data": "reading data", "measures": "stiffness, lengths, tables", "figures": "drawing"}
PACKAGES = ("torch", "numpy", "snakemake", "matplotlib")
EXPERIMENT = "results/end_to_end"


def best(candidates: list[int], run: Callable[[int], object]) -> int:
    """The candidate whose run takes the least time, of three tries each."""
    taken = {}
    for candidate in candidates * 3:
        began = time.perf_counter()
        run(candidate)
        taken[candidate] = min(time.perf_counter() - began, taken.get(candidate, float("inf")))
    return min(taken, key=lambda candidate: taken[candidate])


def tune(network: str, threads: int) -> tuple[int, int]:
    """Threads in training and examples per call of vmap with which the script is fastest."""
    model = plain.build(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    images = torch.randn(256, 1, 28, 28).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(10, (len(images),))

    def train(number: int) -> None:
        torch.set_num_threads(number)
        for _ in range(50):
            plain.update(model, optimizer, images[: plain.BATCH], labels[: plain.BATCH])

    in_training = best(list(range(1, threads + 1)), train)
    torch.set_num_threads(threads)
    sizes = [16, 32, 64, 128, 256]
    return in_training, best(sizes, lambda size: plain.cosines(model, images, labels, size))


def run_plain(options: argparse.Namespace, in_training: int, chunk: int, folder: Path) -> dict:
    """Wall time and the seconds of each part."""
    command = [sys.executable, plain.__file__, "--output", folder, "--data", options.data]
    command += ["--network", options.network, "--epochs", options.epochs, "--chunk", chunk]
    command += ["--threads", options.cores, "--training-threads", in_training]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.cores)}
    began = time.perf_counter()
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment
    )
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit("plain.py failed; its message is above")
    return {"wall": wall, **json.loads(done.stdout)["seconds"]}


def run_workflow(options: argparse.Namespace, folder: Path) -> tuple[float, dict]:
    """Wall time, and the jobs of each rule as ``workflow.measure`` gives them."""
    experiment = {
        "dataset": "fashion_mnist_10k",
        "model": {"name": options.network},
        "learning_rates": plain.RATES,
        "epochs": options.epochs,
        "epochs_per_job": options.epochs,
        "early_checkpoints": plain.EARLY,
        "checkpoint_interval": plain.INTERVAL,
        "history_examples": plain.HISTORY,
        "batch_size": plain.BATCH,
        "evaluation": {"train": plain.EVALUATED, "validation": plain.EVALUATED},
    }
    config = {
        "data_dir": str(options.data.resolve()),
        "device": "cpu",
        "run": ["end_to_end"],
        "experiments": {"end_to_end": experiment},
    }
    figures = ("stiffness_curves", "critical_length")
    targets = [f"{EXPERIMENT}/figures/{figure}.pdf" for figure in figures]
    return workflow.measure(config, targets, options.cores, folder)


def largest_difference(network: str, chunk: int, folder: Path) -> float:
    """Of within- and between-class stiffness at each run's last checkpoint: ours, and plain.py's.

    Args:
        folder: of the workflow and its results.
    """
    [subset] = (folder / "results/data/fashion_mnist_10k").rglob("train=*.safetensors")
    evaluation = Evaluation.load(subset)
    summary = read_table(folder / EXPERIMENT / "tables/exact/summary.parquet")
    model, distances = plain.build(network), evaluation.distances()[: plain.EVALUATED]
    distances = distances[:, plain.EVALUATED :]
    differences = []
    for lr in plain.RATES:
        last = max((folder / EXPERIMENT / f"lr={lr}").glob("seed=0/checkpoints/*/step=*"))
        weights, metadata = read_tensors(last)
        model.load_state_dict(weights)
        matrix = plain.cosines(model, evaluation.inputs, evaluation.targets, chunk)
        theirs = plain.stiffness(matrix, evaluation.targets, distances)
        ours = rows(summary, lr=lr, step=metadata["step"], pair_mode="train-val")
        for metric, quantities in theirs.items():
            for quantity in ("within", "between"):
                [value] = rows(ours, metric=metric, quantity=quantity)["value"]
                differences.append(abs(quantities[quantity] - value))
    return max(differences)


def table(script: dict, wall: float, jobs: dict, cores: int) -> list[str]:
    """Seconds by part. The workflow's are of processes of which ``cores`` run at a time."""
    lines = [
        f"| part | script, s | workflow: jobs | seconds in them | divided by {cores} |",
        "|---|---|---|---|---|",
    ]
    everything = [times for rule in jobs.values() for times in rule]
    processes, bodies = (sum(column) for column in zip(*everything, strict=True))
    for part, rules in PARTS.items():
        times = [body for rule in rules for _, body in jobs.get(rule, [])]
        lines.append(
            f"| {NAMES.get(part, part)} | {script[part]:.1f} | {len(times)} | {sum(times):.1f} | "
            f"{sum(times) / cores:.1f} |"
        )
    start = script["wall"] - sum(script[part] for part in PARTS)
    idle = cores * wall - processes
    lines += [
        f"| starts of processes, imports | {start:.1f} | {len(everything)} | "
        f"{processes - bodies:.1f} | {(processes - bodies) / cores:.1f} |",
        f"| Snakemake, and cores without a job | | | {idle:.1f} | {idle / cores:.1f} |",
        f"| **wall time** | **{script['wall']:.1f}** | | | **{wall:.1f}** |",
        f"| ratio | 1 | | | **{wall / script['wall']:.2f}** |",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("data"), help="holds FashionMNIST/raw")
    parser.add_argument("--network", choices=("cnn", "fc"), default="cnn")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--output", type=Path, help="Markdown file; standard output by default")
    options = parser.parse_args()
    in_training, chunk = tune(options.network, options.cores)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script = run_plain(options, in_training, chunk, folder)
        wall, jobs = run_workflow(options, folder)
        difference = largest_difference(options.network, chunk, folder)
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    lines = [
        f"{processor()}, {options.cores} of {os.cpu_count()} cores; Python "
        f"{platform.python_version()}, {versions}.",
        f"The network `{options.network}`, {len(plain.RATES)} learning rates, {options.epochs} "
        f"epochs. The script trains with {in_training} thread(s), computes gradients with "
        f"{options.cores}, and calls vmap with {chunk} examples.",
        "",
        *table(script, wall, jobs, options.cores),
        "",
        "Largest difference in stiffness within and between classes, both metrics, at the last "
        f"checkpoints of the workflow: {difference:.1e}.",
        "",
    ]
    if options.output:
        options.output.write_text("\n".join(lines))
    else:
        print("\n".join(lines))


if __name__ == "__main__":
    main()
