"""The same bits whatever the cuts and interruptions."""

import errno
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from training_cases import (
    CNN,
    FC,
    NORM,
    assert_same_run,
    history,
    interrupted,
    segment,
)

from stiffness.data.arrays import Arrays
from stiffness.errors import StiffnessError
from stiffness.files import read_metadata
from stiffness.training import train
from stiffness.training.models import ModelSpec
from stiffness.training.train import (
    HISTORY,
    STATE,
)

pytestmark = pytest.mark.usefixtures("on")


# --- chains --------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [FC, CNN, NORM], ids=["fc", "cnn", "batch norm"])
@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_a_chain_equals_one_run(few_digits, tmp_path, spec, augmentation):
    spec = replace(spec, augmentation=augmentation)
    ends = [0, 1, 2] if spec.model.name == "resnet20v1" else [0, 1, 3, 4]
    if spec.model.name == "resnet20v1":
        few_digits = Arrays.from_images(
            few_digits.train_inputs[:64],
            few_digits.train_targets[:64],
            few_digits.validation_inputs,
            few_digits.validation_targets,
            few_digits.class_names,
        )
    whole = segment(few_digits, spec, 0, ends[-1], None, tmp_path / "whole")
    chain: list[Path] = []
    for start, end in pairwise(ends):
        previous = chain[-1] if chain else None
        chain.append(segment(few_digits, spec, start, end, previous, tmp_path / f"{start}-{end}"))
    assert_same_run(chain, [whole])
    metadata = read_metadata(chain[-1] / STATE)
    assert metadata["step"] == ends[-1] * metadata["steps_per_epoch"]


def test_a_previous_segment_that_ends_elsewhere_is_named(few_digits, whole, tmp_path):
    with pytest.raises(StiffnessError, match="ends at epoch 3, not 2") as raised:
        segment(few_digits, FC, 2, 4, whole, tmp_path / "run")
    assert str(whole) in str(raised.value)


def test_a_previous_segment_of_another_model_is_named(few_digits, whole, tmp_path):
    with pytest.raises(StiffnessError, match="a checkpoint of another model than") as raised:
        segment(few_digits, CNN, 3, 4, whole, tmp_path / "run")
    assert str(raised.value).startswith(str(whole / STATE))


@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_an_unreadable_previous_segment_is_named(few_digits, tmp_path, damage):
    previous = tmp_path / "previous"
    previous.mkdir()
    if damage == "truncated":
        (previous / STATE).write_bytes(b"\0" * 20)
    with pytest.raises(StiffnessError) as raised:
        segment(few_digits, FC, 3, 4, previous, tmp_path / "run")
    assert str(raised.value).startswith(str(previous / STATE))


def test_a_finished_folder_is_replaced(few_digits, whole, tmp_path):
    output = tmp_path / "run"
    output.mkdir()
    (output / "old").touch()
    segment(few_digits, FC, 0, 3, None, output)
    assert not (output / "old").exists()
    assert_same_run([output], [whole])


# --- interruptions -------------------------------------------------------------------------------


@pytest.mark.parametrize("done", [1, 2, 3])
def test_an_interrupted_segment_goes_on(few_digits, whole, tmp_path, monkeypatch, done):
    output = tmp_path / "epochs=0000-0003"
    with interrupted(monkeypatch, "_log_progress", done, KeyboardInterrupt()):
        segment(few_digits, FC, 0, 3, None, output)
    assert not output.exists()
    segment(few_digits, FC, 0, 3, None, output)
    assert_same_run([output], [whole])
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_finished_epochs_are_not_trained_again(
    few_digits, tmp_path, monkeypatch, trained_epochs, done
):
    if done:
        with interrupted(monkeypatch, "_log_progress", done, KeyboardInterrupt()):
            segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert trained_epochs == list(range(done))
    trained_epochs.clear()
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert trained_epochs == list(range(done, 3))


def test_two_interruptions(few_digits, whole, tmp_path, monkeypatch):
    for _ in range(2):
        with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
            segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


# Calls of _evaluate: two a record; records at steps 0, some early ones, 5, 10 and 15.
@pytest.mark.parametrize("call", [1, 2, 4, -4, -1])
def test_an_interruption_within_an_epoch(few_digits, whole, tmp_path, monkeypatch, call):
    calls = 2 * len(history(whole))
    with interrupted(monkeypatch, "_evaluate", call % (calls + 1), KeyboardInterrupt()):
        segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


