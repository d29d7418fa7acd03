"""What gradient_gram.py has no column for, each in units of an ordinary pass.

python benchmarks/goals.py class_mean      # 60,000 images through the CNN
python benchmarks/goals.py second          # later checkpoints: seconds beside passes, products
python benchmarks/goals.py texts --lengths data/mnli/train.jsonl   # 240 texts of real lengths
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from methods import one_pass
from networks import TOKENS, build

from stiffness import class_mean_cosine, gradient_cosines
from stiffness.gradients import multiply
from stiffness.gradients.passes import FastPasses
from stiffness.gradients.plan import Plans

TEXTS = 240


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The best of some repetitions."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        found.append(time.perf_counter() - began)
    return min(found)


def class_mean(repeats: int) -> str:
    network = build("cnn", 60_000)
    given = network.model, network.inputs, network.targets
    whole = seconds(lambda: class_mean_cosine(*given), repeats)
    one = seconds(lambda: one_pass(*given), repeats)
    return f"class_mean_cosine {whole:.2f} s, one pass {one:.2f} s: {whole / one:.2f} passes"


def second(repeats: int) -> str:
    """Time of all but ``FastPasses.visit`` and the products, from the second checkpoint on."""
    inside = [0.0]
    depth = [0]

    def timed(owner: type, name: str) -> None:
        original = getattr(owner, name)

        def run(*given, **keywords):
            began = time.perf_counter()
            depth[0] += 1
            try:
                return original(*given, **keywords)
            finally:
                depth[0] -= 1
                inside[0] += (time.perf_counter() - began) * (depth[0] == 0)

        setattr(owner, name, run)

    timed(FastPasses, "visit")
    for form in ("Gradients", "Rows", "LateRows", "LateParts", "Factors"):
        for name in ("add_triangle", "add_product"):
            if name in vars(getattr(multiply, form)):
                timed(getattr(multiply, form), name)
    lines = []
    for name, count in (("fc", 1000), ("cnn", 1000), ("resnet20v1", 600)):
        network, plans, beside = build(name, count), Plans(), []
        for _ in range(repeats + 1):
            inside[0], began = 0.0, time.perf_counter()
            gradient_cosines(network.model, network.inputs, network.targets, plans=plans)
            beside.append(time.perf_counter() - began - inside[0])
        lines.append(f"{name}, {count}: {min(beside[1:]):.4f} s (first {beside[0]:.3f} s)")
    return "\n".join(lines)


def texts(lengths: Path, repeats: int) -> str:
    """A pass here is one over texts padded to 128 tokens."""
    with open(lengths) as file:
        rows = [json.loads(line) for line, _ in zip(file, range(TEXTS), strict=False)]
    words = [len(row["premise"].split()) + len(row["hypothesis"].split()) for row in rows]
    count = torch.tensor([min(TOKENS, 3 + int(1.25 * number)) for number in words])
    network = build("encoder", TEXTS)
    mask = (torch.arange(TOKENS) < count[:, None]).long()
    inputs = {"input_ids": network.inputs["input_ids"] * mask, "attention_mask": mask}
    ours = seconds(lambda: gradient_cosines(network.model, inputs, network.targets), repeats)
    one = seconds(lambda: one_pass(network.model, inputs, network.targets), repeats)
    return (
        f"{TEXTS} texts of {float(count.float().mean()):.0f} tokens on average: {ours:.2f} s, "
        f"one padded pass {one:.2f} s: {ours / one:.2f} passes"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("goal", choices=("class_mean", "second", "texts"))
    parser.add_argument("--lengths", type=Path, help="JSON lines with premise and hypothesis")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.goal == "texts":
        if options.lengths is None:
            parser.error("texts: --lengths is needed")
        print(texts(options.lengths, options.repeats))
    else:
        print({"class_mean": class_mean, "second": second}[options.goal](options.repeats))


if __name__ == "__main__":
    main()
