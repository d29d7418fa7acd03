"""Class stiffness of a whole training set, against the Gram matrix of all its examples."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stiffness import gradient_cosines
from stiffness.data.arrays import Arrays
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.gradients.whole_set import COLUMNS, measure_whole_set
from stiffness.training.models import ModelSpec, build_model

SPEC = ModelSpec("cnn", padding="same")
CPU = torch.device("cpu")


@pytest.fixture
def checkpoints(few_digits: Arrays, tmp_path: Path) -> Path:
    """Three networks that were never trained."""
    for step in (0, 5, 90):
        model = build_model(SPEC, few_digits.shape, 10, seed=step)
        path = tmp_path / f"step={step:08d}.safetensors"
        write_tensors(path, model.state_dict(), {"step": step, "epoch": step / 5})
    return tmp_path


def test_cells_are_mean_cosines_over_all_pairs(
    few_digits: Arrays, checkpoints: Path, device: torch.device
) -> None:
    table = measure_whole_set(checkpoints, few_digits, SPEC, device, "4GiB")
    assert list(table.columns) == COLUMNS
    assert table["step"].drop_duplicates().tolist() == [0, 5, 90]
    assert set(table["n_examples"]) == {150}
    assert set(table["n_excluded"]) == {0}
    model = build_model(SPEC, few_digits.shape, 10, seed=5)
    inputs = few_digits.preprocess(few_digits.train_inputs)
    cosines, _ = gradient_cosines(model, inputs, few_digits.train_targets)
    assert isinstance(cosines, torch.Tensor)
    cosines.fill_diagonal_(torch.nan)  # no pairs
    for row in table[table["step"] == 5].itertuples():
        assert row.epoch == 1
        a, b = (
            few_digits.train_targets == few_digits.class_names.index(name)
            for name in (row.class_a, row.class_b)
        )
        assert row.value == pytest.approx(float(cosines[a][:, b].nanmean()), abs=1e-5)


def test_a_small_budget_changes_nothing(
    few_digits: Arrays, checkpoints: Path, device: torch.device
) -> None:
    ample, small = (
        measure_whole_set(checkpoints, few_digits, SPEC, device, budget, steps={5})
        for budget in ("4GiB", "2MiB")
    )
    assert (ample["value"] - small["value"]).abs().max() < 1e-6


def test_only_the_steps_asked_for(few_digits: Arrays, checkpoints: Path) -> None:
    table = measure_whole_set(checkpoints, few_digits, SPEC, CPU, "4GiB", steps={90, 7})
    assert table["step"].drop_duplicates().tolist() == [90]
    nothing = measure_whole_set(checkpoints, few_digits, SPEC, CPU, "4GiB", steps=set())
    assert list(nothing.columns) == COLUMNS
    assert nothing.empty


def test_images_are_preprocessed_some_at_a_time(
    few_digits: Arrays, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def preprocess(self: Arrays, inputs: torch.Tensor) -> torch.Tensor:
        taken.append(len(inputs))
        return self.normalization(inputs)  # type: ignore[misc]

    monkeypatch.setattr(Arrays, "preprocess", preprocess)
    measure_whole_set(checkpoints, few_digits, SPEC, CPU, "4MiB", steps={0})
    assert max(taken) < 150
    assert sum(taken) >= 2 * 150  # for the norms, and for the sums


def test_a_checkpoint_that_cannot_be_measured_is_named(
    few_digits: Arrays, checkpoints: Path
) -> None:
    bad = checkpoints / "step=00000005.safetensors"
    model = build_model(SPEC, few_digits.shape, 10, seed=0)
    weights = {name: torch.full_like(p, torch.nan) for name, p in model.state_dict().items()}
    write_tensors(bad, weights, {"step": 5, "epoch": 1.0})
    with pytest.raises(StiffnessError, match=r"step=00000005\.safetensors: model: its outputs"):
        measure_whole_set(checkpoints, few_digits, SPEC, CPU, "4GiB")
    fewer = replace(few_digits, class_names=few_digits.class_names[:9])
    with pytest.raises(StiffnessError, match="a checkpoint of another model"):
        measure_whole_set(checkpoints, fewer, SPEC, CPU, "4GiB")
