import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.gradients.gram import gradient_cosines, gradient_gram
from stiffness.gradients.reference import reference_gradients

# Models without a fast path and budgets without room are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().sum(1)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


def wrong_signs(found: torch.Tensor, expected: torch.Tensor, above: float) -> torch.Tensor:
    """Among pairs whose true cosine exceeds ``above``, those with another sign, or none."""
    clear = expected.abs() > above
    return (found.double().sign() != expected.sign())[clear]


# Agreement with the loop


def test_cosines_and_norms_equal_the_float64_loop(case: Any) -> None:
    cosines, log_norms = gradient_cosines(case.model, case.inputs, case.targets)
    directions, expected = reference_gradients(case.model, case.inputs, case.targets)
    assert cosines.dtype == torch.float32
    assert log_norms.dtype == torch.float64
    assert relative_error(cosines, directions @ directions.T) < 1e-5
    assert not wrong_signs(cosines, directions @ directions.T, 1e-5).any()
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-5)


def test_a_float64_model_is_measured_in_float64(make_case: Callable[[str], Any]) -> None:
    case = make_case("cnn_same").double()
    cosines, log_norms = gradient_cosines(case.model, case.inputs, case.targets)
    directions, expected = reference_gradients(case.model, case.inputs, case.targets)
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-10)
    # Nothing but the last rounding to float32 stands between the two.
    rounded = (directions @ directions.T).float()
    torch.testing.assert_close(cosines, rounded, rtol=2**-23, atol=1e-10)


def test_a_function_loss(make_case: Callable[[str], Any]) -> None:
    case = make_case("fc")
    targets = torch.randn(12, 5).to(case.targets.device)
    gram = gradient_gram(case.model, case.inputs, targets, loss=squared_error)
    model, inputs = copy.deepcopy(case.model).double(), case.inputs.double()
    rows = []
    for row in range(12):
        model.zero_grad()
        squared_error(model(inputs[row : row + 1]), targets[row : row + 1]).backward()
        rows.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    expected = (torch.stack(rows) @ torch.stack(rows).T).cpu()
    assert relative_error(gram, expected) < 1e-6


@pytest.mark.parametrize("count", [1, 2, 300])
def test_any_number_of_examples(count: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 3))
    inputs, targets = torch.randn(count, 4), torch.randint(3, (count,))
    cosines, log_norms = gradient_cosines(model, inputs, targets)
    directions, expected = reference_gradients(model, inputs, targets)
    assert cosines.shape == (count, count)
    assert relative_error(cosines, directions @ directions.T) < 1e-6
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("budget", ["1B", "64KiB", "300KiB", 10**6, "4GiB"])
def test_the_budget_changes_nothing(make_case: Callable[[str], Any], budget: str | int) -> None:
    case = make_case("cnn_valid")
    expected, expected_norms = gradient_cosines(case.model, case.inputs, case.targets)
    cosines, log_norms = gradient_cosines(
        case.model, case.inputs, case.targets, memory_budget=budget
    )
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, expected_norms, rtol=0, atol=1e-6)


# Layers


@pytest.mark.parametrize("name", ["frozen", "cnn_same", "resnet_batch_norm"])
def test_layers_sum_to_the_whole(make_case: Callable[[str], Any], name: str) -> None:
    case = make_case(name)
    layers = gradient_gram(case.model, case.inputs, case.targets, per_layer=True)
    owners = {
        owner
        for owner, module in case.model.named_modules()
        if any(p.requires_grad for p in module.parameters(recurse=False))
    }
    assert layers.keys() == owners
    whole = gradient_gram(case.model, case.inputs, case.targets)
    torch.testing.assert_close(
        sum(layers.values()), whole, rtol=1e-5, atol=1e-6 * float(whole.abs().max())
    )


def test_cosines_and_norms_of_a_layer(make_case: Callable[[str], Any]) -> None:
    case = make_case("fc")
    cosines, log_norms = gradient_cosines(case.model, case.inputs, case.targets, per_layer=True)
    assert cosines.keys() == log_norms.keys() == {"1", "3", "5", "7"}
    case.model.requires_grad_(False)
    case.model[3].requires_grad_(True)
    directions, expected = reference_gradients(case.model, case.inputs, case.targets)
    assert relative_error(cosines["3"], directions @ directions.T) < 1e-5
    torch.testing.assert_close(log_norms["3"], expected, rtol=0, atol=1e-5)


