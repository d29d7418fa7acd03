"""Every family of layers, and what has none, against a loop over examples in float64."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from stiffness.data.batch import Inputs, call, take
from stiffness.errors import StiffnessWarning
from stiffness.gradients import plan
from stiffness.gradients.engine import gram_blocks, squared_norms
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.passes import FastPasses
from stiffness.gradients.plan import make_plan

# Said once where it is tested; everywhere else models without a fast path are meant.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")

N = 11
AMPLE = 2**30


def reference(model: nn.Module, inputs: Inputs, output_grads: torch.Tensor) -> torch.Tensor:
    """The Gram matrix from one backward pass an example."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for row in range(len(output_grads)):
        one = slice(row, row + 1)
        gradients = torch.autograd.grad(
            call(model, take(inputs, one)),
            parameters,
            output_grads[one],
            allow_unused=True,
            materialize_grads=True,
        )
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    stacked = torch.stack(rows)
    return stacked @ stacked.T


class Tied(nn.Module):
    """An embedding whose table is also the output layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 6)
        self.out = nn.Linear(6, 9, bias=False)
        self.out.weight = self.table.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.out(self.table(tokens).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cells = kind(4, 5, batch_first=True)
        self.out = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.attention(x, x, x, need_weights=False)[0].mean(1))


class Twice(nn.Module):
    """One layer at two places."""

    def __init__(self, layer: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.layer, self.after = layer, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(self.layer(torch.tanh(self.layer(x))))


class Positions(nn.Module):
    """Positions are looked up once for all examples, as transformers does."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(7, 4), nn.Embedding(9, 4)
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = self.positions(torch.arange(tokens.shape[1])[None])
        return self.out(self.norm(self.words(tokens) + places).mean(1))


