"""The loss that is trained on, and what counts as chance in it."""

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import functional

from stiffness.errors import StiffnessError
from stiffness.files import read_table, read_tensors
from stiffness.gradients.gram import gradient_cosines
from stiffness.training.losses import CROSS_ENTROPY, LossSpec, build_loss, chance_loss
from stiffness.training.models import ModelSpec, build_model
from stiffness.training.runs import run_status
from stiffness.training.specs import TrainingSpec
from stiffness.training.train import HISTORY, checkpoint_name, train_segment

LABELS = torch.tensor([0] * 6 + [1] * 3 + [2])
SHARES = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
CODE = """
from torch.nn import functional as F
def same(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")
def shifted(outputs, targets):
    return same(outputs, targets) - 10
def mean(outputs, targets):
    return F.cross_entropy(outputs, targets)
def squares(outputs, targets):
    return ((outputs - F.one_hot(targets, outputs.shape[1])) ** 2).sum(1)
"""


@pytest.fixture(autouse=True)
def losses(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("own_losses.py").write_text(CODE)


def test_plain_cross_entropy_stays_the_one_that_the_engine_knows():
    assert build_loss(LossSpec()) == CROSS_ENTROPY


def test_chance_is_what_the_best_constant_output_reaches():
    entropy = float(-(SHARES * SHARES.log()).sum())
    assert chance_loss(CROSS_ENTROPY, LABELS, 3) == pytest.approx(entropy, rel=1e-12)
    own = build_loss(LossSpec("own_losses.py:same"))
    # L-BFGS ends where the gradient is below its tolerance, 1e-7.
    assert chance_loss(own, LABELS, 3) == pytest.approx(entropy, rel=1e-6)
    # A constant output has the smoothed labels' cross-entropy, smallest at their own shares.
    smoothed = 0.8 * SHARES + 0.2 / 3
    found = chance_loss(build_loss(LossSpec(label_smoothing=0.2)), LABELS, 3)
    assert found == pytest.approx(float(-(smoothed * smoothed.log()).sum()), rel=1e-6)
    # The best constant of squares is the mean of the one-hot targets.
    squares = chance_loss(build_loss(LossSpec("own_losses.py:squares")), LABELS, 3)
    assert squares == pytest.approx(1 - float((SHARES**2).sum()), rel=1e-6)


def test_chance_with_a_class_that_has_no_example():
    own = build_loss(LossSpec("own_losses.py:same"))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    found = chance_loss(own, torch.tensor([0, 2, 2, 2]), 3)
    assert found == pytest.approx(entropy, rel=1e-3)


def test_a_run_below_chance_is_alive_in_a_loss_below_zero():
    for final, status in ((-8.9, "at chance"), (-9.5, "ok")):
        history = pd.DataFrame({"train_loss": [-8.9, final], "chance_loss": [-8.9, -8.9]})
        assert run_status(history) == status


def test_a_loss_that_is_no_loss_per_example():
    with pytest.raises(StiffnessError, match=r"own_losses.py:mean must return one loss per exam"):
        build_loss(LossSpec("own_losses.py:mean"))(torch.zeros(2, 3), torch.tensor([0, 1]))


def test_training_and_gradients_use_the_loss(few_digits, tmp_path):
    spec = LossSpec(label_smoothing=0.2)
    training = TrainingSpec(
        ModelSpec("fc"), "1e-2", 0, batch_size=150, early_checkpoints=0, loss=spec
    )
    output = tmp_path / "epochs=0000-0001"
    train_segment(few_digits, training, 0, 1, None, output, torch.device("cpu"))
    model = build_model(ModelSpec("fc"), few_digits.shape, 10, 0)
    inputs = few_digits.preprocess(few_digits.train_inputs)
    losses = functional.cross_entropy(
        model(inputs), few_digits.train_targets, label_smoothing=0.2, reduction="none"
    )
    history = read_table(output / HISTORY)
    # Sums of float32 outputs in another order.
    assert history["train_loss"][0] == pytest.approx(losses.mean().item(), rel=1e-5)
    assert history["chance_loss"][0] < losses.mean().item()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses.mean().backward()
    optimizer.step()
    trained = read_tensors(output / checkpoint_name(1))[0]
    # One step of Adam is nearly the sign of the gradient; where it is tiny, rounding decides.
    near = torch.isclose(trained["1.weight"], model.state_dict()["1.weight"], atol=1e-5)
    assert near.float().mean() > 0.999
    some, labels = inputs[:6], few_digits.train_targets[:6]
    model = build_model(ModelSpec("fc"), few_digits.shape, 10, 0)
    cosines, _ = gradient_cosines(model, some, labels, loss=build_loss(spec))
    rows = []
    for row in range(6):
        one = functional.cross_entropy(
            model(some[row : row + 1]), labels[row : row + 1], label_smoothing=0.2
        )
        grads = torch.autograd.grad(one, list(model.parameters()))
        rows.append(torch.cat([grad.flatten() for grad in grads]).double())
    units = functional.normalize(torch.stack(rows), dim=1)
    # float32 gradients of about 10^5 entries.
    assert torch.allclose(cosines.double(), units @ units.T, atol=1e-5)
