"""Which parameters have a fast path: proved on single examples against autograd, never guessed.

A layer's type is not enough: the gradient that its family makes of an example among others must
equal the gradient that autograd finds for that example alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take
from stiffness.errors import out_of_memory
from stiffness.gradients.families import family_of
from stiffness.gradients.memory import packed
from stiffness.gradients.models import RefuseAutocast
from stiffness.gradients.multiply import Rows
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.passes import Call, Unit, capture, gradients_of
from stiffness.gradients.tokens import Tokens
from stiffness.gradients.uses import Unable, Uses, find_uses

_PROBE = 2  # examples of the pass that is compared with autograd
_TOLERANCE = 1e-3  # of the largest entry: a wrong family is wrong by much more

Calls = Mapping[str, list[tuple[torch.Tensor, torch.Tensor]]]


def probe(model: nn.Module, inputs: Inputs, output_grads: OutputGrads) -> int:
    """Compute the output gradients of the first examples, which refuses outputs that will not do.

    Returns:
        Their number.
    """
    count = min(_PROBE, length(inputs))
    few, device = slice(0, count), next(model.parameters()).device
    with torch.no_grad():
        with RefuseAutocast(device):
            outputs = call(model, take(inputs, few))
        output_grads.of(few, outputs)
    return count


Covered = Iterator[tuple[str, Unit, list[Call]]]


def covered_units(
    model: nn.Module, inputs: Inputs, output_grads: OutputGrads, room: int, uses: Uses
) -> Covered:
    """Units with a fast path, each under a name and with its calls on the first example.

    First come layers of a known family, by the name of the first that shares a unit's parameters,
    then other parameters, by their own names.

    Args:
        room: bytes for the inputs and output gradients of layers that are checked together.
        uses: is filled with the uses of the other parameters.
    """
    layers = dict(model.named_modules())
    units = _candidates(model)
    with _sizes_of_calls(units, layers) as sizes:
        count = probe(model, inputs, output_grads)
    few = take(inputs, slice(0, count))
    rest = {name for name, p in model.named_parameters() if p.requires_grad}
    for name, unit, calls in _proved(model, layers, units, few, sizes, room):
        rest.difference_update(unit.parameters)
        yield name, unit, calls
    if rest:
        found = find_uses(model, few, [n for n, _ in model.named_parameters() if n in rest])
        uses.joins, uses.layers, uses.names = found.joins, found.layers, found.names
        units = {name: Unit(list(uses.names[name]), [name]) for name in uses.names}
        sizes = {name: 2 * model.get_parameter(name).nbytes for name in units}
        yield from _proved(model, layers | uses.layers, units, few, sizes, room, uses)


def _proved(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    units: Mapping[str, Unit],
    few: Inputs,
    sizes: Mapping[str, int],
    room: int,
    uses: Uses | None = None,
) -> Covered:
    count = length(few)
    for names in packed({name: sizes.get(name, 0) for name in units}, 1, room):
        group = {name: units[name] for name in names}
        calls = _captured(model, layers, group, few, count, uses)
        group = {name: unit for name, unit in group.items() if _usable(unit, calls, count)}
        for row in range(count if group else 0):
            group = _agreeing(model, layers, group, few, row, calls)
        for name, unit in group.items():
            yield name, unit, _calls_on(slice(0, 1), unit, layers, calls)


def _candidates(model: nn.Module) -> dict[str, Unit]:
    """Layers of a known type whose parameters are all trained and shared, if at all, as a whole."""
    names = {id(p): name for name, p in model.named_parameters()}
    units: dict[tuple[str, ...], Unit] = {}
    owners: dict[str, set[str]] = {}
    for layer, module in model.named_modules():
        own = {key: p for key, p in module._parameters.items() if p is not None}
        for p in own.values():
            owners.setdefault(names[id(p)], set()).add(layer)
        # A reparametrised layer multiplies by what its submodules make of their parameters.
        plain = len(list(module.named_parameters())) == len(own) > 0
        if family_of(module) and plain and all(p.requires_grad for p in own.values()):
            key = tuple(names[id(p)] for p in own.values())
            units.setdefault(key, Unit([], list(key))).layers.append(layer)
    return {
        unit.layers[0]: unit
        for unit in units.values()
        if all(owners[name] == set(unit.layers) for name in unit.parameters)
        and len({type(model.get_submodule(layer)) for layer in unit.layers}) == 1
    }


@contextmanager
def _sizes_of_calls(
    units: Mapping[str, Unit], layers: Mapping[str, nn.Module]
) -> Iterator[dict[str, int]]:
    """Bytes of the inputs and outputs of each unit's layers in the calls inside this context."""
    sizes: dict[str, int] = {}

    def measure(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, keywords: Any, output: Any) -> None:
            tensors = [*args[:1], *list(keywords.values())[: not args], output]
            sizes[name] = sizes.get(name, 0) + sum(t.nbytes for t in tensors)

        return hook

    with ExitStack() as hooks:
        for name, unit in units.items():
            for layer in unit.layers:
                handle = layers[layer].register_forward_hook(measure(name), with_kwargs=True)
                hooks.callback(handle.remove)
        yield sizes


