import math

import pytest
import torch
from torch import nn

from stiffness.gradients.reference import reference_gradients


def test_directions_and_norms_equal_plain_float64_autograd() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)).double()
    model[0].bias.requires_grad_(False)
    inputs, targets = torch.randn(7, 6).double(), torch.randint(4, (7,))
    directions, log_norms = reference_gradients(model, inputs, targets)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for row in range(7):
        loss = nn.functional.cross_entropy(model(inputs[row : row + 1]), targets[row : row + 1])
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        torch.testing.assert_close(
            directions[row] * log_norms[row].exp(), gradient, rtol=1e-10, atol=1e-14
        )


@pytest.mark.parametrize("margin", [1.0, 40.0, 300.0, 700.0])
def test_confident_examples_keep_direction_and_norm(margin: float) -> None:
    # Two classes, one weight each and input 1: the gradient is the logit gradient itself.
    model = nn.Linear(1, 2, bias=False)
    model.weight.data = torch.tensor([[margin], [0.0]])
    directions, log_norms = reference_gradients(model, torch.ones(1, 1), torch.tensor([0]))
    assert directions[0].tolist() == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], rel=1e-12)
    expected = 0.5 * math.log(2) - margin - math.log1p(math.exp(-margin))
    assert float(log_norms) == pytest.approx(expected, rel=1e-12)


def test_a_zero_gradient_is_zero_not_nan() -> None:
    model = nn.Linear(3, 2, bias=False)
    inputs = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    directions, log_norms = reference_gradients(model, inputs, torch.tensor([0, 1]))
    assert not directions[0].any()
    assert log_norms[0] == -math.inf
    assert directions[1].norm() == pytest.approx(1, rel=1e-12)


def test_float_tensors_in_a_dict_are_widened_too() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 2)

        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return self.last(left * right)

    model, (left, right) = Product(), torch.randn(2, 4, 3)
    targets = torch.tensor([0, 1, 1, 0])
    directions, log_norms = reference_gradients(model, {"left": left, "right": right}, targets)
    product = left.double() * right.double()
    expected, expected_norms = reference_gradients(model.last, product, targets)
    torch.testing.assert_close(directions, expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(log_norms, expected_norms, rtol=1e-12, atol=1e-15)


def test_the_model_is_left_as_it_was() -> None:
    model = nn.Linear(3, 2)
    reference_gradients(model, torch.randn(2, 3), torch.tensor([0, 1]))
    assert model.weight.dtype == torch.float32
    assert model.weight.grad is None
