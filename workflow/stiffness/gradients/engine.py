"""Gram matrices of per-example gradients, given the seed of each example's backward pass.

Two exact routes, chosen per parameter-owning module:

* factored, for a linear layer that sees one vector an example: the gradient of its weight is the
  outer product of the output's gradient d_i and the input a_i, so the layer's block of the Gram
  matrix is (A A^T + 1) * (D D^T) and no gradient is ever formed. Cost N^2 (d_in + d_out).
* materialised, for everything else: ``torch.func`` vmap over examples. Cost N^2 P, and N P numbers
  of memory; where these do not fit the budget, blocks of examples are recomputed.

Whether a layer may be factored is not guessed from its type: it must be called exactly once, share
no parameter, and its outer products on real examples must equal the gradients autograd finds for
each of them alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from stiffness.errors import StiffnessError

Inputs = torch.Tensor | Mapping[str, torch.Tensor]

_CHUNK = 128  # examples a pass; larger ones no longer gain speed
_PROBE = 8


def parse_bytes(text: str | int) -> int:
    """ "4GiB", "256MiB" or a number of bytes.

    Raises:
        StiffnessError: anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]i?B|B)?", str(text).strip())
    units = {"B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
    if not match:
        raise StiffnessError(f"memory_budget: {text!r} is not a size such as 4GiB or 512MiB")
    return int(float(match[1]) * units[match[2] or "B"])


def length(inputs: Inputs) -> int:
    """Number of examples.

    Raises:
        StiffnessError: the tensors of a dict disagree.
    """
    tensors = inputs if isinstance(inputs, Mapping) else {"": inputs}
    lengths = {name: len(value) for name, value in tensors.items()}
    if len(set(lengths.values())) > 1:
        raise StiffnessError(f"inputs: of different lengths: {lengths}")
    return next(iter(lengths.values()), 0)


def take(inputs: Inputs, rows: slice) -> Inputs:
    """The examples in ``rows``."""
    if isinstance(inputs, Mapping):
        return {name: value[rows] for name, value in inputs.items()}
    return inputs[rows]


def call(model: nn.Module, inputs: Inputs) -> torch.Tensor:
    """The outputs of ``model``; a transformers model is called by keyword and gives its logits."""
    outputs = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    return outputs.logits if hasattr(outputs, "logits") else outputs


def refuse_training_mode(model: nn.Module) -> None:
    """Raise ``StiffnessError`` where a layer would make one example's gradient depend on others
    or on chance: batch normalisation or dropout in training mode."""
    for name, module in model.named_modules():
        dropping = isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0
        batch = isinstance(module, nn.modules.batchnorm._BatchNorm)
        where = f"model: {name or 'the model'} ({type(module).__name__})"
        if module.training and (dropping or batch):
            raise StiffnessError(f"{where} is in training mode; call model.eval() first")
        if batch and module.running_mean is None:
            raise StiffnessError(
                f"{where} keeps no running statistics, so examples depend on one another"
            )


@dataclass
class GramAccumulator:
    """Sums of blocks, in float64 for exact seeds; per module where asked."""

    size: int
    dtype: torch.dtype
    per_layer: bool
    blocks: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, layer: str, rows: slice, columns: slice, block: torch.Tensor) -> None:
        """Add ``block`` [rows, columns] of ``layer``, and its transpose below the diagonal."""
        name = layer if self.per_layer else ""
        if name not in self.blocks:
            self.blocks[name] = torch.zeros(
                self.size, self.size, dtype=self.dtype, device=block.device
            )
        self.blocks[name][rows, columns] += block.to(self.dtype)
        if rows != columns:
            self.blocks[name][columns, rows] += block.T.to(self.dtype)