def _captured(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    units: Mapping[str, Unit],
    inputs: Inputs,
    count: int,
    uses: Uses | None = None,
) -> Calls:
    """The calls of ``units`` in a pass with random output gradients; none where it fails.

    Units whose layers see one example whatever the number of examples are marked as broadcast.
    """
    watched = {layer: layers[layer] for unit in units.values() for layer in unit.layers}

    def run(broadcast: Collection[str]) -> tuple[torch.Tensor, Calls]:
        calls: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        outputs = capture(
            model,
            watched,
            inputs,
            lambda outputs: _random(outputs)[:count],
            lambda name, a, d: calls.setdefault(name, []).append((a, d)),
            broadcast,
            uses,
        )
        return outputs, calls

    try:
        outputs, calls = run(())
    except Unable as error:
        few = {name: unit for name, unit in units.items() if name not in error.names}
        return _captured(model, layers, few, inputs, count, uses) if few else {}
    except (RuntimeError, TypeError, AttributeError) as error:  # layers used in unexpected ways
        if out_of_memory(error):  # says nothing of the layers; the caller tries with less
            raise
        return {}
    # The table of positions, for example: looked up once for all examples.
    single = {
        name
        for name, made in calls.items()
        if count > 1 and all(a.ndim > 1 and len(a) == len(d) == 1 for a, d in made)
    }
    if single:
        try:
            again, repeated = run(single)
        except (RuntimeError, TypeError, AttributeError) as error:
            if out_of_memory(error):
                raise
            return calls
        if again.shape == outputs.shape and torch.equal(again, outputs):
            for unit in units.values():
                unit.broadcast = single & set(unit.layers)
            return repeated
    return calls


def _usable(unit: Unit, calls: Calls, count: int) -> bool:
    """Whether it is called, is reached by the gradient and has examples along the first axis."""
    made = [one for layer in unit.layers for one in calls.get(layer, [])]
    return bool(made) and all(a.ndim > 0 and len(a) == count and len(d) == count for a, d in made)


def _agreeing(
    model: nn.Module,
    layers: Mapping[str, nn.Module],
    units: dict[str, Unit],
    inputs: Inputs,
    row: int,
    calls: Calls,
) -> dict[str, Unit]:
    """Units whose gradient of one example, from ``calls``, is what autograd finds for it alone.

    Output gradients are random: an example's own may be 0, which would prove nothing. A
    parameter's gradient is compared and freed as soon as it is there.
    """
    unit_of = {p: name for name, unit in units.items() for p in unit.parameters}
    one = slice(row, row + 1)
    found: dict[str, dict[str, torch.Tensor]] = {name: {} for name in units}
    errors: dict[str, torch.Tensor] = {}

    def hook_of(parameter: str) -> Callable[[torch.Tensor], None]:
        def hook(leaf: torch.Tensor) -> None:
            name = unit_of[parameter]
            assert leaf.grad is not None
            found[name][parameter] = leaf.grad
            leaf.grad = None
            if len(found[name]) == len(units[name].parameters):
                gradients = [found[name][p] for p in units[name].parameters]
                found[name].clear()
                error = _error(_calls_on(one, units[name], layers, calls), gradients)
                if error is not None:
                    errors[name] = error

        return hook

    parameters = {name: p.detach() for name, p in model.named_parameters()}
    for name in unit_of:
        leaf = parameters[name].detach().requires_grad_()
        leaf.register_post_accumulate_grad_hook(hook_of(name))
        parameters[name] = leaf
    with torch.enable_grad():
        outputs = call(model, take(inputs, one), parameters)
        if outputs.requires_grad:
            outputs.backward(_random(outputs)[one])
    # One wait for a GPU serves all units.
    found_errors = torch.stack(list(errors.values())).tolist() if errors else []
    right = {}
    for name, (error, scale) in zip(errors, found_errors, strict=True):
        units[name].proved |= scale > 0
        if error <= _TOLERANCE * scale:
            right[name] = units[name]
    return {name: right[name] for name in units if name in right}


def _error(calls: list[Call], truth: list[torch.Tensor]) -> torch.Tensor | None:
    """The largest error of a gradient made from ``calls``, and its largest true entry [2]; None
    where the calls make none of the right shape."""
    try:
        gradients = gradients_of(calls, "rows")
        scale = torch.stack([_largest(t) for t in truth]).amax()
        if isinstance(gradients, Tokens):
            rows = gradients.index[0] >= 0
            index, (table,) = gradients.index[0][rows], truth
            wrong = [table[index] - gradients.d[0][rows], table.index_fill_(0, index, 0)]
        else:
            assert isinstance(gradients, Rows)
            family = family_of(calls[0][0])
            if family and family.transposed:
                truth = [_transposed(t) for t in truth]
            ours = gradients.rows[0].split([t.numel() for t in truth])
            # In place of the truth: what the rows are made of may be the gradient of other tensors.
            wrong = [t.reshape(-1).sub_(mine) for mine, t in zip(ours, truth, strict=True)]
        errors = [_largest(part) for part in wrong if part.numel()]
        return torch.stack([torch.stack(errors).amax(), scale]).double()
    except (RuntimeError, IndexError, TypeError, ValueError) as error:  # unexpected shapes
        if out_of_memory(error):
            raise
        return None


def _transposed(weight: torch.Tensor) -> torch.Tensor:
    """The weight [p, q] of a linear layer as [q, p], of a convolution with its second axis last."""
    return weight.T if weight.ndim == 2 else weight.movedim(1, -1) if weight.ndim > 2 else weight


def _calls_on(rows: slice, unit: Unit, layers: Mapping[str, nn.Module], calls: Calls) -> list[Call]:
    return [
        (layers[layer], a[rows], d[rows]) for layer in unit.layers for a, d in calls.get(layer, [])
    ]


def _largest(values: torch.Tensor) -> torch.Tensor:
    """The largest absolute value, without a copy: some tensors are as large as a vocabulary."""
    least, most = torch.aminmax(values)
    return torch.maximum(-least, most)


def _random(outputs: torch.Tensor) -> torch.Tensor:
    """The same [_PROBE, ...] for all passes over outputs [n, ...]."""
    shape = (_PROBE, *outputs.shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(outputs)
