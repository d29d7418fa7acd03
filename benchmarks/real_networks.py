"""Gradient cosines of networks as torchvision and transformers build them, at their real sizes.

    python benchmarks/real_networks.py                     # all of them, as a table
    python benchmarks/real_networks.py vit_b_16 --count 8  # one, as a line of JSON

Weights and inputs are random. Every network is measured in a process of its own; a pass is one
ordinary forward and backward pass of all examples with the gradients of all trained parameters.
The first call proves the fast paths of the network; later checkpoints, timed next, need no proof.
"""

import argparse
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peak import resident, settle
from torch import nn

from stiffness import gradient_cosines
from stiffness.data.batch import Inputs, call, take
from stiffness.data.vision import import_torchvision
from stiffness.errors import StiffnessWarning
from stiffness.gradients.plan import Plans

TOKENS = 128
CLASSES = 3


@dataclass
class Case:
    """A network, the inputs and targets of some examples, and its loss."""

    model: nn.Module
    inputs: Inputs
    targets: torch.Tensor
    loss: str = "cross_entropy"


class Pooled(nn.Module):
    """An encoder as a classifier of the mean over positions."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.out = encoder, nn.Linear(width, CLASSES)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(**inputs).last_hidden_state.mean(1))


class LowRank(nn.Module):
    """A frozen linear layer and a trained update of rank 8."""

    def __init__(self, frozen: nn.Linear) -> None:
        super().__init__()
        self.frozen = frozen.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(8, frozen.in_features) / 8)
        self.up = nn.Parameter(torch.randn(frozen.out_features, 8) / 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(x) + x @ self.down.T @ self.up.T


def image_network(name: str, count: int) -> Case:
    model = getattr(import_torchvision().models, name)()
    if name == "vit_b_16":  # its head is 0 at first, and with it all gradients below
        nn.init.normal_(model.heads.head.weight, std=0.02)
    return Case(model, torch.randn(count, 3, 224, 224), torch.randint(1000, (count,)))


def text_network(build: Callable[[Any], nn.Module], vocabulary: int, count: int) -> Case:
    import_torchvision()  # which transformers imports, and could not beside a CPU-only torch
    import transformers

    tokens = {"input_ids": torch.randint(2, vocabulary, (count, TOKENS))}
    return Case(build(transformers), tokens, torch.randint(CLASSES, (count,)))


def language_model(build: Callable[[Any], nn.Module], vocabulary: int, count: int) -> Case:
    case = text_network(build, vocabulary, count)
    return Case(case.model, case.inputs, take(case.inputs, slice(None))["input_ids"], "causal_lm")


def bert(hub: Any) -> nn.Module:
    return hub.BertForSequenceClassification(hub.BertConfig(num_labels=CLASSES))


def adapted_bert(hub: Any) -> nn.Module:
    model = bert(hub).requires_grad_(False)
    for name, layer in list(model.named_modules()):
        if name.endswith((".query", ".value")):
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], LowRank(layer))
    model.classifier.requires_grad_()
    return model


def vit(hub: Any) -> nn.Module:
    return hub.ViTForImageClassification(hub.ViTConfig(num_labels=CLASSES))


def gpt2(hub: Any) -> nn.Module:
    return hub.GPT2LMHeadModel(hub.GPT2Config())


def llama(hub: Any) -> nn.Module:
    """Of the size of SmolLM-135M."""
    return hub.LlamaForCausalLM(
        hub.LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        )
    )


def t5(hub: Any) -> nn.Module:
    """The encoder of t5-base."""
    settings = {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}
    return Pooled(hub.T5EncoderModel(hub.T5Config(vocab_size=32128, **settings)), 768)


def images_of_transformers(count: int) -> Case:
    case = text_network(vit, 10, count)
    return Case(case.model, {"pixel_values": torch.randn(count, 3, 224, 224)}, case.targets)


# Name -> (title, examples, how to build it)
NETWORKS: dict[str, tuple[str, int, Callable[[int], Case]]] = {
    "resnet18": ("torchvision resnet18", 32, lambda n: image_network("resnet18", n)),
    "convnext_tiny": ("torchvision convnext_tiny", 8, lambda n: image_network("convnext_tiny", n)),
    "vit_b_16": ("torchvision vit_b_16", 8, lambda n: image_network("vit_b_16", n)),
    "vit": ("transformers ViT-base", 8, images_of_transformers),
    "bert": ("transformers BERT-base", 16, lambda n: text_network(bert, 30522, n)),
    "lora": ("BERT-base, rank 8", 16, lambda n: text_network(adapted_bert, 30522, n)),
    "t5": ("transformers T5-base encoder", 8, lambda n: text_network(t5, 32128, n)),
    "gpt2": ("transformers GPT-2, tied", 8, lambda n: language_model(gpt2, 50257, n)),
    "llama": ("transformers Llama, 135M, tied", 8, lambda n: language_model(llama, 49152, n)),
}


def one_pass(case: Case) -> float:
    """Seconds of a forward and backward pass of all examples, the better of two."""
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        outputs = call(case.model, case.inputs)
        torch.autograd.grad(outputs.sum(), parameters, allow_unused=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def measure(name: str, count: int, budget: str) -> dict[str, Any]:
    torch.manual_seed(0)
    case = NETWORKS[name][2](count)
    case.model.eval()

    plans = Plans()

    def cosines() -> float:
        began = time.perf_counter()
        gradient_cosines(
            case.model,
            case.inputs,
            case.targets,
            loss=case.loss,
            memory_budget=budget,
            plans=plans,
        )
        return time.perf_counter() - began

    unit = one_pass(case)  # loads libraries too
    before = settle()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", StiffnessWarning)
        first = cosines()
        peak = resident("VmHWM") - before
        seconds = cosines()
    messages = {str(one.message) for one in told if one.category is StiffnessWarning}
    return {
        "first": first,
        "seconds": seconds,
        "peak": peak,
        "passes": seconds / unit,
        "warnings": sorted(messages),
        "parameters": sum(p.numel() for p in case.model.parameters() if p.requires_grad),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--count", type=int, help="examples; prints JSON instead of a table")
    parser.add_argument("--budget", default="4GiB")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.count:
        print(json.dumps(measure(options.networks[0], options.count, options.budget)))
        return
    print("| network | trained parameters | N | first | seconds | passes | peak MiB | warning |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.networks or NETWORKS:
        title, count, _ = NETWORKS[name]
        settings = ["--budget", options.budget, "--threads", str(options.threads)]
        done = subprocess.run(
            [sys.executable, Path(__file__), name, "--count", str(count), *settings],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {title} | {found['parameters'] / 1e6:.1f} M | {count} | {found['first']:.3g} | "
            f"{found['seconds']:.3g} | {found['passes']:.2f} | {found['peak'] / 2**20:.0f} | "
            f"{'; '.join(found['warnings']) or 'no'} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
