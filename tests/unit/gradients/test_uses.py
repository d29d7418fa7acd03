"""Parameters that belong to no layer of a family, against a loop over examples in float64."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from gradient_cases import Net
from test_families import AMPLE, Made, N, assert_close, prepared, reference
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from stiffness import gradient_gram
from stiffness.errors import StiffnessError, StiffnessWarning
from stiffness.gradients import plan
from stiffness.gradients.engine import gram_blocks, squared_norms
from stiffness.gradients.families import registry
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import make_plan

T, C = 5, 6


def made(function: Callable[..., torch.Tensor], shape=(T, C), **parts) -> Made:
    """A network of x [N, T, C]; its parts are modules, or shapes of parameters."""
    parts = {
        name: part if isinstance(part, nn.Module) else nn.Parameter(torch.randn(part))
        for name, part in parts.items()
    }
    return Net(function, **parts), torch.randn(N, *shape)


def words(function: Callable[..., torch.Tensor], **parts) -> Made:
    return made(function, **parts)[0], torch.randint(1, 9, (N, T))


def attended(net: Net, *others: torch.Tensor, **settings: bool) -> torch.Tensor:
    return net.attention(*others, **settings)[0]


def windows(net: Net, x: torch.Tensor) -> torch.Tensor:
    """Four windows of each of two lines: the first axis holds examples and windows."""
    cut = x.reshape(N_OF(x), 2, 2, 4, C).transpose(1, 2).reshape(-1, 8, C)
    scores = cut @ cut.transpose(1, 2) / 9 + net.bias[net.index].mean(-1)
    return (scores.softmax(-1) @ cut @ net.matrix).reshape(N_OF(x), -1)


def N_OF(x: torch.Tensor) -> int:
    return x.shape[0]


class Shared(nn.Module):
    """A table of words that is also the weight of the output layer."""

    def __init__(self, padding: int | None = None, bias: bool = False, words: int = 9) -> None:
        super().__init__()
        self.table = nn.Embedding(words, C, padding_idx=padding)
        self.mix = nn.Linear(C, C)
        self.out = nn.Linear(C, words, bias=bias)
        self.out.weight = self.table.weight

    def forward(self, index: torch.Tensor) -> torch.Tensor:
        return self.out(self.mix(self.table(index)).tanh())


CASES: dict[str, Callable[[], Made]] = {
    "class token": lambda: made(
        lambda net, x: torch.cat([net.token.expand(len(x), -1, -1), x], 1).cumsum(1).tanh(),
        token=(1, 1, C),
    ),
    "class token, repeated": lambda: made(
        lambda net, x: torch.cat([net.token.repeat(len(x), 1, 1), x], 1).cumsum(1).tanh(),
        token=(1, 1, C),
    ),
    "class token with a position": lambda: made(
        lambda net, x: torch.cat(
            [(net.token + net.positions[:, :1]).expand(len(x), -1, -1), x + net.positions[:, 1:]],
            1,
        ).prod(1),
        token=(1, 1, C),
        positions=(1, T + 1, C),
    ),
    "positions, as many as examples": lambda: made(
        lambda net, x: (x + net.positions[:N]).tanh(), shape=(N, C), positions=(N + 3, C)
    ),
    "positions looked up once": lambda: words(
        lambda net, x: (net.words(x) + net.positions(torch.arange(T))).tanh(),
        words=nn.Embedding(9, C),
        positions=nn.Embedding(T + 2, C),
    ),
    "scale and shift": lambda: made(
        lambda net, x: (
            (x * x.square().mean(-1, keepdim=True).rsqrt() * (1 + net.scale)) + net.shift
        ),
        scale=(C,),
        shift=(C,),
    ),
    "scale in place": lambda: made(
        lambda net, x: x.tanh().mul_(net.scale).exp(),
        scale=(C,),
    ),
    "scale of channels": lambda: made(
        lambda net, x: (
            net.norm(x.movedim(-1, 1).contiguous()).movedim(1, -1) * net.scale.softmax(0)
        ),
        shape=(3, 4, C),
        norm=nn.GroupNorm(2, C),
        scale=(4, 1),
    ),
    "single number": lambda: made(lambda net, x: (x * net.heat.exp()).softmax(-1), heat=()),
    "mask token": lambda: made(
        lambda net, x: torch.where(x[..., :1] > 0, x, net.token).cumsum(1).tanh(), token=(C,)
    ),
    "low rank": lambda: made(
        lambda net, x: (x @ net.weight + x @ net.down @ net.up).tanh() + F.linear(x, net.other),
        weight=(C, 7),
        down=(C, 2),
        up=(2, 7),
        other=(7, C),
    ),
    "frozen bias": lambda: made(
        lambda net, x: net.norm(F.linear(x, net.weight, torch.ones(7).to(x))).tanh(),
        weight=(7, C),
        norm=nn.LayerNorm(7).requires_grad_(False),
    ),
    "matrix and its transpose": lambda: made(
        lambda net, x: (x @ net.weight).tanh() @ net.weight.T, weight=(C, 7)
    ),
    "matrix in two parts": lambda: made(
        lambda net, x: F.linear(x, net.weight[:2]).exp() + F.linear(x, net.weight[2:4]),
        weight=(4, C),
    ),
    "vector": lambda: made(lambda net, x: (x @ net.vector).tanh() + x[..., 0], vector=(C,)),
    "mixing of positions": lambda: made(lambda net, x: (net.weight @ x).tanh(), weight=(3, T)),
    "matrix per head": lambda: made(
        lambda net, x: torch.einsum("nthc,hcd->nthd", x, net.weight).tanh(),
        shape=(T, 2, C),
        weight=(2, C, 3),
    ),
    "weight norm": lambda: made(
        lambda net, x: net.two(net.one(x).tanh().movedim(-1, 1)),
        one=parametrizations.weight_norm(nn.Linear(C, 4)),
        two=parametrizations.weight_norm(nn.Conv1d(4, 6, 3, padding="same", groups=2)),
    ),
    "standardised kernel": lambda: made(
        lambda net, x: F.conv2d(x, net.weight - net.weight.mean(), net.bias, (2, 1), 1).tanh(),
        shape=(4, 6, 5),
        weight=(3, 4, 3, 2),
        bias=(3,),
    ),
    "slope of channels": lambda: made(
        lambda net, x: net.slope(x).tanh(), shape=(3, 4), slope=nn.PReLU(3)
    ),
    "self-attention": lambda: made(
        lambda net, x: attended(net, x, x, x),
        attention=nn.MultiheadAttention(C, 2, batch_first=True),
    ),
    "attention along the first axis": lambda: made(
        lambda net, x: attended(net, *[x.transpose(0, 1)] * 3, need_weights=False).transpose(0, 1),
        attention=nn.MultiheadAttention(C, 2, bias=False),
    ),
    "attention to something else": lambda: made(
        lambda net, x: attended(net, x[:, :2], x[:, 2:], x[:, 2:], need_weights=False),
        attention=nn.MultiheadAttention(C, 3, batch_first=True, add_bias_kv=True),
    ),
    "attention of other widths": lambda: made(
        lambda net, x: attended(net, x, x[..., :4], x[..., 1:4]),
        attention=nn.MultiheadAttention(C, 2, kdim=4, vdim=3, batch_first=True),
    ),
    "encoder": lambda: made(
        lambda net, x: net.encoder(x),
        encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(C, 2, 8, batch_first=True), 2, enable_nested_tensor=False
        ),
    ),
    "decoder": lambda: made(
        lambda net, x: net.decoder(x[:, :3].transpose(0, 1), x[:, 3:].transpose(0, 1))[0],
        decoder=nn.TransformerDecoderLayer(C, 2, 8, norm_first=True),
    ),
    "bias of attention": lambda: made(
        lambda net, x: F.scaled_dot_product_attention(
            *[x.unflatten(-1, (2, -1)).transpose(1, 2)] * 3,
            attn_mask=net.table[:, (torch.arange(T)[:, None] - torch.arange(T)).abs()],
        ),
        table=(2, T),
    ),
    "windows": lambda: (
        Net(
            windows,
            bias=nn.Parameter(torch.randn(9, 2)),
            index=nn.Parameter(torch.randint(9, (8, 8)), requires_grad=False),
            matrix=nn.Parameter(torch.randn(C, 3)),
        ),
        torch.randn(N, 16, C),
    ),
    "tied": lambda: (Shared(), torch.randint(9, (N, T))),
    "tied, with padding and a bias": lambda: (Shared(0, True), torch.randint(9, (N, T))),
    "tied, of many words": lambda: (Shared(words=300), torch.randint(300, (N, 2))),
    "table indexed": lambda: words(lambda net, x: net.table[x].prod(1), table=(9, C)),
    "never used": lambda: made(lambda net, x: x * net.scale, scale=(C,)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_use_is_exact_and_has_a_fast_path(name):
    model, inputs, output_grads = prepared(CASES[name])
    given = OutputGrads.given(output_grads)
    found = make_plan(model, inputs, given, N, AMPLE)
    assert not found.rest
    expected = reference(model, inputs, output_grads)
    assert_close(gram_blocks(model, inputs, given, False, AMPLE)[""], expected)
    norms = squared_norms(model, inputs, given, AMPLE)
    torch.testing.assert_close(norms, expected.diagonal(), rtol=1e-10, atol=0)
    blocks = gram_blocks(model, inputs, given, True, AMPLE)
    assert_close(sum(blocks.values()), expected)
    assert blocks.keys() == {
        name.rpartition(".")[0] for name, p in model.named_parameters() if p.requires_grad
    }


@pytest.mark.parametrize("name", ["class token", "low rank", "tied", "weight norm", "windows"])
def test_a_tiny_budget_changes_nothing_but_time(name, monkeypatch):
    monkeypatch.setattr(plan, "_CHUNK", 3)
    model, inputs, output_grads = prepared(CASES[name])
    with pytest.warns(match="memory_budget"):
        gram = gram_blocks(model, inputs, OutputGrads.given(output_grads), False, 1)[""]
    assert_close(gram, reference(model, inputs, output_grads))


def test_the_documented_family_is_right_and_needed(monkeypatch):
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    page = (Path(__file__).parents[3] / "docs" / "your-own.md").read_text()
    (example,) = re.findall(r"```python\n# filters.py\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    make = names["Filter"]
    model, x = nn.Sequential(make(9), nn.Flatten(), nn.Linear(18, 3)), torch.randn(N, 2, 9)
    targets = torch.arange(N) % 3
    gram = gradient_gram(model, x, targets)
    del registry._FAMILIES[make]
    with pytest.warns(StiffnessWarning, match=r"no fast path for 0.weight"):
        torch.testing.assert_close(gradient_gram(model, x, targets), gram)


def test_other_uses_for_other_examples_are_refused():
    """The first examples show a parameter that is added; another one multiplies by it."""

    def forward(net: Net, x: torch.Tensor) -> torch.Tensor:
        both = (net.shift, x) if x.max() > 90 else (x, net.shift)
        return net.out(torch.sub(*both)) if x.max() < 90 else net.out(torch.cross(*both))

    model = Net(forward, shift=nn.Parameter(torch.randn(1, 3)), out=nn.Linear(3, 3)).eval()
    x = torch.randn(N, 3)
    x[5] = 100
    with pytest.raises(StiffnessError, match=r"it uses shift \(\w+\) in other ways"):
        gradient_gram(model, x, torch.arange(N) % 3)