def gram_blocks(
    model: nn.Module,
    inputs: Inputs,
    seeds: torch.Tensor,
    per_layer: bool,
    budget: int,
    dtype: torch.dtype,
) -> dict[str, torch.Tensor]:
    """Gram matrices [N, N] of the gradients of sum(outputs * seeds), on the model's device.

    Args:
        seeds: [N, ...] in the model's dtype, shaped as its outputs.
        budget: bytes for per-example gradients.
        dtype: of the sums over modules.

    Returns:
        One matrix under the key "", or one a parameter-owning module under its name.
    """
    gram = GramAccumulator(len(seeds), dtype, per_layer)
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not trainable:
        raise StiffnessError("model: no parameter requires a gradient")
    factored = _factored_layers(model, inputs, seeds)
    _add_factored(model, inputs, seeds, factored, gram)
    covered = {id(p) for layer in factored.values() for p in layer.parameters()}
    rest = {name: p for name, p in trainable.items() if id(p) not in covered}
    if rest:
        _add_materialized(model, inputs, seeds, rest, budget, gram)
    return gram.blocks


class _Capture:
    """Inputs and output gradients of some layers during one forward and backward pass."""

    def __init__(self, layers: Mapping[str, nn.Linear]) -> None:
        self.layers = layers
        self.calls = dict.fromkeys(layers, 0)
        self.inputs: dict[str, torch.Tensor] = {}
        self.gradients: dict[str, torch.Tensor] = {}

    def run(
        self, model: nn.Module, inputs: Inputs, seeds: torch.Tensor
    ) -> dict[str, tuple[torch.Tensor | None, torch.Tensor | None]]:
        """Return autograd's own summed gradients of every layer's weight and bias."""
        handles = [
            layer.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, layer in self.layers.items()
        ]
        parameters = [p for layer in self.layers.values() for p in layer.parameters()]
        try:
            with torch.enable_grad():
                outputs = call(model, inputs)
                found: dict[int, torch.Tensor | None] = {}
                if outputs.requires_grad:
                    gradients = torch.autograd.grad(outputs, parameters, seeds, allow_unused=True)
                    found = {id(p): g for p, g in zip(parameters, gradients, strict=True)}
        finally:
            for handle in handles:
                handle.remove()
        return {
            name: (found.get(id(layer.weight)), found.get(id(layer.bias)))
            for name, layer in self.layers.items()
        }

    def _hook(self, name: str):  # type: ignore[no-untyped-def]
        def hook(
            _: nn.Module,
            args: tuple[torch.Tensor, ...],
            keywords: dict[str, torch.Tensor],
            output: torch.Tensor,
        ) -> None:
            self.calls[name] += 1
            self.inputs[name] = (args[0] if args else keywords["input"]).detach()
            if output.requires_grad:
                output.register_hook(lambda gradient: self.gradients.__setitem__(name, gradient))

        return hook


def _factored_layers(model: nn.Module, inputs: Inputs, seeds: torch.Tensor) -> dict[str, nn.Linear]:
    """The linear layers whose gradient is one outer product an example; see the module's text."""
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    candidates = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear
        # A pruned or reparametrised layer owns other parameters than it multiplies by.
        and dict(module.named_parameters()).keys() in ({"weight"}, {"weight", "bias"})
        and all(p.requires_grad and owners[id(p)] == 1 for p in module.parameters())
    }
    if not candidates:
        return {}
    count = min(_PROBE, len(seeds))
    together = _Capture(candidates)
    together.run(model, take(inputs, slice(0, count)), seeds[:count])
    kept = {
        name: layer
        for name, layer in candidates.items()
        if together.calls[name] == 1
        and name in together.gradients
        and together.inputs[name].shape == (count, layer.in_features)
    }
    # Alone, so that a row which is no example, or another example's, cannot hide in the sum.
    for row in {0, count - 1}:
        if not kept:
            break
        one = slice(row, row + 1)
        found = _Capture(kept).run(model, take(inputs, one), seeds[one])
        for name, (weight, bias) in found.items():
            d, a = together.gradients[name][row], together.inputs[name][row]
            if not _close(torch.outer(d, a), weight) or (
                kept[name].bias is not None and not _close(d, bias)
            ):
                del kept[name]
    return kept


