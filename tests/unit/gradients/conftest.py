"""Networks on which every route to the Gram matrix must agree with the obvious one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gradient_cases import Net
from torch import nn

from stiffness.data.batch import Inputs, call, place
from stiffness.training.models import ModelSpec, build_model

torch.set_num_threads(1)


@dataclass
class Case:
    model: nn.Module
    inputs: Inputs
    targets: torch.Tensor

    def to(self, device: torch.device) -> "Case":
        return Case(self.model.to(device), place(self.inputs, device), self.targets.to(device))

    def random_output_grads(self) -> torch.Tensor:
        """In the dtype of the outputs, whose shape they have."""
        with torch.no_grad():
            outputs = call(self.model, self.inputs)
        return torch.randn(outputs.shape, dtype=outputs.dtype).to(outputs.device)

    def double(self) -> "Case":
        def widened(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.double() if tensor.is_floating_point() else tensor

        inputs = self.inputs
        wide = (
            {name: widened(tensor) for name, tensor in inputs.items()}
            if isinstance(inputs, Mapping)
            else widened(inputs)
        )
        return Case(self.model.double(), wide, self.targets)


def vision(spec: ModelSpec, size: int, count: int) -> Case:
    model = build_model(spec, (3, size, size), 5, seed=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # Fresh running statistics (0 and 1) would make the layer almost the identity.
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return Case(model, torch.randn(count, 3, size, size), torch.randint(5, (count,)))


def network(
    function: Callable[..., Any], count: int = 12, **parts: nn.Module | nn.Parameter
) -> Case:
    model = Net(function, **parts).eval()
    return Case(model, torch.randn(count, 6), torch.randint(4, (count,)))


def frozen() -> Case:
    case = vision(ModelSpec("fc"), 4, 12)
    case.model[1].requires_grad_(False)
    case.model[5].bias.requires_grad_(False)
    return case


def shared_weight() -> Case:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return network(
        lambda net, x: net.last(net.second(net.first(x).relu()).relu()),
        first=first,
        second=second,
        last=nn.Linear(6, 4),
    )


def dict_with_logits() -> Case:
    def forward(net: Any, ids: torch.Tensor, mask: torch.Tensor) -> SimpleNamespace:
        kept = net.embed(ids) * mask[..., None]
        return SimpleNamespace(logits=net.last(net.tokens(kept).tanh().mean(1)))

    parts = {"embed": nn.Embedding(9, 6), "tokens": nn.Linear(6, 5), "last": nn.Linear(5, 4)}
    inputs = {"ids": torch.randint(9, (12, 7)), "mask": torch.rand(12, 7) < 0.7}
    return Case(Net(forward, **parts).eval(), inputs, torch.randint(4, (12,)))


def untracked(net: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        hidden = net.first(x).relu()
    return net.last(hidden)


CASES: dict[str, Callable[[], Case]] = {
    "fc": lambda: vision(ModelSpec("fc"), 4, 12),
    "cnn_valid": lambda: vision(ModelSpec("cnn"), 22, 10),
    "cnn_same": lambda: vision(ModelSpec("cnn", padding="same"), 8, 12),
    "resnet": lambda: vision(ModelSpec("resnet20v1"), 8, 6),
    "resnet_batch_norm": lambda: vision(ModelSpec("resnet20v1", batch_norm=True), 8, 6),
    "frozen": frozen,
    "unused": lambda: network(
        lambda net, x: net.last(net.first(x).relu()),
        first=nn.Linear(6, 5),
        last=nn.Linear(5, 4),
        idle=nn.Linear(6, 5),
        idle_vector=nn.Parameter(torch.randn(3)),
    ),
    "no_bias": lambda: network(
        lambda net, x: net.last(net.first(x).relu()),
        first=nn.Linear(6, 5, bias=False),
        last=nn.Linear(5, 4, bias=False),
    ),
    "called_twice": lambda: network(
        lambda net, x: net.last(net.first(net.first(x).relu()).relu()),
        first=nn.Linear(6, 6),
        last=nn.Linear(6, 4),
    ),
    "shared_weight": shared_weight,
    "tokens": lambda: network(
        lambda net, x: net.last(net.first(x.reshape(-1, 3, 2)).relu().flatten(1)),
        first=nn.Linear(2, 5),
        last=nn.Linear(15, 4),
    ),
    "tokens_merged_with_examples": lambda: network(
        lambda net, x: net.last(net.first(x.reshape(-1, 2)).relu().reshape(-1, 15)),
        first=nn.Linear(2, 5),
        last=nn.Linear(15, 4),
    ),
    "weight_also_used_directly": lambda: network(
        lambda net, x: net.last(
            net.first(x).relu() + nn.functional.linear(x, net.first.weight).tanh()
        ),
        first=nn.Linear(6, 5),
        last=nn.Linear(5, 4),
    ),
    "bias_also_used_directly": lambda: network(
        lambda net, x: net.last(net.first(x).relu() + net.first.bias.tanh()),
        first=nn.Linear(6, 5),
        last=nn.Linear(5, 4),
    ),
    "raw_parameter": lambda: network(
        lambda net, x: net.last((x @ net.matrix).relu()) * net.scale,
        matrix=nn.Parameter(torch.randn(6, 5)),
        scale=nn.Parameter(torch.randn(4)),
        last=nn.Linear(5, 4),
    ),
    # One row whatever the number of examples, then as many rows as there are examples.
    "linear_of_a_vector": lambda: network(
        lambda net, x: net.last((net.first(x) + net.project(net.vector)).relu()),
        first=nn.Linear(6, 5),
        project=nn.Linear(3, 5),
        last=nn.Linear(5, 4),
        vector=nn.Parameter(torch.randn(1, 3)),
    ),
    "linear_of_a_table": lambda: network(
        lambda net, x: net.last(
            (net.first(x)[:, None] * net.project(net.table)).tanh().sum(1),
        ),
        count=8,
        first=nn.Linear(6, 5),
        project=nn.Linear(3, 5),
        last=nn.Linear(5, 4),
        table=nn.Parameter(torch.randn(8, 3)),
    ),
    "called_by_keyword": lambda: network(
        lambda net, x: net.last(net.first(input=x).relu()),
        first=nn.Linear(6, 5),
        last=nn.Linear(5, 4),
    ),
    "relu_in_place": lambda: network(
        lambda net, x: net.last(net.first(x).relu_()),
        first=nn.Linear(6, 5),
        last=nn.Linear(5, 4),
    ),
    "relu_in_place_on_tokens": lambda: network(
        lambda net, x: net.last(net.second(net.first(x.reshape(-1, 3, 2)).relu_()).relu_().sum(1)),
        first=nn.Linear(2, 5),
        second=nn.Linear(5, 5),
        last=nn.Linear(5, 4),
    ),
    "layer_under_no_grad": lambda: network(untracked, first=nn.Linear(6, 5), last=nn.Linear(5, 4)),
    "dict_with_logits": dict_with_logits,
}


@pytest.fixture(params=CASES, ids=str)
def case(request: pytest.FixtureRequest, device: torch.device) -> Case:
    torch.manual_seed(0)
    return CASES[request.param]().to(device)


@pytest.fixture
def make_case(device: torch.device) -> Callable[[str], Case]:
    def make(name: str) -> Case:
        torch.manual_seed(0)
        return CASES[name]().to(device)

    return make


def clusters(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy copies of four patterns: easy to fit, and no two examples alike."""
    targets = torch.arange(40) % 4
    patterns = torch.randn(4, 1, 6, 6, generator=generator)
    return patterns[targets] + 0.5 * torch.randn(40, 1, 6, 6, generator=generator), targets


@pytest.fixture(scope="session")
def trained() -> Case:
    """An FC network part of the way: every example still has an ordinary gradient."""
    inputs, targets = clusters(torch.Generator().manual_seed(0))
    model = build_model(ModelSpec("fc"), (1, 6, 6), 4, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    optimizer.zero_grad()
    return Case(model, inputs, targets)
