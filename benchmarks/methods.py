"""Ways to the Gram matrix: (model, inputs, targets, memory budget) -> [N, N] or, where there is
none, None."""

import gc

import torch
from torch import nn

from stiffness import class_mean_cosine, gradient_gram
from stiffness.data.batch import Inputs, call, length, take

_CHUNK = 64  # examples a pass, of images
_TOKEN_CHUNK = 8  # of texts


def ours(model, inputs, targets, budget):
    return gradient_gram(model, inputs, targets, memory_budget=budget)


def linear_time(model, inputs, targets, budget):
    return class_mean_cosine(model, inputs, targets, memory_budget=budget)


def one_pass(model, inputs, targets, budget):
    """One forward and backward pass over all examples, a batch at a time: part of the floor."""
    parameters = list(model.parameters())
    for rows in chunks(inputs):
        loss = nn.functional.cross_entropy(call(model, take(inputs, rows)), targets[rows])
        torch.autograd.grad(loss, parameters, allow_unused=True)


def vmap(model, inputs, targets, budget):
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(params, example, target):
        one = (
            {name: value[None] for name, value in example.items()}
            if isinstance(example, dict)
            else example[None]
        )
        return nn.functional.cross_entropy(call(model, one, params), target[None])

    gradient = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

    def of(rows):
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return list(gradient(parameters, take(inputs, rows), targets[rows]).values())

    return product(of, inputs, parameters.values())


def opacus(model, inputs, targets, budget):
    from opacus import GradSampleModule

    wrapped = GradSampleModule(model.train(), loss_reduction="sum")

    def of(rows):
        wrapped.zero_grad()
        outputs = call(wrapped, take(inputs, rows))
        nn.functional.cross_entropy(outputs, targets[rows], reduction="sum").backward()
        found = [p.grad_sample for p in wrapped.parameters()]
        for p in wrapped.parameters():
            p.grad_sample = p.grad = None
        return found

    try:
        return product(of, inputs, list(wrapped.parameters()))
    finally:
        wrapped.to_standard_module()
        model.eval()


def backpack(model, inputs, targets, budget):
    from backpack import backpack, extend
    from backpack.extensions import BatchGrad

    flat = isinstance(model, nn.Sequential) and all(
        not list(child.children()) for child in model.children()
    )
    extended = extend(model, use_converter=not flat)
    loss = extend(nn.CrossEntropyLoss(reduction="sum"))

    def of(rows):
        value = loss(call(extended, take(inputs, rows)), targets[rows])
        with backpack(BatchGrad()):
            value.backward()
        found = [p.grad_batch for p in extended.parameters()]
        for p in extended.parameters():
            p.grad = None
            del p.grad_batch
        return found

    return product(of, inputs, list(extended.parameters()))


def product(of, inputs, parameters):
    """G G^T from every example's gradient, a chunk of examples at a time."""
    count = length(inputs)
    rows_of_all = torch.empty(count, sum(p.numel() for p in parameters))
    for rows in chunks(inputs):
        begin = 0
        for gradient in of(rows):
            flat = gradient.detach().flatten(1)
            rows_of_all[rows, begin : begin + flat.shape[1]] = flat
            begin += flat.shape[1]
        gc.collect()  # of graphs that refer to themselves
    return rows_of_all @ rows_of_all.T


def chunks(inputs: Inputs) -> list[slice]:
    size = _TOKEN_CHUNK if isinstance(inputs, dict) else _CHUNK
    count = length(inputs)
    return [slice(begin, min(begin + size, count)) for begin in range(0, count, size)]


METHODS = {
    "ours": ours,
    "class_mean_cosine": linear_time,
    "pass": one_pass,
    "vmap": vmap,
    "opacus": opacus,
    "backpack": backpack,
}
PEERS = ("vmap", "opacus", "backpack")
