"""Cosines of some examples with others, without the square that holds both."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stiffness.data.batch import Inputs, call, length, take
from stiffness.errors import StiffnessError
from stiffness.gradients.arithmetic import Loss
from stiffness.gradients.engine import gram_blocks, gram_rectangle
from stiffness.gradients.gram import cosine_tile, gradient_cosines
from stiffness.gradients.output_grads import OutputGrads

# Models without a fast path and budgets without room are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")

AMPLE = 2**30


def assert_rectangle(
    model: nn.Module, inputs: Inputs, output_grads: torch.Tensor, border: int, budget: int
) -> None:
    products, squares = gram_rectangle(
        model, inputs, OutputGrads.given(output_grads), border, budget
    )
    whole = gram_blocks(model, inputs, OutputGrads.given(output_grads), False, AMPLE)[""]
    scale = float(whole.abs().max())
    assert products.shape == (border, len(output_grads) - border)
    torch.testing.assert_close(products, whole[:border, border:], rtol=1e-12, atol=1e-12 * scale)
    torch.testing.assert_close(squares, whole.diagonal(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("border", [1, 4])
def test_every_network_agrees_with_its_square(case: Any, border: int) -> None:
    case = case.double()
    output_grads = case.random_output_grads()
    assert_rectangle(case.model, case.inputs, output_grads, border, AMPLE)


@pytest.mark.parametrize("border", [1, 6, 12])
@pytest.mark.parametrize("rows", [0, 1, 5, 23, 1000])
def test_small_budgets_give_the_same_rectangle(border: int, rows: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    inputs, output_grads = torch.randn(13, 1, 4, 4).double(), torch.randn(13, 2).double()
    row_bytes = 8 * sum(p.numel() for p in model[0].parameters())
    assert_rectangle(model, inputs, output_grads, border, rows * row_bytes)


def test_the_square_of_both_is_never_formed(make_case: Callable[[str], Any]) -> None:
    made = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, _: Any, args: Any = (), kwargs: Any = None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                made.append(tuple(result.shape))
            return result

    case = make_case("fc")
    inputs, targets = case.inputs.repeat(8, 1, 1, 1), case.targets.repeat(8)
    with Watched():
        cosine_tile(case.model, inputs[:41], targets[:41], inputs[41:], targets[41:])
    assert (41, 55) in made
    assert not {(96, 96), (41, 41), (55, 55)} & set(made)


def assert_tiles(case: Any, loss: Loss = "cross_entropy", **options: Any) -> torch.Tensor:
    """Of every border, the off-diagonal block of the one matrix, which is returned."""
    inputs, targets = case.inputs, case.targets
    cosines, log_norms = gradient_cosines(case.model, inputs, targets, loss=loss, **options)
    assert isinstance(cosines, torch.Tensor)
    number = length(inputs)
    for border in (1, number // 3, number - 2):
        first, second = slice(0, border), slice(border, None)
        tile, *norms = cosine_tile(
            case.model,
            take(inputs, first),
            targets[first],
            take(inputs, second),
            targets[second],
            loss=loss,
            **options,
        )
        assert tile.dtype == torch.float32
        assert norms[0].dtype == norms[1].dtype == torch.float64
        expected = cosines[first, second]
        torch.testing.assert_close(tile, expected, rtol=0, atol=2e-6, equal_nan=True)
        # Of large logits, which are float32, more is rounded away.
        torch.testing.assert_close(torch.cat(norms), log_norms, rtol=1e-5, atol=1e-6)
    return cosines


@pytest.mark.parametrize("name", ["fc", "cnn_valid", "raw_parameter", "dict_with_logits"])
@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_a_tile_is_a_block_of_the_one_matrix(
    make_case: Callable[[str], Any], name: str, arithmetic: str
) -> None:
    assert assert_tiles(make_case(name), arithmetic=arithmetic).isfinite().all()


@pytest.mark.parametrize("name", ["fc", "cnn_valid"])
def test_also_where_examples_are_absurdly_confident(
    make_case: Callable[[str], Any], name: str
) -> None:
    case = make_case(name)
    with torch.no_grad():
        case.model[-1].weight *= 200
        case.targets = case.model(case.inputs).argmax(1)
        case.targets[0] = (case.targets[0] + 1) % 5  # and one is as wrong
        losses = nn.functional.cross_entropy(
            case.model.double()(case.inputs.double()), case.targets, reduction="none"
        )
    case.model.float()
    assert losses.min() < 1e-12
    assert losses[0] > 1
    assert assert_tiles(case).isfinite().all()


@pytest.mark.parametrize("name", ["fc", "cnn_valid", "raw_parameter"])
def test_examples_without_a_gradient_have_no_cosine(
    make_case: Callable[[str], Any], name: str
) -> None:
    case = make_case(name)
    with torch.no_grad():
        outputs = call(case.model, case.inputs)
    own = torch.zeros(len(outputs), dtype=torch.bool)
    own[[0, 5]] = True
    case.targets = torch.where(own.to(outputs.device)[:, None], outputs, torch.randn_like(outputs))

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        # An example's own output differs by rounding from pass to pass: nothing is lost below it.
        return (outputs - targets.to(outputs)).abs().sub(1e-4).relu().square().sum(1)

    cosines = assert_tiles(case, loss)
    assert cosines[own].isnan().all()
    assert cosines[~own][:, ~own].isfinite().all()


@pytest.mark.parametrize("budget", ["1B", "64KiB", "300KiB", "4GiB"])
def test_the_budget_changes_no_tile(make_case: Callable[[str], Any], budget: str) -> None:
    assert_tiles(make_case("cnn_valid"), memory_budget=budget)


def test_equal_examples_stay_within_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 3))
    inputs, targets = torch.randn(50, 7), torch.arange(50) % 3
    tile, first, second = cosine_tile(model, inputs, targets, inputs, targets)
    assert tile.abs().max() <= 1
    # The two sides are products of different shapes: they differ by the rounding of their sums.
    rounding = 2**-23 * sum(p.numel() for p in model.parameters())
    torch.testing.assert_close(tile.diagonal(), torch.ones(50), rtol=0, atol=rounding)
    torch.testing.assert_close(first, second, rtol=0, atol=rounding)


def test_gradients_too_small_for_float32_are_0_in_naive_arithmetic() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = 60 * torch.eye(2)
    inputs = torch.tensor([[1.0, 0.0], [0.5, 0.4]])
    targets = torch.tensor([0, 1])
    _, first, second = cosine_tile(
        model, inputs[:1], targets[:1], inputs[1:], targets[1:], arithmetic="naive"
    )
    expected = gradient_cosines(model, inputs, targets, arithmetic="naive")[1]
    assert expected[0] == -math.inf
    assert torch.equal(torch.cat([first, second]).isinf(), expected.isinf())


def test_numbers_of_examples_that_do_not_fit_are_refused() -> None:
    model = nn.Linear(3, 2)
    inputs, targets = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    for first, second in ((4, 3), (3, 4)):
        with pytest.raises(StiffnessError, match="4 examples, but 3 targets"):
            cosine_tile(model, inputs, targets[:first], inputs, targets[:second])
    with pytest.raises(StiffnessError, match="0 examples"):
        cosine_tile(model, inputs, targets, inputs[:0], targets[:0])