def _close(ours: torch.Tensor, gradient: torch.Tensor | None) -> bool:
    if gradient is None:
        return False
    return torch.allclose(ours, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def _add_factored(
    model: nn.Module,
    inputs: Inputs,
    seeds: torch.Tensor,
    layers: Mapping[str, nn.Linear],
    gram: GramAccumulator,
) -> None:
    """Linear: a [N, d_in], d [N, d_out] -> (a a^T + 1) * (d d^T)."""
    if not layers:
        return
    kept: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {name: [] for name in layers}
    for begin in range(0, len(seeds), _CHUNK):
        rows = slice(begin, min(begin + _CHUNK, len(seeds)))
        capture = _Capture(layers)
        capture.run(model, take(inputs, rows), seeds[rows])
        for name in layers:
            kept[name].append((capture.inputs[name], capture.gradients[name]))
    everything = slice(0, len(seeds))
    for name, layer in layers.items():
        a, d = (torch.cat(parts) for parts in zip(*kept.pop(name), strict=True))
        block = a @ a.T
        if layer.bias is not None:
            block += 1
        gram.add(name, everything, everything, block * (d @ d.T))


def _add_materialized(
    model: nn.Module,
    inputs: Inputs,
    seeds: torch.Tensor,
    parameters: Mapping[str, nn.Parameter],
    budget: int,
    gram: GramAccumulator,
) -> None:
    """Blocks of examples, each pair once; a block is recomputed where two do not fit at once."""
    frozen = {name: p.detach() for name, p in model.named_parameters() if name not in parameters}
    frozen |= dict(model.named_buffers())

    def weighted(
        params: dict[str, torch.Tensor], example: Inputs, seed: torch.Tensor
    ) -> torch.Tensor:
        one = (
            {name: value[None] for name, value in example.items()}
            if isinstance(example, Mapping)
            else example[None]
        )
        keywords = dict(one) if isinstance(one, Mapping) else {}
        args = () if isinstance(one, Mapping) else (one,)
        outputs = torch.func.functional_call(model, {**params, **frozen}, args, keywords)
        outputs = outputs.logits if hasattr(outputs, "logits") else outputs
        return (outputs[0] * seed).sum()

    gradient = torch.func.vmap(torch.func.grad(weighted), in_dims=(None, 0, 0))
    values = {name: p.detach() for name, p in parameters.items()}
    numbers = sum(p.numel() for p in parameters.values())
    row_bytes = numbers * seeds.element_size()
    # Two blocks of kept rows, and a pass whose gradients exist twice for a moment.
    chunk = max(1, min(_CHUNK, budget // (4 * row_bytes)))
    rows_at_once = max(chunk, (budget - 2 * chunk * row_bytes) // (2 * row_bytes))
    if len(seeds) <= 2 * rows_at_once:
        rows_at_once = len(seeds)

    def rows_of(block: slice) -> dict[str, torch.Tensor]:
        """One matrix [rows, P] a parameter-owning module."""
        owners: dict[str, list[str]] = {}
        for name in parameters:
            owners.setdefault(name.rpartition(".")[0] if gram.per_layer else "", []).append(name)
        kept = {
            owner: seeds.new_empty(
                block.stop - block.start, sum(parameters[name].numel() for name in names)
            )
            for owner, names in owners.items()
        }
        for begin in range(block.start, block.stop, chunk):
            rows = slice(begin, min(begin + chunk, block.stop))
            found = gradient(values, take(inputs, rows), seeds[rows])
            for owner, names in owners.items():
                at = 0
                for name in names:
                    flat = found.pop(name).flatten(1)
                    place = slice(begin - block.start, begin - block.start + len(flat))
                    kept[owner][place, at : at + flat.shape[1]] = flat
                    at += flat.shape[1]
        return kept

    starts = range(0, len(seeds), rows_at_once)
    blocks = [slice(begin, min(begin + rows_at_once, len(seeds))) for begin in starts]
    for first, rows in enumerate(blocks):
        left = rows_of(rows)
        for columns in blocks[first:]:
            right = left if columns is rows else rows_of(columns)
            for owner, matrix in left.items():
                gram.add(owner, rows, columns, matrix @ right[owner].T)
