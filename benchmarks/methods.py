"""Ways to the Gram matrix, each as a function that is prepared before it is timed.

A peer gives the gradients of one chunk of examples; ``PeerGram`` joins the chunks and multiplies.
"""

import time
from collections.abc import Callable

import torch
from torch import nn

from stiffness import Plans, class_mean_cosine, gradient_gram
from stiffness.data.batch import Inputs, length, take

CHUNKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)  # examples per pass that peers try

Gradients = Callable[[Inputs, torch.Tensor], list[torch.Tensor]]


def forward(model: nn.Module, inputs: Inputs, parameters=None) -> torch.Tensor:
    args, keywords = ((), dict(inputs)) if isinstance(inputs, dict) else ((inputs,), {})
    if parameters is None:
        outputs = model(*args, **keywords)
    else:
        outputs = torch.func.functional_call(model, parameters, args, keywords)
    return outputs if isinstance(outputs, torch.Tensor) else outputs.logits


def vmap(model: nn.Module) -> Gradients:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, example, target):
        one = (
            {name: value[None] for name, value in example.items()}
            if isinstance(example, dict)
            else example[None]
        )
        return nn.functional.cross_entropy(forward(model, one, params), target[None])

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def gradients(inputs: Inputs, targets: torch.Tensor) -> list[torch.Tensor]:
        # The fused attention kernels have no batching rule.
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return list(gradient(parameters, inputs, targets).values())

    return gradients


def opacus(model: nn.Module) -> Gradients:
    from opacus import GradSampleModule

    wrapped = GradSampleModule(model.train(), loss_reduction="sum")
    parameters = list(wrapped.parameters())

    def gradients(inputs: Inputs, targets: torch.Tensor) -> list[torch.Tensor]:
        outputs = forward(wrapped, inputs)
        nn.functional.cross_entropy(outputs, targets, reduction="sum").backward()
        found = [p.grad_sample for p in parameters]
        for p in parameters:
            p.grad_sample = p.grad = None
        return found

    return gradients


def backpack(model: nn.Module) -> Gradients:
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    flat = isinstance(model, nn.Sequential) and all(
        not list(child.children()) for child in model.children()
    )
    extended = extend(model, use_converter=not flat)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))
    parameters = list(extended.parameters())

    def gradients(inputs: Inputs, targets: torch.Tensor) -> list[torch.Tensor]:
        value = loss(forward(extended, inputs), targets)
        with backpack(BatchGrad()):
            value.backward()
        found = [p.grad_batch for p in parameters]
        for p in parameters:
            p.grad = None
            del p.grad_batch
        return found

    return gradients


PEERS: dict[str, Callable[[nn.Module], Gradients]] = {
    "vmap": vmap,
    "opacus": opacus,
    "backpack": backpack,
}


class PeerGram:
    """G G^T of a peer's gradients, in chunks of examples.

    Where all examples are one chunk, the products of parameters are summed and no G is formed.
    Otherwise the gradients are written to a buffer that is allocated here. numpy's product of a
    matrix with its own transpose computes one triangle (BLAS syrk).
    """

    def __init__(
        self, gradients: Gradients, inputs: Inputs, targets: torch.Tensor, size: int, chunk: int
    ) -> None:
        """``size`` is the number of parameters."""
        self.gradients, self.inputs, self.targets, self.chunk = gradients, inputs, targets, chunk
        count = length(inputs)
        self.buffer = torch.empty(count, size) if chunk < count else None

    def __call__(self) -> torch.Tensor:
        if self.buffer is None:
            gradients = self.gradients(self.inputs, self.targets)
            flat = [g.detach().flatten(1).numpy() for g in gradients]
            return torch.from_numpy(sum(g @ g.T for g in flat))
        for begin in range(0, len(self.buffer), self.chunk):
            rows = slice(begin, begin + self.chunk)
            gradients = self.gradients(take(self.inputs, rows), self.targets[rows])
            parts = [g.detach().flatten(1) for g in gradients]
            torch.cat(parts, 1, out=self.buffer[rows])
        whole = self.buffer.numpy()
        return torch.from_numpy(whole @ whole.T)


def best_chunk(gradients: Gradients, inputs: Inputs, targets: torch.Tensor) -> int:
    """The number of examples per pass at which one example takes the least time.

    All sizes are tried: time per example has more than one minimum.
    """
    count = length(inputs)
    seconds: dict[int, float] = {}
    for chunk in sorted({min(chunk, count) for chunk in CHUNKS}):
        rows = slice(0, chunk)
        some, their_targets = take(inputs, rows), targets[rows]
        tries = []
        for _ in range(3):
            began = time.perf_counter()
            gradients(some, their_targets)
            tries.append(time.perf_counter() - began)
        seconds[chunk] = min(tries) / chunk
    return min(seconds, key=lambda chunk: seconds[chunk])


def one_pass(model: nn.Module, inputs: Inputs, targets: torch.Tensor) -> None:
    """One forward and backward pass over all examples, a batch at a time: part of the floor."""
    parameters = list(model.parameters())
    size = 8 if isinstance(inputs, dict) else 64
    for begin in range(0, length(inputs), size):
        rows = slice(begin, begin + size)
        loss = nn.functional.cross_entropy(forward(model, take(inputs, rows)), targets[rows])
        torch.autograd.grad(loss, parameters, allow_unused=True)


_PLANS = Plans()

OWN: dict[str, Callable[[nn.Module, Inputs, torch.Tensor, str], torch.Tensor | None]] = {
    "ours": lambda *given: gradient_gram(*given[:3], memory_budget=given[3]),
    # With the plan of an earlier call, as every checkpoint of a series after the first has it.
    "later": lambda *given: gradient_gram(*given[:3], memory_budget=given[3], plans=_PLANS),
    "class_mean_cosine": lambda *given: class_mean_cosine(*given[:3], memory_budget=given[3]),
    "pass": lambda *given: one_pass(*given[:3]),
}
