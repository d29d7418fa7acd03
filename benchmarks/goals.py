"""What gradient_gram.py has no column for, each in units of an ordinary pass.

python benchmarks/goals.py class_mean      # 60,000 images through the CNN
python benchmarks/goals.py second          # later checkpoints: seconds beside passes, products
python benchmarks/goals.py texts --lengths data/mnli/train.jsonl   # 240 texts of real lengths
python benchmarks/goals.py resnet          # what ResNet20v1's time consists of, ours and vmap's
python benchmarks/goals.py triangle        # three ways to a triangle, and what PyTorch does next
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from methods import PEERS, PeerGram, one_pass
from networks import TOKENS, build
from torch.utils.flop_counter import FlopCounterMode

from stiffness import class_mean_cosine, gradient_cosines
from stiffness.gradients import multiply, passes, plan
from stiffness.gradients.plan import Plans

TEXTS = 240
IMAGES = 192
FORMS = ("Gradients", "Rows", "LateRows", "LateParts", "Factors")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = time.perf_counter


def seconds(run: Callable[[], object], repeats: int) -> float:
    """The best of some repetitions."""
    found = []
    for _ in range(repeats):
        began = clock()
        run()
        found.append(clock() - began)
    return min(found)


class Inside:
    """Seconds inside some functions; a call within another of them is part of that one."""

    def __init__(self) -> None:
        self.depth = 0
        self.spent: dict[str, float] = {}

    def watch(self, owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        def run(*given, **keywords):
            began = clock()
            self.depth += 1
            try:
                return original(*given, **keywords)
            finally:
                self.depth -= 1
                spent = (clock() - began) * (self.depth == 0)
                self.spent[label] = self.spent.get(label, 0.0) + spent

        setattr(owner, name, run)

    def watch_products(self) -> None:
        for form in FORMS:
            for name in ("add_triangle", "add_product"):
                if name in vars(getattr(multiply, form)):
                    self.watch(getattr(multiply, form), name, "products")


def class_mean(repeats: int) -> str:
    network = build("cnn", 60_000)
    given = network.model, network.inputs, network.targets
    whole = seconds(lambda: class_mean_cosine(*given), repeats)
    one = seconds(lambda: one_pass(*given), repeats)
    return f"class_mean_cosine {whole:.2f} s, one pass {one:.2f} s: {whole / one:.2f} passes"


def second(repeats: int) -> str:
    """Time of all but ``FastPasses.visit`` and the products, from the second checkpoint on."""
    inside = Inside()
    inside.watch(passes.FastPasses, "visit", "passes")
    inside.watch_products()
    lines = []
    for name, count in (("fc", 1000), ("cnn", 1000), ("resnet20v1", 600)):
        network, plans, beside = build(name, count), Plans(), []
        for _ in range(repeats + 1):
            inside.spent.clear()
            began = clock()
            gradient_cosines(network.model, network.inputs, network.targets, plans=plans)
            beside.append(clock() - began - sum(inside.spent.values()))
        lines.append(f"{name}, {count}: {min(beside[1:]):.4f} s (first {beside[0]:.3f} s)")
    return "\n".join(lines)


def resnet(repeats: int) -> str:
    """What the time of the Gram matrix consists of, ours and vmap's, and a floor of ours.

    Products include the per-example gradients of the layers whose rows are formed while they are
    multiplied. The floor is forward and backward with respect to the layers' inputs, per-example
    gradients at the rate of a large product of matrices, and numpy's product of a matrix with its
    own transpose, which computes one triangle.
    """
    network, plans = build("resnet20v1", IMAGES), Plans()
    model, inputs, targets = network.model, network.inputs, network.targets
    size = sum(p.numel() for p in model.parameters())
    chunks = (32, 64, 128)
    peers = [PeerGram(PEERS["vmap"](model), inputs, targets, size, chunk) for chunk in chunks]
    vmap = min(seconds(peer, repeats) for peer in peers)
    rows = torch.randn(IMAGES, size).numpy()
    product = seconds(lambda: rows @ rows.T, repeats)
    inside, found = Inside(), []
    inside.watch(passes, "gradients_of", "per-example gradients")
    inside.watch_products()
    for _ in range(repeats + 1):
        inside.spent.clear()
        began = clock()
        gradient_cosines(model, inputs, targets, plans=plans)
        found.append({"whole": clock() - began, **inside.spent})
    ours = min(found[1:], key=lambda one: one["whole"])
    rest = 2 * ours["whole"] - sum(ours.values())
    model.requires_grad_(False).to(memory_format=torch.channels_last)

    def passes_alone() -> None:
        for some in inputs.contiguous(memory_format=torch.channels_last).split(32):
            outputs = model(some.requires_grad_())
            torch.autograd.grad(outputs, some, torch.ones_like(outputs))

    alone = seconds(passes_alone, repeats)
    # As many operations as a forward pass.
    with FlopCounterMode(display=False) as counter:
        model(inputs)
    square = torch.randn(2000, 2000)
    rate = 2 * len(square) ** 3 / seconds(lambda: square @ square, repeats)
    least = counter.get_total_flops() / rate
    lines = ["| ResNet20v1, part | ours, s | vmap, s | floor, s |", "|---|---|---|---|"]
    lines += [
        f"| forward, backward to inputs of layers | {rest:.2f} | | {alone:.2f} |",
        f"| per-example gradients | {ours['per-example gradients']:.2f} | | {least:.2f} |",
        f"| products | {ours['products']:.2f} | {product:.2f} | {product:.2f} |",
        f"| whole | {ours['whole']:.2f} | {vmap:.2f} | {alone + least + product:.2f} |",
    ]
    return "\n".join(lines)


def triangle(repeats: int) -> str:
    """A product of PyTorch's follows each way, as it does in the engine."""
    rows, out = multiply.Rows(torch.randn(600, 100_000)), torch.zeros(600, 600)
    values, square = rows.rows.numpy(), torch.randn(16, 512, 512)
    ways = {
        "ours": lambda: rows.add_triangle(out, plan._PRODUCT),
        "numpy's threads": lambda: values @ values.T,
        "PyTorch's rectangles": lambda: multiply.Gradients.add_triangle(rows, out, plan._PRODUCT),
        "nothing": lambda: None,
    }
    lines = ["| 600 x 100,000 | seconds | of what PyTorch does next |", "|---|---|---|"]
    for name, way in ways.items():
        least = seconds(way, repeats)
        after = []
        for _ in range(repeats):
            way()
            after.append(seconds(lambda: square @ square, 1))
        lines.append(f"| {name} | {least:.3f} | {min(after):.3f} |")
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
    goals = {"class_mean": class_mean, "second": second, "resnet": resnet, "triangle": triangle}
    parser.add_argument("goal", choices=("texts", *goals))
    parser.add_argument("--lengths", type=Path, help="JSON lines with premise and hypothesis")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu for a busy machine")
    options = parser.parse_args()
    global clock
    clock = CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    if options.goal == "texts":
        if options.lengths is None:
            parser.error("texts: --lengths is needed")
        print(texts(options.lengths, options.repeats))
    else:
        print(goals[options.goal](options.repeats))


if __name__ == "__main__":
    main()
