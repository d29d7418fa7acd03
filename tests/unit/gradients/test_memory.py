"""The memory budget bounds what the engine takes, as the operating system counts it."""

import os
import warnings
from typing import Any

import pytest
import torch
from gradient_cases import measure_peak
from torch import nn

from stiffness import class_mean_cosine, gradient_gram
from stiffness.errors import StiffnessWarning
from stiffness.gradients import gram
from stiffness.gradients.memory import peak_bytes, traffic, within_memory


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's peaks")
@pytest.mark.parametrize(
    "case",
    [
        "fallback",
        *(
            pytest.param(case, marks=pytest.mark.slow)
            for case in ("rows", "late rows", "convolutions", "tokens", "copies", "tied")
        ),
    ],
)
def test_the_budget_bounds_the_peak_and_changes_nothing(case: str) -> None:
    found = measure_peak("memory_cell.py", case, "256MiB")
    budget = 256 * 2**20
    assert found["needed"] > 1.25 * budget  # or the case would show nothing
    assert found["peak"] <= 1.25 * budget
    assert found["error"] < 1e-5


def test_a_budget_without_room_for_one_example_is_said_and_works() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 500), nn.Tanh(), nn.Linear(500, 3))
    inputs, targets = torch.randn(7, 6), torch.arange(7) % 3
    with pytest.warns(StiffnessWarning, match=r"^memory_budget: .* one example alone takes"):
        gram = gradient_gram(model, inputs, targets, memory_budget="1KiB")
    torch.testing.assert_close(gram, gradient_gram(model, inputs, targets))


def test_live_tensors_are_counted_until_they_are_freed() -> None:
    there = torch.ones(1000)

    def function() -> None:
        first = there + 1  # 4000 bytes
        view = first[:500]
        del first
        second = view * 2  # and 2000 while the view keeps the first alive
        del view
        second.mul_(2)
        there.mul_(1)  # not made here

    assert peak_bytes(function) == 6000
    assert traffic(function)[0] == 6000
    assert peak_bytes(lambda: [torch.empty(100) for _ in range(5)] and None) == 2000


def test_the_backward_pass_is_counted_too() -> None:
    weight = torch.randn(300, 300, requires_grad=True)
    size = weight.numel() * weight.element_size()

    def gradient() -> None:
        torch.autograd.grad((weight * weight).exp().sum(), weight)

    assert 2 * size <= peak_bytes(gradient) <= 6 * size


def _three_layers() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.Tanh(), nn.Linear(20, 3))
    inputs = torch.randn(12, 6, generator=generator)
    return model, inputs, torch.arange(12) % 3


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_budget_that_the_device_has_no_room_for_is_halved_until_it_has(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError
) -> None:
    model, inputs, targets = _three_layers()
    expected = gradient_gram(model, inputs, targets)
    whole = class_mean_cosine(model, inputs, targets)
    tried: list[int] = []

    def limited(name: str) -> None:
        original = getattr(gram, name)

        def compute(*arguments: Any, **keywords: Any) -> Any:
            tried.append(arguments[-1])
            if arguments[-1] > 2**30:
                raise error
            return original(*arguments, **keywords)

        monkeypatch.setattr(gram, name, compute)

    limited("gram_blocks")
    limited("class_sums")
    with pytest.warns(StiffnessWarning, match="going on with"):
        found = gradient_gram(model, inputs, targets, memory_budget="4GiB")
    assert tried == [2**32, 2**31, 2**30]
    torch.testing.assert_close(found, expected)
    with pytest.warns(StiffnessWarning, match="going on with"):
        found = class_mean_cosine(model, inputs, targets, memory_budget="4GiB")
    torch.testing.assert_close(found, whole)


def test_what_fits_no_budget_and_what_is_no_lack_of_memory_is_not_tried_for_ever() -> None:
    tried = []

    def never(error: RuntimeError, budget: int) -> None:
        tried.append(budget)
        raise error

    with (
        pytest.warns(StiffnessWarning),
        pytest.raises(torch.OutOfMemoryError, match="no room"),
    ):
        within_memory(2**28, lambda budget: never(torch.OutOfMemoryError("no room"), budget))
    assert tried == [2**28, 2**27, 2**26, 2**25]
    tried.clear()
    with pytest.raises(RuntimeError, match="shapes"):
        within_memory(2**28, lambda budget: never(RuntimeError("shapes differ"), budget))
    assert tried == [2**28]


class Scarce(nn.Module):
    """A linear network that runs out of memory in its first passes with gradients."""

    def __init__(self, layer: nn.Module, failures: int) -> None:
        super().__init__()
        self.layer, self.failures = layer, failures

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and self.failures:
            self.failures -= 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.layer(x)


class Slow(nn.Linear):
    """A layer of no family, with an operator of no rule: its parameters take the slow path."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensordot(x, self.weight.T, 1) + torch.cummax(self.bias, 0).values * x[:, :1]


@pytest.mark.parametrize("layer", [nn.Linear, Slow])
def test_a_probe_without_memory_halves_the_budget_and_says_nothing_of_the_layers(
    layer: type[nn.Linear],
) -> None:
    torch.manual_seed(0)
    plain, x, y = layer(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])

    def measured(failures: int) -> tuple[torch.Tensor, list[str]]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            gram = gradient_gram(Scarce(plain, failures), x, y)
        assert isinstance(gram, torch.Tensor)
        return gram, [str(one.message) for one in told]

    expected, usual = measured(0)
    found, told = measured(1)
    assert "going on with" in told[0]
    assert told[1:] == usual
    assert len(usual) == (layer is Slow)
    torch.testing.assert_close(found, expected)
