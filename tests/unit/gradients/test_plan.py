"""Plans that are reused, and families that somebody else registers."""

import pytest
import torch
from torch import nn

from stiffness.gradients import plan
from stiffness.gradients.families import family, family_of, registry
from stiffness.gradients.gram import cosine_tile, gradient_cosines
from stiffness.gradients.multiply import Gradients, Rows
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import Plans, make_plan
from stiffness.training.models import ModelSpec, build_model

TARGETS = torch.arange(9) % 3


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[plan.Plan]:
    """The plans that are made."""
    found: list[plan.Plan] = []
    make = plan.make_plan
    monkeypatch.setattr(plan, "make_plan", lambda *given: found.append(make(*given)) or found[-1])
    return found


def inputs(width: int = 8) -> torch.Tensor:
    return torch.randn(9, 1, width, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")
@pytest.mark.parametrize("budget", ["1KiB", "1GiB"])
def test_a_plan_serves_all_checkpoints_and_changes_nothing(made, budget) -> None:
    plans, spec = Plans(), ModelSpec("cnn", padding="same")
    models = [build_model(spec, (1, 8, 8), 3, seed) for seed in range(3)]
    found = [
        gradient_cosines(model, inputs(), TARGETS, memory_budget=budget, plans=plans)
        for model in models
    ]
    assert len(made) == 1
    for model, ours in zip(models, found, strict=True):
        alone = gradient_cosines(model, inputs(), TARGETS, memory_budget=budget)
        assert all(map(torch.equal, ours, alone))  # the same computation
    assert len(made) == 4


def test_other_shapes_and_numbers_of_partners_need_other_plans(made) -> None:
    plans = Plans()
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    targets = TARGETS % 2
    gradient_cosines(model, inputs(), targets, plans=plans)
    gradient_cosines(model, inputs(9), targets, plans=plans)
    model[0].bias.requires_grad_(False)
    gradient_cosines(model, inputs(9), targets, plans=plans)
    model[0].bias.requires_grad_(True)
    cosine_tile(model, inputs()[:2], targets[:2], inputs()[2:], targets[2:], plans=plans)
    assert len(made) == 4
    gradient_cosines(model, inputs(), targets, plans=plans)
    assert len(made) == 4


def test_a_gradient_of_0_proves_nothing_for_other_checkpoints(made) -> None:
    plans, model = Plans(), nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.rand(9, 4)
    with torch.no_grad():
        model[2].weight.zero_()
    for calls in (1, 2):
        gradient_cosines(model, x, TARGETS, plans=plans)
        assert len(made) == calls
    with torch.no_grad():
        model[2].weight.fill_(0.1)
        model[0].bias.fill_(1)
    for _ in range(2):
        gradient_cosines(model, x, TARGETS, plans=plans)
        assert len(made) == 3


class Shift(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))

    def forward(self, a: torch.Tensor) -> torch.Tensor:
        return a + self.weight


@pytest.mark.parametrize(("factor", "covered"), [(1, True), (2, False)])
@pytest.mark.parametrize("kind", [Shift, f"{__name__}.Shift"], ids=["type", "name"])
def test_somebody_elses_family_is_used_where_it_is_right(
    monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module] | str, factor: int, covered: bool
) -> None:
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    assert family_of(Shift()) is None

    @family(kind)
    def shift(layer: nn.Module, a: torch.Tensor, d: torch.Tensor, form: str) -> Gradients:
        return Rows(factor * d)

    model, x = nn.Sequential(Shift(), nn.Tanh(), nn.Linear(6, 3)), torch.randn(9, 6)
    found = make_plan(model, x, OutputGrads(TARGETS), 9, 2**30)
    assert ("0" in found.units) == covered
    # Without a family that is right, the operator that uses the parameter tells its gradient.
    assert ("0.weight" in found.units) == (not covered)
    assert not found.rest
