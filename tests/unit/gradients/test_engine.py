from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from stiffness.data.batch import Inputs, call, length, take
from stiffness.errors import StiffnessError
from stiffness.gradients import fallback, products
from stiffness.gradients.engine import gram_blocks
from stiffness.gradients.memory import parse_bytes
from stiffness.gradients.models import refuse_training_mode
from stiffness.gradients.multiply import Rows
from stiffness.gradients.output_grads import OutputGrads

# Models without a fast path and budgets without room are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")

AMPLE = 2**30


def double_gram(
    model: nn.Module, inputs: Inputs, output_grads: torch.Tensor, budget: int = AMPLE
) -> torch.Tensor:
    return gram_blocks(model, inputs, OutputGrads.given(output_grads), False, budget)[""]


def looped_gradients(model: nn.Module, inputs: Inputs, output_grads: torch.Tensor) -> torch.Tensor:
    """One backward pass an example: [N, P]."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for row, output_grad in enumerate(output_grads):
        output = call(model, take(inputs, slice(row, row + 1)))[0]
        gradients = torch.autograd.grad(
            output, parameters, output_grad, allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


def assert_gram(
    model: nn.Module, inputs: Inputs, output_grads: torch.Tensor, gram: torch.Tensor, rtol: float
) -> None:
    rows = looped_gradients(model, inputs, output_grads)
    expected = rows @ rows.T
    assert float((gram - expected).norm() / expected.norm()) < rtol


def test_a_float64_model_agrees_with_a_loop_to_ten_digits(case: Any) -> None:
    case = case.double()
    output_grads = case.random_output_grads()
    gram = double_gram(case.model, case.inputs, output_grads)
    assert gram.dtype == torch.float64
    assert_gram(case.model, case.inputs, output_grads, gram, 1e-10)


def test_a_pruned_linear_is_not_taken_for_a_whole_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    prune.random_unstructured(model[0], "weight", 0.5)
    inputs, output_grads = torch.randn(10, 6).double(), torch.randn(10, 4).double()
    assert_gram(model, inputs, output_grads, double_gram(model, inputs, output_grads), 1e-10)


@pytest.mark.parametrize("count", [127, 128, 129, 300])
def test_ragged_chunks_of_the_factored_route(count: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    inputs, output_grads = torch.randn(count, 4).double(), torch.randn(count, 2).double()
    assert_gram(model, inputs, output_grads, double_gram(model, inputs, output_grads), 1e-12)


@pytest.mark.parametrize("room", [1, 2**20])
@pytest.mark.parametrize(
    ("threads", "numpy_from"),
    [(1, 2**33), (2, 2**33), (2, 0), (3, 0)],
    ids=["one", "slabs", "two", "three"],
)
@pytest.mark.parametrize("columns", [2, 8_192, 20_001])
def test_a_triangle_of_rows_is_one_of_the_full_product(
    threads: int, numpy_from: int, room: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is numpy's in one square or in several, or PyTorch's in slabs."""
    monkeypatch.setattr(products, "_LONG", numpy_from)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    # Integers whose sums of products fit 24 bits are added without rounding, in any order.
    rows = torch.randint(-8, 9, (70, columns), generator=torch.Generator().manual_seed(0)).float()
    before = torch.arange(70.0 * 70).view(70, 70)
    found = [before.clone(), before.clone()]
    for out in found:
        Rows(rows).add_triangle(out, room)
    assert torch.equal(*found)
    expected = (before.double() + rows.double() @ rows.double().T).triu()
    assert torch.equal(found[0].double().triu(), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 13])
@pytest.mark.parametrize("rows", [0, 1, 5, 6, 7, 23, 1000])
def test_small_budgets_give_the_same_answer(count: int, rows: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)).double()
    inputs, output_grads = torch.randn(count, 1, 4, 4).double(), torch.randn(count, 2).double()
    row_bytes = 8 * sum(p.numel() for p in model[0].parameters())
    gram = double_gram(model, inputs, output_grads, rows * row_bytes)
    assert_gram(model, inputs, output_grads, gram, 1e-12)


