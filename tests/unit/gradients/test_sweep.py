"""Blocks of a deep network that take turns, where the network can be cut between them."""

import pytest
import torch
from torch import nn

from stiffness import gradient_cosines
from stiffness.gradients import engine
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import Shares, block_groups, make_plan
from stiffness.gradients.reference import reference_gradients
from stiffness.gradients.sweep import Blocks

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
    ("budget", "turns"), [("4GiB", False), ("500KiB", True), ("400KiB", True), ("100KiB", False)]
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


def test_what_is_stored_of_all_examples_is_not_counted_as_a_pass_over_one() -> None:
    model, inputs = deep()
    output_grads = OutputGrads(TARGETS)
    plan = make_plan(model, inputs, output_grads, N, 2**30)
    (passes,) = plan.sources(model, inputs, output_grads)
    blocks = plan.find_blocks(passes)
    few, all_of_them = (engine.Sweep(passes, blocks, [0, 2], count) for count in (1, N))
    assert all_of_them.forward_bytes() == few.forward_bytes() < N * blocks.sizes[2]


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


class Reader(nn.Module):
    """Blocks over tokens, of which the mean is read."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(50, WIDTH), nn.Linear(WIDTH, 3)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x, mask = self.words(input_ids), attention_mask[:, :, None]
        for block in self.blocks:
            x = block(x, scale=0.5)
        return self.head((x * mask).sum(1))


@pytest.mark.filterwarnings("ignore:memory_budget")
@pytest.mark.parametrize("budget", ["900KiB", "700KiB"])
@pytest.mark.parametrize("forward_bytes", [1, 20_000], ids=["forward_together", "in_chunks"])
def test_texts_of_many_lengths_lose_their_padding_while_blocks_take_turns(
    swept: list[bool], monkeypatch: pytest.MonkeyPatch, budget: str, forward_bytes: int
) -> None:
    monkeypatch.setattr(engine.Sweep, "forward_bytes", lambda _: forward_bytes)
    torch.manual_seed(0)
    model, ids = Reader().eval(), torch.randint(50, (N, 12))
    mask = (torch.arange(12) < torch.randint(1, 13, (N, 1))).long()
    inputs = {"input_ids": ids, "attention_mask": mask}
    directions, norms = reference_gradients(model, inputs, TARGETS)
    cosines, log_norms = gradient_cosines(model, inputs, TARGETS, memory_budget=budget)
    torch.testing.assert_close(cosines, (directions @ directions.T).float(), rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, norms, rtol=0, atol=1e-6)
    assert swept == [True]


@pytest.mark.parametrize(
    ("block", "stored", "starts"),
    [(42, 0, [0]), (22, 6, [0, 2]), (12, 9, [0, 1, 2, 3]), (10, 9, [0, 1, 2, 3]), (9, 9, None)],
)
def test_groups_of_blocks_fit_beside_what_is_stored(
    block: int, stored: int, starts: list[int] | None
) -> None:
    # What comes before the blocks has 2 bytes, every block 10 and what it takes 3. Of four groups
    # the third has 10 beside 9: what it and the second take, and the gradient from the fourth.
    segments = [["before"], ["a"], ["b"], ["c"], ["d"], []]
    sizes = {"before": 2, "a": 10, "b": 10, "c": 10, "d": 10}
    shares = Shares(2**30, 4)
    shares.block, shares.stored = block, stored
    assert block_groups(sizes, Blocks("blocks", segments, [3] * 4), 1, shares) == starts