def test_an_interrupted_later_segment_goes_on(few_digits, whole, tmp_path, monkeypatch):
    first = segment(few_digits, FC, 0, 1, None, tmp_path / "first")
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, FC, 1, 3, first, tmp_path / "second")
    second = segment(few_digits, FC, 1, 3, first, tmp_path / "second")
    assert_same_run([first, second], [whole])


@pytest.mark.parametrize("name", [HISTORY, STATE])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_full_disk_while_saving(few_digits, whole, tmp_path, monkeypatch, name, epoch):
    """History and state are two files: one of them may be an epoch ahead of the other."""
    writer = "write_table" if name == HISTORY else "write_tensors"
    original = getattr(train, writer)
    saves = 0

    def fail(path, *args):
        nonlocal saves
        saves += Path(path).name == name
        if Path(path).name == name and saves == epoch:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        original(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(train, writer, fail)
        with pytest.raises(OSError, match="No space left"):
            segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


@pytest.mark.parametrize("name", [HISTORY, STATE])
def test_a_damaged_unfinished_folder_is_started_over(
    few_digits, whole, tmp_path, monkeypatch, name
):
    with interrupted(monkeypatch, "_log_progress", 2, KeyboardInterrupt()):
        segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    (tmp_path / ".run.unfinished" / name).write_bytes(b"\0" * 20)
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": "3e-3"},
        {"seed": 1},
        {"batch_size": 50},
        {"early_checkpoints": 0},
        {"augmentation": "crop_flip"},
        {"model": ModelSpec("fc", initialization="pytorch")},
        {"model": ModelSpec("cnn", padding="same")},
    ],
    ids=str,
)
def test_an_unfinished_folder_of_other_parameters_is_discarded(
    few_digits, whole, tmp_path, monkeypatch, change
):
    with interrupted(monkeypatch, "_log_progress", 2, KeyboardInterrupt()):
        segment(few_digits, replace(FC, **change), 0, 3, None, tmp_path / "run")
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


def test_an_unfinished_folder_of_other_data_is_discarded(few_digits, whole, tmp_path, monkeypatch):
    shifted = replace(few_digits, validation_targets=few_digits.validation_targets.flip(0))
    with interrupted(monkeypatch, "_log_progress", 2, KeyboardInterrupt()):
        segment(shifted, FC, 0, 3, None, tmp_path / "run")
    segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([tmp_path / "run"], [whole])


def test_an_unfinished_folder_of_other_code_is_discarded(
    few_digits, tmp_path, monkeypatch, trained_epochs
):
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    monkeypatch.setattr(train, "_code_digest", lambda: "other")
    segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    assert trained_epochs == [0, 0, 1]


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("spec", [FC, CNN])
def test_a_training_on_two_threads_goes_on_with_two_and_ends_the_same(
    few_digits, tmp_path, monkeypatch, trained_epochs, spec
):
    expected = segment(few_digits, spec, 0, 3, None, tmp_path / "expected")
    trained_epochs.clear()
    with interrupted(monkeypatch, "_log_progress", 2, KeyboardInterrupt()):
        segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    assert trained_epochs == [0, 1, 2]
    assert_same_run([tmp_path / "run"], [expected])


@pytest.mark.usefixtures("two_threads")
def test_an_unfinished_folder_of_another_number_of_threads_is_discarded(
    few_digits, tmp_path, monkeypatch, trained_epochs
):
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    torch.set_num_threads(1)
    segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    assert trained_epochs == [0, 0, 1]


def test_an_unfinished_folder_of_another_previous_segment_is_discarded(
    few_digits, tmp_path, monkeypatch
):
    chains = []
    for rate in ("1e-3", "3e-3"):
        spec = replace(FC, learning_rate=rate)
        chains.append(segment(few_digits, spec, 0, 1, None, tmp_path / rate))
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, FC, 1, 3, chains[1], tmp_path / "run")
    segment(few_digits, FC, 1, 3, chains[0], tmp_path / "run")
    expected = segment(few_digits, FC, 1, 3, chains[0], tmp_path / "expected")
    assert_same_run([tmp_path / "run"], [expected])
