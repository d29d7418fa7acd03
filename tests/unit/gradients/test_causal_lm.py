"""Causal language models: the loss of next tokens, its exact gradient, and what is never held."""

import math
import os
from typing import Any

import pytest
import torch
from gradient_cases import measure_peak
from torch import nn

from stiffness import gradient_cosines, gradient_gram
from stiffness.errors import StiffnessError
from stiffness.gradients import causal_lm
from stiffness.gradients.arithmetic import output_gradients
from stiffness.gradients.causal_lm import causal_lm_grads, causal_lm_losses
from stiffness.gradients.output_grads import OutputGrads


class Language(nn.Module):
    """Embedding, a running mean of what came before, head: the loss of t + 1 depends on <= t."""

    def __init__(self, vocabulary: int = 11, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.inner = nn.Linear(width, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)[:, None]
        return self.head(self.inner(self.embed(tokens).cumsum(1) / steps).tanh())


def language() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A float64 network, tokens [5, 7], and targets of which two sequences are partly ignored."""
    torch.manual_seed(0)
    model, tokens = Language().double(), torch.randint(11, (5, 7))
    targets = tokens.clone()
    targets[1, 4:] = targets[2, :3] = causal_lm.IGNORED
    return model, tokens, targets


def looped_gradients(
    model: nn.Module, tokens: torch.Tensor, targets: torch.Tensor, reduction: str
) -> torch.Tensor:
    """[N, P], one sequence at a time, with the loss written as transformers has it."""
    rows = []
    for one, labels in zip(tokens, targets, strict=True):
        logits = model(one[None])[0]
        loss = nn.functional.cross_entropy(logits[:-1], labels[1:], reduction=reduction)
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    return torch.stack(rows)


@pytest.mark.parametrize("room", [0, 2**20], ids=["computed_anew", "stored"])
@pytest.mark.parametrize(("loss", "reduction"), [("causal_lm", "sum"), ("causal_lm_mean", "mean")])
def test_gradients_equal_a_float64_loop_over_sequences(
    monkeypatch: pytest.MonkeyPatch, loss: str, reduction: str, room: int
) -> None:
    model, tokens, targets = language()
    original = OutputGrads.__init__
    monkeypatch.setattr(
        OutputGrads,
        "__init__",
        lambda self, *arguments: original(self, *arguments[:-1], room),
    )
    expected = looped_gradients(model, tokens, targets, reduction)
    gram = gradient_gram(model, tokens, targets, loss)
    torch.testing.assert_close(gram, (expected @ expected.T).float())
    cosines, log_norms = gradient_cosines(model, tokens, targets, loss)
    torch.testing.assert_close(log_norms, expected.norm(dim=1).log(), rtol=1e-10, atol=1e-10)
    unit = nn.functional.normalize(expected)
    torch.testing.assert_close(cosines, (unit @ unit.T).float())


def test_in_float32_arithmetic_it_is_the_same_loss() -> None:
    model, tokens, targets = language()
    expected = looped_gradients(model, tokens, targets, "sum")
    gram = gradient_gram(model.float(), tokens, targets, "causal_lm", arithmetic="float32")
    torch.testing.assert_close(gram, (expected @ expected.T).float(), rtol=1e-4, atol=1e-5)


def test_a_sequence_without_a_predicted_token_has_no_gradient() -> None:
    model, tokens, targets = language()
    targets[3] = causal_lm.IGNORED
    # The first token is predicted from nothing.
    targets[3, 0] = 2
    cosines, log_norms = gradient_cosines(model, tokens, targets, "causal_lm_mean")
    assert log_norms[3] == -math.inf
    assert cosines[3].isnan().all()
    assert cosines[:3, :3].isfinite().all()


def test_slabs_and_dtypes_change_nothing_but_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 5, 9), torch.randint(9, (3, 5))
    whole, log_norms = output_gradients(logits, targets, "causal_lm")
    assert whole.dtype == torch.float64
    torch.testing.assert_close(whole.flatten(1).norm(dim=1), torch.ones(3).double())
    leaf = logits.double().requires_grad_()
    (truth,) = torch.autograd.grad(causal_lm_losses(leaf, targets, False).sum(), leaf)
    torch.testing.assert_close(whole * log_norms.exp()[:, None, None], truth, rtol=1e-12, atol=0)
    monkeypatch.setattr(causal_lm, "_SLAB", 9)
    one_by_one, again = causal_lm_grads(logits, targets, False, torch.float32)
    assert one_by_one.dtype == torch.float32
    torch.testing.assert_close(one_by_one, whole.float())
    torch.testing.assert_close(again, log_norms)


@pytest.mark.parametrize("margin", [30.0, 2000.0])
def test_confident_tokens_keep_their_direction(margin: float) -> None:
    """Of two classes the gradient is (1, -1) / (1 + e^margin), far below float32 and float64."""
    logits = torch.zeros(1, 3, 2)
    logits[..., 1] = margin
    gradient, log_norms = causal_lm_grads(logits, torch.ones(1, 3, dtype=int), False, torch.float32)
    assert gradient[0, :2].flatten().tolist() == pytest.approx([0.5, -0.5, 0.5, -0.5])
    assert not gradient[0, 2].any()
    # Two tokens, each of norm sqrt(2) e^-margin.
    assert float(log_norms) == pytest.approx(math.log(2) - margin, rel=1e-12)


def test_padding_that_was_cut_off_changes_nothing() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(2, 6, 4), torch.randint(4, (2, 6))
    targets[:, 4:] = causal_lm.IGNORED
    whole, log_norms = causal_lm_grads(logits, targets, False, torch.float64)
    cut, again = causal_lm_grads(logits[:, :4], targets, False, torch.float64)
    torch.testing.assert_close(whole[:, :4], cut)
    torch.testing.assert_close(log_norms, again)


def test_single_tokens_are_compared_with_one_another() -> None:
    """The gradient of a sequence is the sum of its tokens', and a token's is found by a loop."""
    model, tokens, targets = language()
    positions = torch.tensor([[0, 1], [0, 6], [1, 3], [4, 2], [0, 6]])
    rows = []
    for example, position in positions.tolist():
        losses = nn.functional.cross_entropy(
            model(tokens[example : example + 1])[0, position - 1], targets[example, position]
        )
        gradients = torch.autograd.grad(losses, list(model.parameters()))
        rows.append(torch.cat([g.flatten() for g in gradients]))
    expected = torch.stack(rows)
    cosines, log_norms = gradient_cosines(model, tokens, targets, "causal_lm", positions=positions)
    unit = nn.functional.normalize(expected)
    torch.testing.assert_close(cosines, (unit @ unit.T).float())
    torch.testing.assert_close(log_norms, expected.norm(dim=1).log(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("positions", "loss", "wrong"),
    [
        ([[0, 1]], "cross_entropy", "need loss=causal_lm"),
        ([0, 1], "causal_lm", "pairs"),
        ([[0, 0]], "causal_lm", "predicted from nothing"),
        ([[0, 1], [5, 1]], "causal_lm", r"\[5, 1\] is no example below 5"),
        ([[0, 7]], "causal_lm", "a position from 1 to 6"),
        ([[1, 4]], "causal_lm", "not predicted"),
    ],
    ids=["loss", "shape", "first", "example", "position", "ignored"],
)
def test_positions_that_are_no_predicted_tokens_are_refused(
    positions: list[Any], loss: str, wrong: str
) -> None:
    model, tokens, targets = language()
    with pytest.raises(StiffnessError, match=f"^positions: .*{wrong}") as caught:
        gradient_cosines(model, tokens, targets, loss, positions=torch.tensor(positions))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.long)),
        (torch.zeros(3, 4, 5), torch.zeros(3, dtype=torch.long)),
        (torch.zeros(3, 4, 5), torch.zeros(3, 3, dtype=torch.long)),
        (torch.zeros(3, 4, 5), torch.zeros(3, 6, dtype=torch.long)),
        (torch.zeros(3, 4, 5), torch.zeros(3, 4)),
        (torch.zeros(3, 4, 5), torch.full((3, 4), 5)),
        (torch.zeros(3, 4, 5), torch.full((3, 4), -1)),
    ],
    ids=["2d", "1d", "short", "long", "float", "too_large", "negative"],
)
def test_wrong_shapes_and_tokens_are_refused(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    with pytest.raises(StiffnessError, match=r"^loss causal_lm: ") as caught:
        output_gradients(outputs, targets, "causal_lm")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's peaks")
def test_outputs_of_a_large_vocabulary_are_never_held() -> None:
    """64 sequences of 256 tokens of 50,257: the outputs are 3.1 GiB, twice that in float64."""
    found = measure_peak("language_cell.py", "4GiB")
    assert found["peak"] <= 4 * 2**30
    # Less than the outputs themselves, so that nothing has held them.
    assert found["peak"] < 64 * 256 * 50257 * 4
    # Of sums of 1.6 million float32 products for each entry.
    assert found["error"] < 1e-4
