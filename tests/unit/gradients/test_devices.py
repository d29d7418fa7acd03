"""What a GPU could do otherwise than a CPU, and that TF32 would be seen; see also ``case``."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, cosine_tile, gradient_cosines
from stiffness.device import float32_products
from stiffness.gradients import gram
from stiffness.gradients.reference import reference_gradients

# Models without a fast path and budgets without room are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")


@pytest.fixture
def careless() -> Any:
    """A caller who lets products and convolutions be rounded to TF32."""
    with float32_products("tf32" if torch.cuda.is_available() else "ieee"):
        yield


class Wide(nn.Module):
    """Wide enough for the kernels that compute in TF32."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 16, 3)
        self.inner, self.last = nn.Linear(16 * 36, 128), nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.inner(self.conv(x).tanh().flatten(1)).tanh())


def wide() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Wide(), torch.randn(16, 8, 8, 8), torch.arange(16) % 8


def error_on(device: torch.device) -> float:
    """Relative, of the cosines of ``wide`` against a float64 loop."""
    model, inputs, targets = wide()
    directions, _ = reference_gradients(model, inputs, targets)
    true = directions @ directions.T
    cosines, _ = gradient_cosines(model.to(device), inputs, targets)
    assert isinstance(cosines, torch.Tensor)
    return float((cosines.double() - true).norm() / true.norm())


@pytest.mark.usefixtures("careless")
def test_cosines_are_in_full_float32_whatever_the_caller_has_set(device: torch.device) -> None:
    assert error_on(device) < 5e-6


def test_tf32_left_on_would_be_seen(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control of the test above."""
    if device.type == "cpu" or torch.cuda.get_device_capability(device)[0] < 8:
        pytest.skip("computes in no TF32")

    def with_tf32(_: str) -> AbstractContextManager[None]:
        return float32_products("tf32")

    monkeypatch.setattr(gram, "products_in", with_tf32)
    assert error_on(device) > 5e-6


class Texts(nn.Module):
    """An embedding of tokens of which some are in all texts and most in few."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(60, 16), nn.Linear(16, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(tokens).tanh().mean(1))


def texts() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    tokens = (60 * torch.rand(40, 12) ** 3).long()
    tokens[:, 0], tokens[:20, 5] = 59, 58
    return Texts(), tokens, torch.arange(40) % 3


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.inner(x)[0][:, -1])


def recurrent() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Recurrent().eval(), torch.randn(9, 5, 3), torch.arange(9) % 3


NETWORKS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor, torch.Tensor]]] = {
    "convolutions": wide,
    "embedding": texts,
    "recurrent": recurrent,
}


@pytest.mark.parametrize("budget", ["64KiB", "4GiB"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.usefixtures("careless")
def test_squares_tiles_and_the_whole_set_equal_the_float64_loop(
    device: torch.device, name: str, budget: str
) -> None:
    model, inputs, targets = NETWORKS[name]()
    directions, true_norms = reference_gradients(model, inputs, targets)
    true = (directions @ directions.T).float()
    model.to(device)
    cosines, log_norms = gradient_cosines(model, inputs, targets, memory_budget=budget)
    torch.testing.assert_close(cosines, true, rtol=0, atol=1e-5)
    torch.testing.assert_close(log_norms, true_norms, rtol=0, atol=1e-5)
    tile, *norms = cosine_tile(
        model, inputs[:7], targets[:7], inputs[7:], targets[7:], memory_budget=budget
    )
    torch.testing.assert_close(tile, true[:7, 7:], rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.cat(norms), true_norms, rtol=0, atol=1e-5)
    means = class_mean_cosine(model, inputs, targets, memory_budget=budget)
    first, second = targets == 0, targets == 1
    expected = (directions[first] @ directions[second].T).mean()
    torch.testing.assert_close(means[0, 1], expected, rtol=0, atol=1e-5)


def test_the_budget_bounds_a_gpus_memory(device: torch.device) -> None:
    if device.type == "cpu":
        pytest.skip("test_memory.py measures a process on the CPU")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 1024), nn.Tanh(), nn.Linear(1024, 3)).to(device)
    inputs, targets = torch.randn(3000, 512).to(device), (torch.arange(3000) % 3).to(device)
    budget, result = 256 * 2**20, 4 * len(inputs) ** 2
    gradient_cosines(model, inputs[:2], targets[:2])  # loads libraries
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradient_cosines(model, inputs, targets, memory_budget=budget)
    # Beside the matrix itself, which is turned into cosines with masks and copies of it.
    assert torch.cuda.max_memory_allocated(device) - before < 1.25 * budget + 3 * result