def test_linear_layers_need_no_gradient_matrix(
    make_case: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("materialised")

    monkeypatch.setattr(fallback.Fallback, "visit", refused)
    monkeypatch.setattr(Rows, "add_product", refused)
    case = make_case("fc")
    output_grads = OutputGrads.given(case.random_output_grads())
    gram_blocks(case.model, case.inputs, output_grads, False, AMPLE)


def test_blocks_are_named_after_the_modules_that_own_the_parameters(
    make_case: Callable[[str], Any],
) -> None:
    case = make_case("raw_parameter").double()
    output_grads = case.random_output_grads()
    blocks = gram_blocks(case.model, case.inputs, OutputGrads.given(output_grads), True, AMPLE)
    assert blocks.keys() == {"", "last"}
    assert_gram(case.model, case.inputs, output_grads, sum(blocks.values()), 1e-10)
    case.model.matrix.requires_grad_(False)
    case.model.scale.requires_grad_(False)
    assert_gram(case.model, case.inputs, output_grads, blocks["last"], 1e-10)


def hook_count(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
        for module in model.modules()
    )


def test_the_model_is_left_as_it_was(case: Any) -> None:
    model = case.model
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    output_grads = OutputGrads.given(case.random_output_grads())
    gram_blocks(model, case.inputs, output_grads, False, AMPLE)
    assert hook_count(model) == 0
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all((parameter.grad == 7).all() for parameter in model.parameters())


def test_no_hook_is_left_behind_by_a_model_that_fails() -> None:
    class Failing(nn.Sequential):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            super().forward(inputs)
            raise ZeroDivisionError

    model = Failing(nn.Linear(3, 2))
    with suppress(ZeroDivisionError):
        gram_blocks(model, torch.randn(4, 3), OutputGrads.given(torch.randn(4, 2)), False, AMPLE)
    assert hook_count(model) == 0


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GiB", 4 * 2**30),
        ("512MiB", 512 * 2**20),
        ("1.5 KiB", 1536),
        ("2GB", 2 * 10**9),
        ("300MB", 3 * 10**8),
        ("7KB", 7000),
        ("12B", 12),
        (" 12 ", 12),
        (12, 12),
        (0, 0),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize(
    "text",
    ["1e3", "", "GiB", "-1GiB", "4gib", "4TiB", "four", "4GiB!", "1.GiB", "nan", -1, 1e30, None],
)
def test_nonsense_for_a_size_is_refused(text: Any) -> None:
    with pytest.raises(StiffnessError, match=r"memory_budget: .* such as") as caught:
        parse_bytes(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Dropout(0.1),
        nn.Dropout2d(0.1),
        nn.AlphaDropout(0.1),
        nn.BatchNorm1d(3),
        nn.BatchNorm2d(3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_mix_examples_or_draw_are_refused_in_training_mode(layer: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(layer))
    with pytest.raises(StiffnessError, match=r"model: 1\.0 .*training mode; call model.eval"):
        refuse_training_mode(model)
    refuse_training_mode(model.eval())


def test_a_layer_alone_is_refused_by_type() -> None:
    with pytest.raises(StiffnessError, match=r"the model \(Dropout\)"):
        refuse_training_mode(nn.Dropout(0.5))


def test_harmless_layers_may_be_in_training_mode() -> None:
    refuse_training_mode(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0), nn.LayerNorm(3)))


def test_batch_norm_without_running_statistics_is_refused_in_evaluation_mode_too() -> None:
    # It normalises by the batch in either mode: one example's gradient depends on the others.
    with pytest.raises(StiffnessError, match="BatchNorm1d"):
        refuse_training_mode(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)).eval())


def test_no_trainable_parameter_is_refused() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    with pytest.raises(StiffnessError, match="no parameter requires a gradient"):
        gram_blocks(model, torch.randn(4, 3), OutputGrads.given(torch.randn(4, 2)), False, AMPLE)


def test_length_and_rows_of_tensors_and_dicts() -> None:
    tensor = torch.arange(10).reshape(5, 2)
    assert length(tensor) == length({"a": tensor, "b": tensor[:, 0]}) == 5
    assert torch.equal(take(tensor, slice(1, 3)), tensor[1:3])
    taken = take({"a": tensor, "b": tensor[:, 0]}, slice(4, 9))
    assert taken["a"].tolist() == [[8, 9]]
    assert taken["b"].tolist() == [8]
