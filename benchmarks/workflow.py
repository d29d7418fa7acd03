"""How much of the wall time is computation, and how much is processes, imports and Snakemake.

    python benchmarks/workflow.py default      # the embedded default
    python benchmarks/workflow.py grid         # the paper's FC and CNN grid, on the digits

Each builds from nothing in a temporary folder with one job at a time, so that shares of the wall
time add up. A job's computation is what its own record says between the end of its imports and its
last file; its process lasts from its start until then, as the same record says. All else is
Snakemake's.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")
RATES = ["1e-4", "3e-4", "1e-3", "2e-3", "3e-3"]
# Seconds of computation that a job of the paper's size takes on one core: a segment of 20 epochs,
# and its about 30 checkpoints of 500 + 500 examples, as measured on Fashion-MNIST.
PAPER = {
    "training": {"fc": 120.0, "cnn": 240.0},
    "gradients": {"fc": 30 * 0.14, "cnn": 30 * 0.69},
}


def grid(checkpoints: int) -> dict:
    """Six experiments of five learning rates, one epoch, as many checkpoints as are asked for."""
    experiments = {
        f"{model}_{number}": {
            "dataset": "digits",
            "model": {"name": model, "padding": "same"},
            "learning_rates": RATES,
            "reference_learning_rate": "1e-3",
            "epochs": 1,
            "early_checkpoints": 0,
            "checkpoint_interval": 1 / (checkpoints - 2),
            "evaluation": {"train": 40, "validation": 40},
            "seeds": [number],
        }
        for model in ("fc", "cnn")
        for number in range(3)
    }
    return {"run": list(experiments), "experiments": experiments, "device": "cpu"}


def measure(
    config: dict, targets: list[str], cores: int = 1, folder: Path | None = None
) -> tuple[float, dict[str, list[tuple[float, float]]]]:
    """Wall time in seconds, and by rule the seconds of each job: of its process, of its body.

    The workflow and its results stay in ``folder``, where one is given.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = folder or Path(name)
        for part in PARTS:
            copy = shutil.copytree if (REPOSITORY / part).is_dir() else shutil.copy2
            copy(REPOSITORY / part, folder / part)
        (folder / "given.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *targets]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--configfile", "given.yaml"], cwd=folder, capture_output=True, text=True
        )
        wall = time.perf_counter() - began
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        jobs = defaultdict(list)
        for record in (folder / "results/logs").rglob("*.json"):
            place = record.relative_to(folder / "results/logs")
            made = json.loads(record.read_text())
            jobs[place.parts[0]].append((made["process_seconds"], made["seconds"]))
    return wall, jobs


def dry_run() -> float:
    """Seconds of `snakemake --dry-run paper` in this folder."""
    command = [sys.executable, "-m", "snakemake", "paper", "--cores", "2", "--dry-run", "--quiet"]
    began = time.perf_counter()
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["default", "grid"])
    parser.add_argument("--checkpoints", type=int, default=30)
    given = parser.parse_args()
    config = {"device": "cpu"} if given.what == "default" else grid(given.checkpoints)
    tables = [f"results/{name}/tables/exact/summary.parquet" for name in config.get("run", [])]
    figures = [f"results/{name}/figures/critical_length.pdf" for name in config.get("run", [])]
    wall, jobs = measure(config, tables + figures)
    print(f"{'rule':20} {'jobs':>4} {'process s':>9} {'body s':>8} {'start s per job':>13}")
    for rule, times in sorted(jobs.items(), key=lambda item: -sum(one for one, _ in item[1])):
        process, body = (sum(column) for column in zip(*times, strict=True))
        start = (process - body) / len(times)
        print(f"{rule:20} {len(times):4} {process:9.1f} {body:8.1f} {start:13.2f}")
    everything = [times for rule in jobs.values() for times in rule]
    process, body = (sum(column) for column in zip(*everything, strict=True))
    number = len(everything)
    print(f"\nwall {wall:.1f} s for {number} jobs: bodies {body / wall:.1%}, ", end="")
    print(f"starts and imports {(process - body) / wall:.1%}, Snakemake {1 - process / wall:.1%}")
    outside = (wall - body) / number
    print(f"outside the bodies {outside:.2f} s per job")
    if given.what == "grid":
        paper_share(jobs, wall, body)
    print(f"snakemake --dry-run paper: {dry_run():.2f} s")


def paper_share(jobs: dict[str, list[tuple[float, float]]], wall: float, body: float) -> None:
    """The overhead measured, beside trainings and gradients of the paper's size."""
    overhead = wall - body
    kept = sum(one for rule, times in jobs.items() if rule not in PAPER for _, one in times)
    runs = {model: 3 * len(RATES) for model in ("fc", "cnn")}
    large = sum(sizes[model] * runs[model] for sizes in PAPER.values() for model in runs)
    share = overhead / (overhead + kept + large)
    total = overhead + kept + large
    print(f"at the paper's size the same jobs would take {total:.0f} s on one core, ", end="")
    print(f"of which {share:.1%} is not computation")


if __name__ == "__main__":
    main()
