"""Texts of many lengths: chunks lose their padding, and tokens without a gradient are left out."""

import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, cosine_tile, gradient_cosines
from stiffness.data.batch import MASK, Inputs, take
from stiffness.gradients.families.linear import without_unused
from stiffness.gradients.output_grads import OutputGrads
from stiffness.gradients.plan import make_plan
from stiffness.gradients.reference import reference_gradients
from stiffness.gradients.texts import longest_first, trimmed

N, T = 23, 12


class Reader(nn.Module):
    """Looks at the mean of the tokens, or at the first, or (``careless``) at padding too."""

    def __init__(self, reads: str) -> None:
        super().__init__()
        self.reads, self.widths = reads, []
        self.words, self.wide = nn.Embedding(50, 24), nn.Linear(24, 40)
        self.again, self.out = nn.Linear(40, 40), nn.Linear(40, 3)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self.widths.append(input_ids.shape[1])
        mask = attention_mask[:, :, None]
        hidden = self.again(torch.tanh(self.wide(self.words(input_ids))))
        hidden = hidden + 0.1 * (hidden * mask).cumsum(1)
        if self.reads == "careless":
            return self.out(hidden.mean(1))
        return self.out((hidden * mask).sum(1) if self.reads == "mean" else hidden[:, 0])


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, T + 1, (N,), generator=generator)
    mask = (torch.arange(T) < lengths[:, None]).long()
    ids = torch.randint(50, (N, T), generator=generator)
    return {"input_ids": ids, MASK: mask}


def reader(reads: str) -> Reader:
    torch.manual_seed(1)
    return Reader(reads).eval()


TARGETS = torch.arange(N) % 3


@pytest.mark.filterwarnings("ignore:memory_budget")
@pytest.mark.parametrize("budget", ["4GiB", "600KiB", "100KiB"])
@pytest.mark.parametrize("reads", ["mean", "first", "careless"])
def test_all_routes_agree_with_the_loop(
    inputs: dict[str, torch.Tensor], reads: str, budget: str
) -> None:
    model = reader(reads)
    directions, norms = reference_gradients(model, inputs, TARGETS)
    true = (directions @ directions.T).float()
    cosines, log_norms = gradient_cosines(model, inputs, TARGETS, memory_budget=budget)
    torch.testing.assert_close(cosines, true, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, norms, rtol=0, atol=1e-6)
    first, second = slice(0, 9), slice(9, N)
    tile, one, other = cosine_tile(
        model,
        take(inputs, first),
        TARGETS[first],
        take(inputs, second),
        TARGETS[second],
        memory_budget=budget,
    )
    torch.testing.assert_close(tile, true[first, second], rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.cat([one, other]), norms, rtol=0, atol=1e-6)
    members = [directions[label == TARGETS].double() for label in range(3)]
    within = torch.stack(
        [(m.sum(0).square().sum() - len(m)) / (len(m) ** 2 - len(m)) for m in members]
    )
    means = class_mean_cosine(model, inputs, TARGETS, memory_budget=budget)
    torch.testing.assert_close(means.diagonal(), within, rtol=0, atol=1e-6)


def test_padding_goes_only_where_the_model_cannot_tell(inputs: dict[str, torch.Tensor]) -> None:
    order = longest_first(inputs)
    assert order is not None
    lengths = inputs[MASK].sum(1)[order]
    assert torch.equal(lengths, lengths.sort(descending=True).values)
    in_order: Inputs = take(inputs, order)
    shortest = slice(N - 3, N)
    for reads, width in (("mean", int(lengths[N - 3])), ("careless", T)):
        shorter = trimmed(reader(reads), in_order)
        assert take(shorter, shortest)["input_ids"].shape == (3, width)  # type: ignore[call-overload]
        assert take(shorter, torch.tensor([N - 3, N - 1]))[MASK].shape == (2, width)  # type: ignore[call-overload]
    assert longest_first(take(inputs, slice(0, 1))) is None
    assert longest_first({"input_ids": inputs["input_ids"]}) is None
    assert longest_first(torch.randn(3, 4)) is None


def test_tokens_without_a_gradient_are_left_out() -> None:
    a, d = torch.randn(3, 8, 5), torch.zeros(3, 8, 4)
    d[0, 6], d[1, 2], d[2, 1], d[2, 5] = torch.randn(4, 4)
    fewer, gradients = without_unused(a, d)
    assert fewer.shape == (3, 2, 5)
    expected = torch.einsum("ntq,ntp->nqp", d, a)
    torch.testing.assert_close(torch.einsum("ntq,ntp->nqp", gradients, fewer), expected)
    assert without_unused(a, torch.ones(3, 8, 4))[0] is a


def test_a_layer_of_which_one_token_is_used_is_multiplied_by_factors(
    inputs: dict[str, torch.Tensor],
) -> None:
    plan = make_plan(reader("first"), inputs, OutputGrads(TARGETS), 4, 2**30)
    assert plan.units["again"].form == "factors"