# What a Gram matrix must satisfy


def test_invariants_of_a_trained_network(trained: Any) -> None:
    gram = gradient_gram(trained.model, trained.inputs, trained.targets)
    cosines, log_norms = gradient_cosines(trained.model, trained.inputs, trained.targets)
    assert torch.equal(gram, gram.T)
    eigenvalues = torch.linalg.eigvalsh(gram.double())
    assert eigenvalues[0] >= -1e-5 * eigenvalues[-1]
    assert torch.equal(cosines, cosines.T)
    assert (cosines.diagonal() == 1).all()
    assert cosines.abs().max() <= 1
    norms = log_norms.exp()
    rebuilt = cosines.double() * norms[:, None] * norms[None, :]
    torch.testing.assert_close(rebuilt, gram.double(), rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("arithmetic", ["exact", "float32", "naive"])
def test_no_rounding_leads_out_of_bounds(trained: Any, arithmetic: str) -> None:
    # Every gradient three times over, and with float32 sums in "naive".
    cosines, _ = gradient_cosines(
        trained.model,
        trained.inputs.repeat(3, 1, 1, 1),
        trained.targets.repeat(3),
        arithmetic=arithmetic,
    )
    assert (cosines.diagonal() == 1).all()
    assert cosines.abs().max() <= 1
    torch.testing.assert_close(cosines[:40, :40], cosines[40:80, 80:], rtol=0, atol=1e-6)


def test_entries_sum_to_the_batch_gradient_squared(trained: Any) -> None:
    gram = gradient_gram(trained.model, trained.inputs, trained.targets).double()
    model = copy.deepcopy(trained.model).double()
    outputs = model(trained.inputs.double())
    loss = nn.functional.cross_entropy(outputs, trained.targets, reduction="sum")
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    squared = sum(float(gradient.square().sum()) for gradient in gradients)
    assert float(gram.sum()) == pytest.approx(squared, rel=1e-5)


def test_a_small_step_on_one_example_changes_the_loss_of_another_by_the_product() -> None:
    """Eq. 3: loss_2(W - eps g_1) - loss_2(W) = -eps g_1 . g_2 + O(eps^2)."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, targets = torch.randn(2, 5).double(), torch.tensor([0, 2])
    product = float(gradient_gram(model, inputs, targets)[0, 1])
    assert abs(product) > 0.1

    def loss(network: nn.Module, row: int) -> torch.Tensor:
        return nn.functional.cross_entropy(network(inputs[row : row + 1]), targets[row : row + 1])

    step = torch.autograd.grad(loss(model, 0), list(model.parameters()))

    def error(epsilon: float) -> float:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for parameter, gradient in zip(moved.parameters(), step, strict=True):
                parameter -= epsilon * gradient
            return float(loss(moved, 1) - loss(model, 1)) + epsilon * product

    errors = [error(epsilon) for epsilon in (4e-3, 2e-3, 1e-3)]
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.02)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


# Rounding


def saturated(case: Any, factor: float) -> Any:
    """The same classes, absurdly confident."""
    case = copy.deepcopy(case)
    with torch.no_grad():
        case.model[-1].weight *= factor
        case.model[-1].bias *= factor
        assert nn.functional.cross_entropy(case.model(case.inputs), case.targets) < 1e-6
    return case


@pytest.mark.parametrize(("factor", "smallest"), [(6, 1e-11), (30, 1e-60), (50, 1e-110)])
def test_exact_output_grads_survive_saturation(
    trained: Any, factor: float, smallest: float
) -> None:
    case = saturated(trained, factor)
    cosines, log_norms = gradient_cosines(case.model, case.inputs, case.targets)
    directions, expected = reference_gradients(case.model, case.inputs, case.targets)
    assert expected.min() < math.log(smallest)
    assert relative_error(cosines, directions @ directions.T) < 1e-5
    assert (cosines - directions @ directions.T).abs().max() < 1e-4
    assert not wrong_signs(cosines, directions @ directions.T, 1e-3).any()
    # A float32 margin of 250 is off by up to 2^-17.
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=3e-4)


def test_naive_arithmetic_turns_signs_before_it_gives_up(trained: Any) -> None:
    case = saturated(trained, 6)
    naive, _ = gradient_cosines(case.model, case.inputs, case.targets, arithmetic="naive")
    directions, _ = reference_gradients(case.model, case.inputs, case.targets)
    assert naive.isfinite().all()
    assert (naive - directions @ directions.T).abs().max() > 0.1
    assert wrong_signs(naive, directions @ directions.T, 1e-3).double().mean() > 0.2


def test_naive_arithmetic_gives_up_on_every_pair_in_the_end(trained: Any) -> None:
    case = saturated(trained, 30)
    naive, log_norms = gradient_cosines(case.model, case.inputs, case.targets, arithmetic="naive")
    assert naive.isnan().all()
    assert (log_norms == -math.inf).all()


def test_float32_and_exact_agree_where_nothing_is_saturated(trained: Any) -> None:
    exact, exact_norms = gradient_cosines(trained.model, trained.inputs, trained.targets)
    plain, plain_norms = gradient_cosines(
        trained.model, trained.inputs, trained.targets, arithmetic="float32"
    )
    torch.testing.assert_close(plain, exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(plain_norms, exact_norms, rtol=0, atol=1e-4)


def test_one_confident_example_does_not_disturb_the_others() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inputs = torch.tensor([[2000.0, 0.0], [1.0, 0.5], [0.3, 0.9]])
    cosines, log_norms = gradient_cosines(model, inputs, torch.tensor([0, 0, 1]))
    # Every gradient is +-(1, -1) times its input.
    units = nn.functional.normalize(inputs.double()) * torch.tensor([[1.0], [1.0], [-1.0]])
    torch.testing.assert_close(cosines, (units @ units.T).float(), rtol=0, atol=1e-6)
    expected = 0.5 * math.log(2) - 2000 + math.log(2000)
    assert float(log_norms[0]) == pytest.approx(expected, rel=1e-9)


# Undefined cosines


@pytest.mark.parametrize("arithmetic", ["exact", "float32", "naive"])
def test_an_example_without_a_gradient_has_no_cosine(arithmetic: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False))
    inputs, targets = torch.randn(5, 3), torch.tensor([0, 1, 0, 1, 0])
    inputs[2] = 0
    keep = [0, 1, 3, 4]
    cosines, log_norms = gradient_cosines(model, inputs, targets, arithmetic=arithmetic)
    assert log_norms[2] == -math.inf
    assert cosines[2].isnan().all()
    assert cosines[:, 2].isnan().all()
    others, other_norms = gradient_cosines(
        model, inputs[keep], targets[keep], arithmetic=arithmetic
    )
    torch.testing.assert_close(cosines[keep][:, keep], others, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms[keep], other_norms, rtol=0, atol=1e-6)
    assert not gradient_gram(model, inputs, targets)[2].any()


def test_a_loss_of_zero_has_no_cosine(make_case: Callable[[str], Any]) -> None:
    case = make_case("fc")
    targets = torch.randn(12, 5)
    with torch.no_grad():
        targets[3] = case.model(case.inputs)[3]
    cosines, log_norms = gradient_cosines(case.model, case.inputs, targets, loss=squared_error)
    assert log_norms[3] == -math.inf
    assert log_norms.isfinite().sum() == 11
    assert cosines.isnan().sum() == 12 + 11


def test_a_dead_layer_has_no_cosine_but_the_network_has() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    nn.init.constant_(model[0].bias, -100)
    inputs, targets = torch.randn(3, 3), torch.tensor([0, 1, 0])
    cosines, log_norms = gradient_cosines(model, inputs, targets, per_layer=True)
    assert cosines["0"].isnan().all()
    assert (log_norms["0"] == -math.inf).all()
    assert cosines["2"].isfinite().all()
    assert gradient_cosines(model, inputs, targets)[0].isfinite().all()


# The caller's state


@pytest.fixture
def float32_settings() -> Iterator[Callable[[], list[str]]]:
    backends = (
        torch.backends.cuda.matmul,
        torch.backends.cudnn.conv,
        torch.backends.cudnn.rnn,
        torch.backends.mkldnn.matmul,
        torch.backends.mkldnn.conv,
    )

    def read() -> list[str]:
        return [backend.fp32_precision for backend in backends]

    before = read()
    yield read
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    for backend, precision in zip(backends, before, strict=True):
        backend.fp32_precision = precision


def set_flags() -> None:
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def set_cuda_alone() -> None:
    torch.backends.cuda.matmul.fp32_precision = "tf32"


def set_convolutions_alone() -> None:
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def set_medium() -> None:
    torch.set_float32_matmul_precision("medium")


@pytest.mark.parametrize("relax", [set_flags, set_medium, set_cuda_alone, set_convolutions_alone])
def test_full_float32_inside_and_the_callers_settings_after(
    relax: Callable[[], None], float32_settings: Callable[[], list[str]]
) -> None:
    relax()
    before = float32_settings()
    seen: list[str] = []

    class Spying(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.extend(float32_settings())
            return super().forward(inputs)

    gradient_cosines(Spying(3, 2), torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))
    assert seen
    assert not {"tf32", "bf16"} & set(seen)
    assert float32_settings() == before
    with pytest.raises(StiffnessError):
        gradient_cosines(nn.Linear(3, 2), torch.full((1, 3), torch.inf), torch.tensor([0]))
    assert float32_settings() == before


def test_old_style_flags_can_be_read_afterwards(
    float32_settings: Callable[[], list[str]],
) -> None:
    set_medium()
    gradient_cosines(nn.Linear(3, 2), torch.randn(2, 3), torch.tensor([0, 1]))
    assert torch.get_float32_matmul_precision() == "medium"
    assert torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("name", ["fc", "cnn_same"])
def test_gradients_need_not_be_enabled(make_case: Callable[[str], Any], name: str) -> None:
    case = make_case(name)
    expected, _ = gradient_cosines(case.model, case.inputs, case.targets)
    with torch.no_grad():
        cosines, _ = gradient_cosines(case.model, case.inputs, case.targets)
        assert not torch.is_grad_enabled()
    # The same computation; a GPU may add up in another order.
    error = 0 if case.targets.device.type == "cpu" else 1e-6
    torch.testing.assert_close(cosines, expected, rtol=0, atol=error)


def test_the_answer_has_no_history(trained: Any) -> None:
    cosines, log_norms = gradient_cosines(trained.model, trained.inputs, trained.targets)
    assert not cosines.requires_grad
    assert not log_norms.requires_grad
    assert all(parameter.grad is None for parameter in trained.model.parameters())


# Refusals


def refusal(*args: Any, **keywords: Any) -> str:
    with pytest.raises(StiffnessError) as caught:
        gradient_cosines(*args, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_training_mode_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2))
    arguments = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    assert "1 (BatchNorm1d)" in refusal(model, *arguments)
    model[1].eval()
    assert "2 (Dropout)" in refusal(model, *arguments)
    model[2].p = 0
    gradient_cosines(model, *arguments)


@pytest.mark.parametrize(
    ("keywords", "key"),
    [
        ({"arithmetic": "float16"}, "arithmetic"),
        ({"loss": "mse"}, "loss"),
        ({"memory_budget": "1e3"}, "memory_budget"),
        ({"memory_budget": "plenty"}, "memory_budget"),
    ],
)
@pytest.mark.parametrize("function", [gradient_cosines, gradient_gram])
def test_unknown_settings_are_refused(
    function: Callable[..., Any], keywords: dict[str, str], key: str
) -> None:
    with pytest.raises(StiffnessError, match=f"^{key}: ") as caught:
        function(nn.Linear(3, 2), torch.randn(2, 3), torch.tensor([0, 1]), **keywords)
    assert next(iter(keywords.values())) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_to_differentiate_is_refused() -> None:
    arguments = torch.randn(2, 3), torch.tensor([0, 1])
    assert "no parameter" in refusal(nn.Linear(3, 2).requires_grad_(False), *arguments)
    assert "no parameters" in refusal(nn.Flatten(), *arguments)


@pytest.mark.parametrize(("inputs", "targets"), [(3, 2), (2, 3), (0, 0)])
def test_lengths_that_differ_are_refused(inputs: int, targets: int) -> None:
    message = refusal(
        nn.Linear(3, 2), torch.randn(inputs, 3), torch.zeros(targets, dtype=torch.long)
    )
    assert f"{inputs} examples, but {targets} targets" in message


def test_lengths_that_differ_inside_a_dict_are_refused() -> None:
    class Product(nn.Linear):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return super().forward(left * right)

    # The single row would broadcast against the four.
    inputs = {"left": torch.randn(4, 3), "right": torch.randn(1, 3)}
    assert "inputs" in refusal(Product(3, 2), inputs, torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_outputs_that_are_not_finite_are_refused(value: float) -> None:
    model = nn.Linear(3, 2)
    model.weight.data[0, 0] = value
    assert "not finite" in refusal(model, torch.randn(2, 3), torch.tensor([0, 1]))
