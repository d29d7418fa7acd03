"""Arithmetics of the loss gradient with respect to the outputs."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

import pytest
import torch
from torch import nn

from stiffness.errors import StiffnessError
from stiffness.gradients.arithmetic import ARITHMETICS, output_gradients, raw_gradients
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.reference import reference_gradients
from stiffness.plan.config import Experiment


def squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs - targets).square().flatten(1).sum(1)


def autograd(
    outputs: torch.Tensor, targets: torch.Tensor, loss: Callable[..., torch.Tensor]
) -> torch.Tensor:
    leaf = outputs.double().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, targets).sum(), leaf)[0]


def decimal_gradient(logits: list[float], target: int) -> tuple[list[float], float]:
    """Direction and log-norm of softmax(logits) - onehot(target), in enough digits for 1 - p."""
    with localcontext() as context:
        context.prec = 30 + round(max(logits) - min(logits))
        powers = [Decimal(z).exp() for z in logits]
        gradient = [power / sum(powers) for power in powers]
        gradient[target] -= 1
        norm = sum(entry * entry for entry in gradient).sqrt()
        return [float(entry / norm) for entry in gradient], float(norm.ln())


def test_ordinary_logits_equal_float64_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(50, 7, generator=generator)
    targets = torch.randint(7, (50,), generator=generator)
    expected = autograd(
        logits, targets, lambda z, y: nn.functional.cross_entropy(z, y, reduction="none")
    )
    output_grads, log_norms = output_gradients(logits, targets)
    assert output_grads.dtype == log_norms.dtype == torch.float64
    torch.testing.assert_close(
        output_grads.norm(dim=1), torch.ones(50).double(), rtol=1e-14, atol=0
    )
    torch.testing.assert_close(
        output_grads * log_norms.exp()[:, None], expected, rtol=1e-11, atol=1e-14
    )


@pytest.mark.parametrize("margin", [0.0, 1.0, 30.0, 100.0, 400.0, 2000.0])
def test_two_confident_classes_have_a_closed_form(margin: float) -> None:
    output_grads, log_norms = output_gradients(torch.tensor([[0.0, margin]]), torch.tensor([1]))
    expected = torch.tensor([[1.0, -1.0]], dtype=torch.float64) / math.sqrt(2)
    torch.testing.assert_close(output_grads, expected, rtol=1e-15, atol=0)
    log_norm = 0.5 * math.log(2) - margin - math.log1p(math.exp(-margin))
    assert float(log_norms) == pytest.approx(log_norm, rel=1e-14, abs=1e-15)


@pytest.mark.parametrize("margin", [30.0, 100.0, 400.0, 2000.0])
@pytest.mark.parametrize("target", [0, 1, 2], ids=["right", "wrong", "wrong_and_last"])
def test_confident_logits_equal_arithmetic_in_many_digits(margin: float, target: int) -> None:
    logits = [margin + 1.5, 1.25, -0.5, 0.75]
    direction, log_norm = decimal_gradient(logits, target)
    output_grads, log_norms = output_gradients(torch.tensor([logits]), torch.tensor([target]))
    assert output_grads[0].tolist() == pytest.approx(direction, rel=1e-13, abs=0)
    assert float(log_norms) == pytest.approx(log_norm, rel=1e-14)


def test_float32_loses_what_exact_keeps() -> None:
    logits, targets = torch.tensor([[20.0, 0.0, 0.0]]), torch.tensor([0])
    exact, log_norms = output_gradients(logits, targets)
    true = exact * log_norms.exp()
    plain = raw_gradients(logits, targets, "cross_entropy", "float32")
    assert plain.dtype == torch.float32
    assert true[0, 0] == pytest.approx(-2 * math.exp(-20), rel=1e-8)
    assert abs(float(plain[0, 0] / true[0, 0]) - 1) > 0.01


def test_raw_gradients_are_unscaled() -> None:
    logits, targets = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([1])
    expected = logits.softmax(1) - torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(raw_gradients(logits, targets, "cross_entropy", "float32"), expected)


def test_a_function_loss_gets_float64_autograd() -> None:
    outputs, targets = torch.randn(9, 3, 2), torch.randn(9, 3, 2)
    output_grads, log_norms = output_gradients(outputs, targets, squared_error)
    expected = autograd(outputs, targets, squared_error)
    assert output_grads.shape == outputs.shape
    torch.testing.assert_close(output_grads.flatten(1).norm(dim=1), torch.ones(9).double())
    torch.testing.assert_close(
        output_grads * log_norms.exp()[:, None, None], expected, rtol=1e-12, atol=1e-15
    )


def test_a_loss_gradient_of_0_stays_0_and_its_neighbour_is_untouched() -> None:
    outputs = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    targets = torch.tensor([[1.0, 2.0], [0.0, 2.0]])
    output_grads, log_norms = output_gradients(outputs, targets, squared_error)
    assert output_grads.tolist() == [[0, 0], [1, 0]]
    assert log_norms.tolist() == [-math.inf, math.log(2)]


def test_a_loss_that_ignores_the_outputs_has_no_gradient() -> None:
    output_grads, log_norms = output_gradients(
        torch.randn(2, 3), torch.randn(2, 3), lambda _, y: y.sum(1)
    )
    assert not output_grads.any()
    assert log_norms.tolist() == [-math.inf] * 2


def test_a_tiny_gradient_keeps_its_direction() -> None:
    output_grads, log_norms = output_gradients(
        torch.zeros(1, 2), torch.zeros(1, 2), lambda z, _: 1e-200 * (3 * z[:, 0] - 4 * z[:, 1])
    )
    assert output_grads[0].tolist() == pytest.approx([0.6, -0.8], rel=1e-14)
    assert float(log_norms) == pytest.approx(math.log(5) - 200 * math.log(10), rel=1e-14)


def test_a_loss_with_an_infinite_slope_is_refused() -> None:
    # The gradient of a root at 0 is NaN: not the same as an example without a gradient.
    def distance(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs - targets).square().sum(1).sqrt()

    with pytest.raises(StiffnessError, match="finite"):
        output_gradients(torch.zeros(2, 3), torch.zeros(2, 3), distance)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_any_integer_type_will_do_for_targets(dtype: torch.dtype) -> None:
    logits, targets = torch.randn(3, 4), torch.tensor([0, 3, 1])
    for got, expected in zip(
        output_gradients(logits, targets.to(dtype)),
        output_gradients(logits, targets),
        strict=True,
    ):
        assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(3, 4, 2), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long)),
        (torch.zeros(3, 4), torch.zeros(3, 4)),
        (torch.zeros(3, 4), torch.zeros(3)),
        (torch.zeros(3, 4), torch.tensor([0, 1, 4])),
        (torch.zeros(3, 4), torch.tensor([0, 1, -100])),
        (torch.zeros(3, 1), torch.zeros(3, dtype=torch.long)),
    ],
    ids=["3d", "1d", "length", "one_hot", "float", "too_large", "negative", "one_class"],
)
def test_wrong_shapes_and_classes_are_refused(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(StiffnessError) as caught:
        output_gradients(outputs, targets)
    assert "cross_entropy" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("arithmetic", ["exact", "float32"])
def test_a_loss_must_return_one_value_per_example(arithmetic: str) -> None:
    outputs = torch.zeros(3, 4)
    with pytest.raises(StiffnessError, match="one value per example"):
        output_gradients(outputs, outputs, nn.functional.mse_loss, arithmetic)
    with pytest.raises(StiffnessError, match="unknown 'mse'"):
        output_gradients(outputs, outputs, "mse", arithmetic)


def test_the_setting_has_the_same_arithmetics() -> None:
    items = Experiment.model_json_schema()["properties"]["arithmetic"]["items"]
    assert tuple(items["enum"]) == ARITHMETICS


@pytest.mark.parametrize("arithmetic", ["float32", "keras", "bfloat16"])
def test_rounded_gradients_have_unit_norm_or_are_0(arithmetic: str) -> None:
    margins = torch.tensor([0.0, 1.0, 5.0, 12.0, 18.0, 40.0, 300.0])
    logits = torch.stack([margins, torch.zeros(7), -torch.ones(7)], 1)
    targets = torch.zeros(7, dtype=torch.long)
    unit, log_norms = output_gradients(logits, targets, arithmetic=arithmetic)
    norms = unit.norm(dim=1)
    zero = raw_gradients(logits, targets, "cross_entropy", arithmetic).eq(0).all(1)
    assert zero[-1]
    assert torch.equal(zero, log_norms == -math.inf)
    torch.testing.assert_close(norms, (~zero).double(), rtol=1e-14, atol=0)
    # Where the network is unsure all arithmetics agree, to the 8 bits of bfloat16.
    exact, _ = output_gradients(logits, targets)
    torch.testing.assert_close(unit[0], exact[0], rtol=0, atol=2**-7)


def test_keras_gives_no_gradient_above_its_clip() -> None:
    # 1 - 1e-7 in float32 is 1 - 2^-23; p_y is 1 - 4e-7, then 1 - 2e-8.
    logits = torch.tensor([[14.73, 0.0], [17.7, 0.0]])
    targets = torch.zeros(2, dtype=torch.long)
    gradients = raw_gradients(logits, targets, "cross_entropy", "keras")
    assert (gradients[0] != 0).all()
    assert (gradients[1] == 0).all()
    # PyTorch's float32 keeps the other entry.
    assert raw_gradients(logits, targets, "cross_entropy", "float32")[1].any()


def test_keras_gives_no_gradient_below_its_clip_either() -> None:
    logits, targets = torch.tensor([[40.0, 0.0, 0.0]]), torch.tensor([1])
    assert not raw_gradients(logits, targets, "cross_entropy", "keras").any()
    assert raw_gradients(logits, targets, "cross_entropy", "float32").any()


def test_keras_is_an_arithmetic_of_cross_entropy_alone() -> None:
    with pytest.raises(StiffnessError, match="keras is one of cross_entropy"):
        output_gradients(torch.zeros(2, 3), torch.zeros(2, 3), squared_error, "keras")


def test_naive_gradients_are_unscaled() -> None:
    logits, targets = torch.tensor([[0.5, -1.0, 2.0]]), torch.tensor([1])
    values, log_norms = output_gradients(logits, targets, arithmetic="naive")
    assert torch.equal(values, raw_gradients(logits, targets, "cross_entropy", "float32").double())
    assert log_norms.tolist() == [0]


def test_float64_passes_equal_the_reference() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3))
    inputs, targets = 5 * torch.randn(12, 6), torch.arange(12) % 3
    directions, expected = reference_gradients(model, inputs, targets)
    cosines, log_norms = gradient_cosines(model, inputs, targets, arithmetic="float64")
    # Cosines are returned in float32; everything before that is float64.
    assert isinstance(cosines, torch.Tensor)
    torch.testing.assert_close(cosines.double(), directions @ directions.T, rtol=0, atol=2**-24)
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-12)
    assert next(model.parameters()).dtype == torch.float32


def test_tf32_needs_a_gpu() -> None:
    with pytest.raises(StiffnessError, match="arithmetic: tf32 is not one of cpu"):
        gradient_cosines(
            nn.Linear(2, 2), torch.randn(2, 2), torch.tensor([0, 1]), arithmetic="tf32"
        )
