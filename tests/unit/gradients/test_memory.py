"""The memory budget bounds what the engine takes, as the operating system counts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from stiffness import gradient_gram
from stiffness.errors import StiffnessWarning
from stiffness.gradients.memory import peak_bytes, traffic

HERE = Path(__file__).parent
ROOT = HERE.parents[2]


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's peaks")
@pytest.mark.parametrize("case", ["rows", "late rows", "convolutions", "tokens", "fallback"])
def test_the_budget_bounds_the_peak_and_changes_nothing(case: str) -> None:
    done = subprocess.run(
        [sys.executable, HERE / "memory_cell.py", ROOT / "benchmarks", case, "256MiB"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "workflow"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
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
