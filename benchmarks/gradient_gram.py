"""The Gram matrix of per-example gradients: ours against torch.func, opacus and backpack.

    python benchmarks/gradient_gram.py                      # everything, with two threads
    python benchmarks/gradient_gram.py --networks fc cnn --methods ours vmap --parts methods
    python benchmarks/gradient_gram.py --threads 1 --clock cpu --output table.md

Every cell runs in a process of its own, so that its peak memory is its own; see README.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
# Network -> examples. All methods are measured at the first number; other ones, at which peers
# would not fit in memory or take too long, are for ours alone, except those in ``VMAP_TOO``.
SIZES = {
    "fc": (1000,),
    "cnn": (1000,),
    "resnet20v1": (600, 6000),
    "encoder": (32, 64),
    "bert_base": (8, 64, 256),
}
VMAP_TOO = {("resnet20v1", 6000)}  # it holds all gradients, whatever our budget
BUDGETS = ("256MiB", "512MiB", "1GiB", "4GiB")
BUDGET_CASES = (("fc", 1000), ("cnn", 1000), ("resnet20v1", 600), ("encoder", 64), ("lstm", 200))
SCALING = (250, 500, 1000, 2000, 4000, 8000)
WHOLE_SETS = (7500, 15000, 30000, 60000)
PEERS = ("vmap", "opacus", "backpack")
OURS = ("ours", "later")


class Runner:
    """Runs cells; ``clock`` is what a second means: "wall", or "cpu" on a busy machine."""

    def __init__(self, threads: int, clock: str, repeats: int, timeout: int) -> None:
        self.threads, self.clock, self.repeats, self.timeout = threads, clock, repeats, timeout

    def cell(self, network: str, count: int, method: str, budget: str = "4GiB") -> dict:
        """seconds and peak, or an error in a few words."""
        command = [sys.executable, HERE / "cell.py", network, str(count), method]
        command += ["--budget", budget, "--threads", str(self.threads)]
        command += ["--repeats", str(self.repeats)]
        paths = [str(HERE.parent / "workflow"), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        began = time.perf_counter()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout, env=environment
            )
        except subprocess.TimeoutExpired:
            return {"error": f"over {self.timeout} s"}
        print(
            f"{network} {count} {method} {budget}: {time.perf_counter() - began:.0f} s",
            file=sys.stderr,
            flush=True,
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["killed"])[-1]
            return {"error": last[:60]}
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return {
            **found,
            "seconds": found["cpu_seconds" if self.clock == "cpu" else "seconds"],
        }


def floor(runner: Runner, network: str, count: int) -> tuple[float, float]:
    """Seconds of one forward and backward pass, and of one pass and one triangle of the cheapest
    products."""
    measured = min(count, 64 if network == "bert_base" else 600)
    cells = {method: runner.cell(network, measured, method) for method in ("pass", "work")}
    for method, cell in cells.items():
        if "error" in cell:
            sys.exit(f"the floor of {network}: {method}: {cell['error']}")
    work = cells["work"]
    one_pass = cells["pass"]["seconds"] * count / measured
    products = work["flops_a_pair"] * count * (count + 1) / 2 / work["flops_a_second"]
    return one_pass, one_pass + products


def methods(
    runner: Runner, networks: list[str], chosen: list[str], budget: str, examples: list[int] | None
) -> Iterator[str]:
    yield (
        "| network, N | method | examples per pass | seconds | peak MiB | times ours | "
        "memory, times ours | in passes | times the floor |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for network in networks:
        for number, count in enumerate(SIZES[network]):
            if examples and count not in examples:
                continue
            one_pass, least = floor(runner, network, count)
            title = f"{network}, {count}"
            yield f"| {title} | one pass | | {one_pass:.3g} | | | | 1 | |"
            yield f"| {title} | floor | | {least:.3g} | | | | {least / one_pass:.2f} | 1 |"
            ours = runner.cell(network, count, "ours", budget)
            for method in chosen:
                vmap_too = method == "vmap" and (network, count) in VMAP_TOO
                if method not in OURS and number > 0 and not vmap_too:
                    continue
                found = ours if method == "ours" else runner.cell(network, count, method, budget)
                yield f"| {title} | {method} | {described(found, ours, one_pass, least)} |"


def described(found: dict, ours: dict, one_pass: float, least: float) -> str:
    if "error" in found:
        return " | ".join(["", found["error"], "", "", "", "", ""])
    seconds, peak = found["seconds"], found["peak"]
    cells = [str(found["chunk"] or ""), f"{seconds:.3g}", f"{peak / 2**20:.0f}"]
    beside = [f"{seconds / one_pass:.2f}", f"{seconds / least:.2f}"]
    if "error" in ours:
        return " | ".join([*cells, "", "", *beside])
    cells += [f"{seconds / ours['seconds']:.2f}", f"{peak / ours['peak']:.1f}"]
    return " | ".join([*cells, *beside])


def budgets(runner: Runner, networks: list[str]) -> Iterator[str]:
    yield "| network, N | budget | peak MiB | of the budget | seconds |"
    yield "|---|---|---|---|---|"
    for network, count in BUDGET_CASES:
        if network not in (*networks, "lstm"):
            continue
        for budget in BUDGETS:
            found = runner.cell(network, count, "ours", budget)
            if "error" in found:
                yield f"| {network}, {count} | {budget} | {found['error']} | | |"
                continue
            number, unit = int(budget[:-3]), {"MiB": 2**20, "GiB": 2**30}[budget[-3:]]
            yield (
                f"| {network}, {count} | {budget} | {found['peak'] / 2**20:.0f} | "
                f"{found['peak'] / (number * unit):.2f} | {found['seconds']:.3g} |"
            )


def scaling(runner: Runner, budget: str) -> list[str]:
    lines = ["| CNN | N | seconds | fit |", "|---|---|---|---|"]
    for method, counts, powers in (
        ("ours", SCALING, (1, 2)),
        ("class_mean_cosine", WHOLE_SETS, (0, 1)),
    ):
        found = [runner.cell("cnn", count, method, budget) for count in counts]
        pairs = [(n, f["seconds"]) for n, f in zip(counts, found, strict=True) if "error" not in f]
        count, seconds = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
        # Relative errors, so that small N count as much as large ones.
        terms = np.stack([count**power for power in powers], 1)
        fit, *_ = np.linalg.lstsq(terms / seconds[:, None], np.ones(len(seconds)), rcond=None)
        lines += [
            f"| {method} | {n:.0f} | {s:.3g} | {f:.3g} |"
            for n, s, f in zip(count, seconds, terms @ fit, strict=True)
        ]
        formula = " + ".join(
            f"{c:.3g}" + ("", " N", " N²")[p] for c, p in zip(fit, powers, strict=True)
        )
        lines.append(f"| {method} | | {formula} | |")
    return lines


def processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--methods", nargs="+", choices=(*OURS, *PEERS), default=[*OURS, *PEERS])
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=("methods", "budgets", "scaling"),
        default=["methods", "budgets", "scaling"],
    )
    parser.add_argument("--budget", default="4GiB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--examples", nargs="+", type=int, help="only these numbers of examples")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--timeout", type=int, default=900, help="seconds a cell")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--output", help="Markdown file; standard output by default")
    options = parser.parse_args()
    runner = Runner(options.threads, options.clock, options.repeats, options.timeout)
    about = (
        f"{processor()}, {options.threads} thread(s), seconds of "
        + ("processor time" if options.clock == "cpu" else "wall time")
        + f", budget {options.budget}"
    )
    chosen = options.networks, options.methods, options.budget, options.examples
    tables: dict[str, Callable[[], Iterable[str]]] = {
        "methods": lambda: methods(runner, *chosen),
        "budgets": lambda: budgets(runner, options.networks),
        "scaling": lambda: scaling(runner, options.budget),
    }
    # Line by line: what was measured is there if the rest is interrupted.
    with open(options.output, "w") if options.output else nullcontext(sys.stdout) as file:
        print(about, file=file)
        for part in options.parts:
            print(file=file)
            for line in tables[part]():
                print(line, file=file, flush=True)


if __name__ == "__main__":
    main()
