"""How many loss gradients float32 gets wrong."""

import numpy as np
import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.files import write_tensors
from stiffness.gradients.rounding import measure_rounding, relative_errors
from stiffness.training.models import ModelSpec, build_model


def test_errors_grow_with_confidence():
    margins = torch.tensor([0.0, 1.0, 5.0, 12.0, 18.0, 40.0, 300.0, 2000.0])
    outputs = torch.zeros(8, 3)
    outputs[:, 0] = margins
    errors = relative_errors(outputs, torch.zeros(8, dtype=torch.int64))
    assert (errors[:3] < 1e-4).all()
    assert errors[4] > 0.01  # 1 - p is 3e-8, half the spacing of float32 below 1
    np.testing.assert_allclose(errors[-1], 1)  # lost altogether
    assert torch.isfinite(errors).all()


def test_errors_are_relative_to_float64():
    torch.manual_seed(0)
    outputs, targets = 8 * torch.randn(50, 4), torch.randint(4, (50,))
    own = torch.nn.functional.one_hot(targets, 4)
    log_p = outputs.double().log_softmax(1)
    exact = torch.where(own == 1, log_p.expm1(), log_p.exp())
    plain = torch.softmax(outputs, 1) - own
    expected = (plain.double() - exact).norm(dim=1) / exact.norm(dim=1)
    found = relative_errors(outputs, targets)
    assert ((found > 0.01) == (expected > 0.01)).float().mean() > 0.95
    assert found.min() < 1e-5


@pytest.fixture
def segment(tmp_path):
    """Checkpoints of one network, of which the second is a hundred times as confident."""
    spec = ModelSpec("fc")
    model = build_model(spec, (1, 4, 4), 3, seed=0)
    for step, factor in ((0, 1.0), (10, 100.0)):
        weights = {name: factor * value for name, value in model.state_dict().items()}
        path = tmp_path / f"step={step:08d}.safetensors"
        write_tensors(path, weights, {"step": step, "epoch": step / 10})
    torch.manual_seed(0)
    inputs = torch.randn(60, 1, 4, 4)
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    evaluation = Evaluation(inputs, targets, torch.arange(60), 40, ["a", "b", "c"])
    return tmp_path, evaluation, spec


def test_shares_with_intervals(segment):
    folder, evaluation, spec = segment
    table = measure_rounding(folder, evaluation, spec, torch.device("cpu"))
    assert len(table) == 2 * 2 * 2
    assert set(table["n_examples"]) == {40, 20}
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    shares = table.set_index(["step", "split", "quantity"])["value"]
    assert shares[0, "train", "wrong"] == 0
    assert shares[10, "train", "wrong"] > 0.9
    assert shares[10, "train", "zero"] <= shares[10, "train", "wrong"]
