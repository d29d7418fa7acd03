"""Networks in bfloat16 or float16, and autocast: measured in float32, or with a warning."""

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, cosine_tile, gradient_cosines, gradient_gram
from stiffness.errors import StiffnessError, StiffnessWarning

# A frozen bias and a weight that layers share have no fast path.
pytestmark = pytest.mark.filterwarnings("ignore:.*no fast path:stiffness.errors.StiffnessWarning")

HALF = [torch.bfloat16, torch.float16]


def network() -> nn.Sequential:
    """Two layers share a weight, one parameter is frozen, and there are buffers."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)
    )
    model[2].weight = model[0].weight
    model[5].bias.requires_grad_(False)
    nn.init.uniform_(model[3].running_mean, -0.2, 0.2)
    return model.eval()


def examples() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(1)), torch.arange(12) % 3


@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_a_copy_with_float32_weights_is_measured(dtype: torch.dtype) -> None:
    inputs, targets = examples()
    model = network().to(dtype)
    inputs = inputs.to(dtype)
    expected = network()
    expected.load_state_dict(model.state_dict())  # the rounded weights, in float32
    wide = inputs.float()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "model: measured in")
        cosines, log_norms = gradient_cosines(model, inputs, targets)
        gram = gradient_gram(model, inputs, targets)
        tile, *_ = cosine_tile(model, inputs[:5], targets[:5], inputs[5:], targets[5:])
        means = class_mean_cosine(model, inputs, targets)
    assert cosines.dtype == gram.dtype == torch.float32
    true, true_norms = gradient_cosines(expected, wide, targets)
    torch.testing.assert_close(cosines, true, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, true_norms, rtol=0, atol=1e-6)
    torch.testing.assert_close(gram, gradient_gram(expected, wide, targets))
    torch.testing.assert_close(tile, true[:5, 5:], rtol=0, atol=1e-6)
    torch.testing.assert_close(means, class_mean_cosine(expected, wide, targets))


def test_the_network_is_left_as_it_was() -> None:
    inputs, targets = examples()
    model = network().bfloat16()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    places = [p.data_ptr() for p in model.parameters()]
    gradient_cosines(model, inputs, targets)
    for name, value in model.state_dict().items():
        assert value.dtype == before[name].dtype
        assert torch.equal(value, before[name])
    assert [p.data_ptr() for p in model.parameters()] == places
    assert model[2].weight is model[0].weight
    assert (model[0].weight.grad == 1).all()
    assert not model[5].bias.requires_grad


def test_without_a_copy_a_warning_has_the_size_of_the_error() -> None:
    inputs, targets = examples()
    model = network().bfloat16()
    true, _ = gradient_cosines(model, inputs, targets)
    with pytest.warns(StiffnessWarning, match="bfloat16") as told:
        cosines, _ = gradient_cosines(model, inputs.bfloat16(), targets, float32_copy=False)
    message = next(str(one.message) for one in told if "off by" in str(one.message))
    size = float(message.split("off by up to ")[1].split(";")[0])
    error = float((cosines - true)[:8, :8].abs().max())
    # The inputs are rounded too here; the weights' rounding is the same in both.
    assert 0.2 * error < size < 5 * error
    assert error > 1e-4


def test_a_network_that_cannot_be_copied_is_told_what_to_do() -> None:
    model = network().bfloat16()
    model.kept = model[0].weight * 2  # not a leaf: torch refuses to copy it
    with pytest.raises(StiffnessError, match=r"^model: it cannot be copied .*float32_copy=False"):
        gradient_cosines(model, *examples())


def test_autocast_around_the_call_changes_nothing() -> None:
    inputs, targets = examples()
    model = network()
    expected, _ = gradient_cosines(model, inputs, targets)
    means = class_mean_cosine(model, inputs, targets)
    with torch.autocast("cpu", torch.bfloat16):
        cosines, _ = gradient_cosines(model, inputs, targets)
        again = class_mean_cosine(model, inputs, targets)
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(cosines, expected)
    assert torch.equal(means, again)
    assert not torch.is_autocast_enabled("cpu")


class Casting(nn.Module):
    def __init__(self, enabled: bool) -> None:
        super().__init__()
        self.inner, self.enabled = nn.Linear(6, 3), enabled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.enabled):
            return self.inner(x)


@pytest.mark.parametrize("measure", [gradient_cosines, gradient_gram, class_mean_cosine])
def test_autocast_within_the_network_is_refused(measure: Any) -> None:
    with pytest.raises(StiffnessError, match=r"^model: it turns autocast on .*bfloat16"):
        measure(Casting(True), *examples())
    measure(Casting(False), *examples())


def test_recurrent_layers_run_without_cudnn() -> None:
    """cuDNN's have no backward pass in evaluation mode; the caller's setting comes back."""
    seen = []

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.enabled)
            return self.head(self.inner(x.unflatten(1, (2, 3)))[0][:, -1])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StiffnessWarning)
        gradient_cosines(Recurrent().eval(), *examples())
    assert seen
    assert not any(seen)
    assert torch.backends.cudnn.enabled