class SharedWhole(nn.Module):
    """Two layers with the same weight and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5)
        self.two.weight, self.two.bias = self.one.weight, self.one.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)))


def vision(layer: nn.Module, shape: tuple[int, ...]) -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(layer, nn.Tanh(), nn.Flatten()), torch.randn(N, *shape)


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, rows, (N, length))


Made = tuple[nn.Module, Inputs]

# name -> model and inputs
COVERED: dict[str, Callable[[], Made]] = {
    "linear": lambda: vision(nn.Linear(6, 4), (6,)),
    "linear without bias": lambda: vision(nn.Linear(6, 4, bias=False), (6,)),
    "linear on few tokens": lambda: vision(nn.Linear(20, 30), (2, 20)),
    "linear on many tokens": lambda: vision(nn.Linear(3, 2), (40, 3)),
    "linear on a grid of tokens": lambda: vision(nn.Linear(6, 4), (3, 5, 6)),
    "linear called twice": lambda: (Twice(nn.Linear(6, 6), nn.Identity()), torch.randn(N, 6)),
    "tokens called twice": lambda: (
        Twice(nn.Linear(3, 3), nn.Flatten()),
        torch.randn(N, 30, 3),
    ),
    "two layers with the same parameters": lambda: (SharedWhole(), torch.randn(N, 5)),
    "conv1d": lambda: vision(nn.Conv1d(3, 4, 3, stride=2, padding=2, dilation=2), (3, 12)),
    "conv1d, groups and circular": lambda: vision(
        nn.Conv1d(4, 6, 3, padding=2, groups=2, padding_mode="circular"), (4, 9)
    ),
    "conv1d, reflect": lambda: vision(
        nn.Conv1d(3, 4, 3, padding=1, padding_mode="reflect"), (3, 8)
    ),
    "conv1d, replicate": lambda: vision(
        nn.Conv1d(3, 4, 3, padding="same", dilation=2, padding_mode="replicate"), (3, 8)
    ),
    "conv1d, few positions": lambda: vision(nn.Conv1d(8, 9, 3, groups=1), (8, 6)),
    "conv2d": lambda: vision(nn.Conv2d(2, 5, 3), (2, 7, 6)),
    "conv2d, one output position": lambda: vision(nn.Conv2d(3, 20, 4), (3, 4, 4)),
    "conv2d without bias": lambda: vision(nn.Conv2d(2, 5, (1, 3), bias=False), (2, 7, 6)),
    "conv2d, stride and padding": lambda: vision(
        nn.Conv2d(2, 4, 3, stride=(2, 3), padding=(1, 2)), (2, 9, 8)
    ),
    "conv2d, same": lambda: vision(nn.Conv2d(2, 4, (3, 5), padding="same"), (2, 6, 7)),
    "conv2d, dilation": lambda: vision(nn.Conv2d(2, 4, 3, dilation=(2, 1)), (2, 8, 7)),
    "conv2d, groups": lambda: vision(nn.Conv2d(6, 4, 3, groups=2), (6, 5, 6)),
    "conv2d, depthwise": lambda: vision(nn.Conv2d(4, 8, 3, groups=4, bias=False), (4, 6, 6)),
    "conv2d, reflect": lambda: vision(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 5, 5)
    ),
    "conv2d, replicate": lambda: vision(
        nn.Conv2d(2, 3, 3, padding=(0, 2), padding_mode="replicate"), (2, 5, 5)
    ),
    "conv2d, circular": lambda: vision(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5, 5)
    ),
    "conv2d called twice": lambda: (
        Twice(nn.Conv2d(2, 2, 3, padding=1), nn.Flatten()),
        torch.randn(N, 2, 5, 5),
    ),
    "conv3d": lambda: vision(nn.Conv3d(2, 3, 2, stride=(1, 2, 1), padding=1), (2, 3, 4, 5)),
    "conv3d, groups and dilation": lambda: vision(
        nn.Conv3d(4, 6, 2, dilation=(1, 2, 1), groups=2), (4, 3, 5, 4)
    ),
    "conv3d, reflect": lambda: vision(
        nn.Conv3d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 3, 4, 3)
    ),
    "conv3d, replicate": lambda: vision(
        nn.Conv3d(2, 3, 3, padding=(0, 1, 2), padding_mode="replicate"), (2, 3, 4, 3)
    ),
    "conv3d, circular": lambda: vision(
        nn.Conv3d(2, 3, 3, padding=1, padding_mode="circular"), (2, 3, 4, 3)
    ),
    "conv2d, few positions in groups": lambda: vision(nn.Conv2d(16, 16, 3, groups=2), (16, 4, 4)),
    "a table of positions": lambda: (Positions(), tokens(7, 5)),
    "embedding": lambda: (nn.Sequential(nn.Embedding(5, 4), nn.Flatten()), tokens(5, 9)),
    "embedding with padding": lambda: (
        nn.Sequential(nn.Embedding(5, 4, padding_idx=0), nn.Flatten()),
        tokens(5, 9),
    ),
    "embedding called twice": lambda: (
        nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Linear(12, 3)),
        tokens(7, 3),
    ),
    "layer norm": lambda: vision(nn.LayerNorm(6), (4, 6)),
    "layer norm of two axes": lambda: vision(nn.LayerNorm((4, 6)), (3, 4, 6)),
    "layer norm without bias": lambda: vision(nn.LayerNorm(6, bias=False), (6,)),
    "rms norm": lambda: vision(nn.RMSNorm(6, eps=1e-6), (4, 6)),
    "group norm": lambda: vision(nn.GroupNorm(2, 6), (6, 3, 2)),
    "batch norm": lambda: vision(nn.BatchNorm2d(3), (3, 4, 4)),
    "batch norm of vectors": lambda: vision(nn.BatchNorm1d(5), (5,)),
    "in-place activation": lambda: (
        nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
        torch.randn(N, 6),
    ),
    "a table that is also a weight": lambda: (Tied(), tokens(9, 4)),
    "attention": lambda: (Attention(), torch.randn(N, 5, 8)),
    "transformer": lambda: (
        nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), nn.Flatten(), nn.Linear(40, 3)
        ),
        torch.randn(N, 5, 8),
    ),
    "learned slope": lambda: (
        nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 2)),
        torch.randn(N, 6),
    ),
}

UNCOVERED: dict[str, Callable[[], Made]] = {
    "lstm": lambda: (Recurrent(nn.LSTM), torch.randn(N, 6, 4)),
    "gru": lambda: (Recurrent(nn.GRU), torch.randn(N, 6, 4)),
    "transposed convolution": lambda: vision(nn.ConvTranspose2d(2, 3, 3), (2, 4, 4)),
}


def prepared(make: Callable[[], Made]) -> tuple[nn.Module, Inputs, torch.Tensor]:
    """In float64 and evaluation mode, with norms and running statistics away from their start."""
    torch.manual_seed(0)
    model, inputs = make()
    model = model.double().eval()
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(torch.rand_like(tensor) + (0.5 if "var" in name else 0))
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point():
        inputs = inputs.double()
    with torch.no_grad():
        output_grads = torch.randn_like(call(model, inputs))
    return model, inputs, output_grads


def assert_close(gram: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-10) -> None:
    assert torch.equal(gram, gram.T)
    assert float((gram - expected).norm() / expected.norm()) < tolerance


@pytest.mark.parametrize("name", COVERED)
def test_a_covered_layer_is_exact_and_has_a_fast_path(name):
    model, inputs, output_grads = prepared(COVERED[name])
    found = make_plan(model, inputs, OutputGrads.given(output_grads), N, AMPLE)
    covered = {p for unit in found.units.values() for p in unit.parameters}
    assert covered == {p for p, _ in model.named_parameters()}
    gram = gram_blocks(model, inputs, OutputGrads.given(output_grads), False, AMPLE)[""]
    assert_close(gram, reference(model, inputs, output_grads))


@pytest.mark.parametrize("name", COVERED)
@pytest.mark.parametrize("form", ["rows", "late rows", "factors"])
def test_all_forms_agree(name, form, monkeypatch):
    model, inputs, output_grads = prepared(COVERED[name])

    choose = plan.choose_form

    def chosen(unit, *arguments):
        choose(unit, *arguments)
        unit.form = form

    monkeypatch.setattr(plan, "choose_form", chosen)
    gram = gram_blocks(model, inputs, OutputGrads.given(output_grads), False, AMPLE)[""]
    assert_close(gram, reference(model, inputs, output_grads))


@pytest.mark.parametrize("name", UNCOVERED)
def test_what_no_family_covers_is_exact_and_said(name):
    model, inputs, output_grads = prepared(UNCOVERED[name])
    with pytest.warns(StiffnessWarning, match="no fast path for"):
        gram = gram_blocks(model, inputs, OutputGrads.given(output_grads), False, AMPLE)[""]
    assert_close(gram, reference(model, inputs, output_grads))


@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
def test_a_tiny_budget_changes_nothing_but_time(name, monkeypatch):
    monkeypatch.setattr(plan, "_CHUNK", 3)
    model, inputs, output_grads = prepared({**COVERED, **UNCOVERED}[name])
    expected = reference(model, inputs, output_grads)
    for budget in (1, 20_000):
        assert_close(
            gram_blocks(model, inputs, OutputGrads.given(output_grads), False, budget)[""], expected
        )


@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
def test_blocks_sum_to_the_whole(name):
    model, inputs, output_grads = prepared({**COVERED, **UNCOVERED}[name])
    blocks = gram_blocks(model, inputs, OutputGrads.given(output_grads), True, AMPLE)
    assert_close(sum(blocks.values()), reference(model, inputs, output_grads))
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert blocks.keys() <= owners


@pytest.mark.parametrize("name", [*COVERED, *UNCOVERED])
@pytest.mark.parametrize("budget", [1, AMPLE])
def test_norms_are_the_diagonal(name, budget):
    model, inputs, output_grads = prepared({**COVERED, **UNCOVERED}[name])
    expected = reference(model, inputs, output_grads).diagonal()
    torch.testing.assert_close(
        squared_norms(model, inputs, OutputGrads.given(output_grads), budget),
        expected,
        rtol=1e-10,
        atol=0,
    )


class Counted(torch.autograd.Function):
    """The identity; counts its backward passes."""

    backwards = 0

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        Counted.backwards += 1
        return gradient


class Wall(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return Counted.apply(x)


def test_a_pass_goes_back_no_farther_than_it_must():
    """Units that do not fit together take passes of their own; those near the outputs are cheap."""
    model = nn.Sequential(nn.Linear(4, 4), Wall(), nn.Linear(4, 2)).double()
    inputs, output_grads = torch.randn(N, 4).double(), torch.randn(N, 2).double()
    given = OutputGrads.given(output_grads)
    (source,) = make_plan(model, inputs, given, N, AMPLE).sources(model, inputs, given)
    assert isinstance(source, FastPasses)
    Counted.backwards = 0
    source.visit(["2"], slice(0, N), lambda *_: None)
    assert Counted.backwards == 0
    source.visit(["0"], slice(0, N), lambda *_: None)
    assert Counted.backwards == 1
