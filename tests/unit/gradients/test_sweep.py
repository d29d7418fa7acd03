"""Blocks of a deep network that take turns, where the network can be cut between them."""

import pytest
import torch
from torch import nn

from stiffness import gradient_cosines
from stiffness.gradients import engine
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import make_plan
from stiffness.gradients.reference import reference_gradients

N, WIDTH, DEPTH = 31, 24, 5
TARGETS = torch.arange(N) % 3


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor, scale: float) -> torch.Tensor:
        return x + scale * self.down(self.up(self.norm(x)).relu())


class Deep(nn.Module):
    """``skip``: the output depends on the second block by another way than the third."""

    def __init__(self, skip: bool = False) -> None:
        super().__init__()
        self.skip, self.stem, self.head = skip, nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, aside = self.stem(x), 0
        for number, block in enumerate(self.blocks):
            x = block(x, scale=0.5)
            aside = x if self.skip and number == 1 else aside
        return self.head((x + aside).mean(1))


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether blocks took turns, call by call."""
    found: list[bool] = []
    sweep = engine._swept
    monkeypatch.setattr(engine, "_swept", lambda *given: found.append(sweep(*given)) or found[-1])
    return found


def deep(skip: bool = False) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return Deep(skip).eval(), torch.randn(N, 4, 6)


@pytest.mark.filterwarnings("ignore:memory_budget")
@pytest.mark.parametrize(
    ("budget", "turns"), [("4GiB", False), ("700KiB", True), ("400KiB", True), ("100KiB", False)]
)
def test_blocks_take_turns_where_gradients_do_not_fit(
    swept: list[bool], budget: str, turns: bool
) -> None:
    model, inputs = deep()
    directions, norms = reference_gradients(model, inputs, TARGETS)
    cosines, log_norms = gradient_cosines(model, inputs, TARGETS, memory_budget=budget)
    torch.testing.assert_close(cosines, (directions @ directions.T).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, norms, rtol=0, atol=1e-6)
    assert swept == [turns]
    assert not any("forward" in vars(module) for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_network_that_cannot_be_cut_is_not(swept: list[bool]) -> None:
    model, inputs = deep(skip=True)
    directions, _ = reference_gradients(model, inputs, TARGETS)
    cosines, _ = gradient_cosines(model, inputs, TARGETS, memory_budget="400KiB")
    torch.testing.assert_close(cosines, (directions @ directions.T).float(), rtol=0, atol=1e-6)
    assert swept == [False]


def test_where_a_network_can_be_cut() -> None:
    model, inputs = deep()
    output_grads = OutputGrads(TARGETS)
    plan = make_plan(model, inputs, output_grads, N, 2**30)
    (passes,) = plan.sources(model, inputs, output_grads)
    blocks = plan.find_blocks(passes)  # type: ignore[arg-type]
    assert blocks is not None
    assert blocks.container == "blocks"
    assert blocks.segments[0] == ["stem"]
    assert blocks.segments[3] == ["blocks.2.norm", "blocks.2.up", "blocks.2.down"]
    assert blocks.segments[-1] == ["head"]
    assert blocks.sizes == [4 * 4 * WIDTH] * DEPTH
