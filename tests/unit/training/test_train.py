"""Training: the same bits whatever the cuts and interruptions, and what is recorded."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.errors import StiffnessError
from stiffness.files import read_metadata, read_table, read_tensors
from stiffness.training import train
from stiffness.training.augmentation import crop_flip
from stiffness.training.models import ModelSpec, build_model, load_weights
from stiffness.training.schedule import checkpoint_steps
from stiffness.training.specs import OptimizerSpec, TrainingSpec
from stiffness.training.train import (
    HISTORY,
    HISTORY_COLUMNS,
    STATE,
    checkpoint_name,
    train_segment,
)

FC = TrainingSpec(ModelSpec("fc"), "1e-3", seed=0, batch_size=32, early_checkpoints=2)
CNN = replace(FC, model=ModelSpec("cnn", padding="same"), learning_rate="3e-3")
NORM = replace(FC, model=ModelSpec("resnet20v1", batch_norm=True))
STEPS = 5  # an epoch of 150 examples


ON: dict[str, torch.device] = {}  # the device, for all tests of this file


@pytest.fixture(autouse=True, scope="module")
def on(device: torch.device) -> None:
    ON["device"] = device


def segment(arrays, spec, start, end, previous, output) -> Path:
    train_segment(arrays, spec, start, end, previous, output, ON["device"])
    return Path(output)


def history(*folders: Path) -> pd.DataFrame:
    return pd.concat([read_table(folder / HISTORY) for folder in folders], ignore_index=True)


def checkpoints(*folders: Path) -> dict[str, Path]:
    return {path.name: path for folder in folders for path in folder.glob("step=*")}


def assert_same_tensors(first: Path, second: Path) -> None:
    ours, theirs = read_tensors(first)[0], read_tensors(second)[0]
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def assert_same_run(ours: list[Path], theirs: list[Path]) -> None:
    """Same checkpoints, last state and history, bit for bit."""
    first, second = checkpoints(*ours), checkpoints(*theirs)
    assert first.keys() == second.keys()
    for name, path in first.items():
        assert_same_tensors(path, second[name])
    assert_same_tensors(ours[-1] / STATE, theirs[-1] / STATE)
    pd.testing.assert_frame_equal(history(*ours), history(*theirs), check_exact=True)


@pytest.fixture(scope="module")
def whole(few_digits, tmp_path_factory, on) -> Path:
    """Three epochs of FC without interruption."""
    output = tmp_path_factory.mktemp("whole") / "epochs=0000-0003"
    return segment(few_digits, FC, 0, 3, None, output)


@contextmanager
def interrupted(monkeypatch, name: str, call: int, error: BaseException) -> Iterator[None]:
    """Make the ``call``-th call of a name in train.py raise, and expect that it does."""
    calls = 0
    original = getattr(train, name)

    def interrupt(*args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == call:
            raise error
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, name, interrupt)
        with pytest.raises(type(error)):
            yield
    assert calls == call


@pytest.fixture
def trained_epochs(monkeypatch) -> list[int]:
    """Filled with the epochs (from 0) that are trained."""
    epochs = []
    original = train.Run.train_epoch

    def count(run, work):
        epochs.append(run.epoch)
        original(run, work)

    monkeypatch.setattr(train.Run, "train_epoch", count)
    return epochs


# --- what is written -----------------------------------------------------------------------------


def test_the_checkpoints_that_the_schedule_asks_for(whole):
    steps = checkpoint_steps(0, 3, STEPS, FC.early_checkpoints)
    assert sorted(checkpoints(whole)) == [checkpoint_name(step) for step in steps]
    assert history(whole)["step"].tolist() == steps


def test_nothing_unfinished_is_left(whole):
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]
    expected = {HISTORY, STATE, *checkpoints(whole)}
    assert {path.name for path in whole.iterdir()} == expected


def test_history_columns(whole):
    table = history(whole)
    assert table.columns.tolist() == HISTORY_COLUMNS
    np.testing.assert_array_equal(table["epoch"], table["step"] / STEPS)
    assert np.isfinite(table).all(axis=None)


def test_the_first_checkpoint_is_the_initialisation(whole, few_digits):
    model = build_model(FC.model, (1, 8, 8), 10, FC.seed)
    tensors, metadata = read_tensors(whole / checkpoint_name(0))
    for name, parameter in model.state_dict().items():
        assert torch.equal(tensors[name], parameter)
    assert metadata["step"] == 0
    assert metadata["model"]["name"] == "fc"


@pytest.mark.parametrize("row", [0, -1])
def test_recorded_losses_and_accuracies_are_those_of_the_checkpoint(whole, few_digits, row):
    recorded = history(whole).iloc[row]
    path = whole / checkpoint_name(int(recorded["step"]))
    model = build_model(FC.model, (1, 8, 8), 10, seed=99)
    load_weights(model, read_tensors(path)[0], str(path), "fc")
    for split in ("train", "validation"):
        inputs = few_digits.normalization(getattr(few_digits, f"{split}_inputs"))
        targets = getattr(few_digits, f"{split}_targets").numpy()
        with torch.inference_mode():
            outputs = model.double()(inputs.double()).numpy()
        exponents = np.exp(outputs - outputs.max(1, keepdims=True))
        chosen = exponents[np.arange(len(targets)), targets] / exponents.sum(1)
        # The recorded loss is of a float32 forward pass.
        assert recorded[f"{split}_loss"] == pytest.approx(-np.log(chosen).mean(), rel=1e-5)
        accuracy = (outputs.argmax(1) == targets).mean()
        assert recorded[f"{split}_accuracy"] == pytest.approx(accuracy, abs=1e-12)


def test_chance_is_the_best_that_ignores_the_input(whole, few_digits):
    shares = np.bincount(few_digits.train_targets) / 150
    table = history(whole)
    assert table["chance_loss"].unique() == pytest.approx([-(shares * np.log(shares)).sum()])
    assert table["chance_accuracy"].unique() == pytest.approx([shares.max()])


def test_chance_with_a_class_that_is_not_in_the_training_set(few_digits, tmp_path):
    rows = few_digits.train_targets < 2
    arrays = replace(
        few_digits,
        train_inputs=few_digits.train_inputs[rows],
        train_targets=few_digits.train_targets[rows],
    )
    output = segment(arrays, FC, 0, 1, None, tmp_path / "run")
    shares = np.bincount(arrays.train_targets) / len(arrays.train_targets)
    assert len(shares) == 2
    assert history(output)["chance_loss"][0] == pytest.approx(-(shares * np.log(shares)).sum())


@pytest.fixture
def stripes() -> Arrays:
    """Horizontal against vertical stripes in noise: classes that no crop or flip changes."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 150, (300, 1, 12, 12), generator=generator, dtype=torch.uint8)
    targets = torch.arange(300) % 2
    inputs[0::2, :, ::2, :] += 100
    inputs[1::2, :, :, ::2] += 100
    return Arrays.from_images(inputs[:200], targets[:200], inputs[200:], targets[200:], ["-", "|"])


@pytest.mark.parametrize("augmentation", ["none", "crop_flip"])
def test_it_learns(stripes, tmp_path, augmentation):
    spec = replace(CNN, augmentation=augmentation)
    table = history(segment(stripes, spec, 0, 6, None, tmp_path / "run"))
    assert table["train_loss"].iloc[0] == pytest.approx(np.log(2), abs=0.05)
    assert table["train_loss"].iloc[-1] < 0.5 * table["chance_loss"].iloc[-1]
    assert table["validation_accuracy"].iloc[-1] > 0.9


def test_augmentation_changes_the_training_and_not_the_evaluation(few_digits, whole, tmp_path):
    spec = replace(FC, augmentation="crop_flip")
    table = history(segment(few_digits, spec, 0, 1, None, tmp_path / "run"))
    plain = history(whole)
    assert table.iloc[0].equals(plain.iloc[0])
    assert table["train_loss"].iloc[-1] != plain["train_loss"][plain["epoch"] == 1].item()


def test_the_seed_decides_the_order_too(few_digits, whole, tmp_path, monkeypatch):
    same_start = build_model(FC.model, (1, 8, 8), 10, FC.seed)
    monkeypatch.setattr(train, "build_model", lambda *_: same_start)
    other = segment(few_digits, replace(FC, seed=1), 0, 1, None, tmp_path / "run")
    assert_same_tensors(other / checkpoint_name(0), whole / checkpoint_name(0))
    last = checkpoint_name(STEPS)
    ours, theirs = read_tensors(other / last)[0], read_tensors(whole / last)[0]
    assert not torch.equal(ours["1.weight"], theirs["1.weight"])


def test_every_epoch_sees_every_example_once_in_a_new_order(few_digits, tmp_path, monkeypatch):
    batches = []
    original = train.Run._augmented

    def watch(run, batch, generator):
        batches.append(batch.tolist())
        return original(run, batch, generator)

    monkeypatch.setattr(train.Run, "_augmented", watch)
    segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    assert [len(batch) for batch in batches] == [32, 32, 32, 32, 22] * 2
    first, second = (
        [row for batch in part for row in batch] for part in (batches[:STEPS], batches[STEPS:])
    )
    assert sorted(first) == sorted(second) == list(range(150))
    assert first != second
    assert first != sorted(first)


def test_every_batch_is_augmented_anew(few_digits, tmp_path, monkeypatch):
    states = set()

    def watch(images, normalization, generator):
        states.add(bytes(generator.get_state().numpy()))
        return crop_flip(images, normalization, generator)

    monkeypatch.setattr(train, "crop_flip", watch)
    segment(few_digits, replace(FC, augmentation="crop_flip"), 0, 2, None, tmp_path / "run")
    assert len(states) == 2 * STEPS


def test_looking_does_not_change_the_training(few_digits, tmp_path, monkeypatch):
    """Batch normalisation would show a training that goes on in evaluation mode."""
    looked = segment(few_digits, NORM, 0, 1, None, tmp_path / "looked")
    assert len(checkpoints(looked)) > 3
    monkeypatch.setattr(train, "checkpoint_steps", lambda start, end, steps, *_: [end * steps])
    unseen = segment(few_digits, NORM, 0, 1, None, tmp_path / "unseen")
    assert len(checkpoints(unseen)) == 2
    assert_same_tensors(looked / STATE, unseen / STATE)


def test_the_first_update_is_adam_on_the_mean_cross_entropy(few_digits, tmp_path):
    """With all examples in one batch the order does not matter."""
    spec = replace(FC, batch_size=150, early_checkpoints=0)
    output = segment(few_digits, spec, 0, 1, None, tmp_path / "run")
    model = build_model(FC.model, (1, 8, 8), 10, FC.seed)
    inputs = few_digits.normalization(few_digits.train_inputs)
    loss = torch.nn.functional.cross_entropy(model(inputs), few_digits.train_targets)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    found = read_tensors(output / checkpoint_name(1))[0]
    for (name, before), gradient in zip(model.named_parameters(), gradients, strict=True):
        # Adam's first step is -rate * g / (|g| + 1e-8); tiny entries depend on the summation.
        sure = gradient.abs() > 1e-5
        step = (found[name] - before.detach())[sure]
        np.testing.assert_allclose(step, -1e-3 * gradient[sure].sign(), rtol=2e-3)


def test_the_global_generator_is_left_alone(few_digits, tmp_path):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    segment(few_digits, replace(FC, augmentation="crop_flip"), 0, 1, None, tmp_path / "run")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_global_generator_does_not_matter(few_digits, whole, tmp_path):
    torch.manual_seed(6)
    again = segment(few_digits, FC, 0, 3, None, tmp_path / "run")
    assert_same_run([again], [whole])


def test_a_progress_line_an_epoch(few_digits, tmp_path, caplog):
    caplog.set_level("INFO")
    output = segment(few_digits, FC, 0, 2, None, tmp_path / "run")
    lines = caplog.messages
    assert len(lines) == 2
    table = history(output)
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(
            rf"epoch {number}/2: loss (\S+) accuracy (\S+), "
            r"validation loss (\S+) accuracy (\S+), (\d+):(\d\d) left",
            line,
        )
        assert match, line
        row = table[table["epoch"] == number].iloc[0]
        found = [float(text) for text in match.groups()[:4]]
        names = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
        np.testing.assert_allclose(found, row[names].astype(float), atol=5.1e-5)
    assert lines[-1].endswith(" 0:00 left")


def test_time_left(caplog, whole):
    caplog.set_level("INFO")

    class Run:
        epoch, step = 3, 3 * STEPS
        history = history(whole).to_dict("records")

    train._log_progress(Run, 9, 125.4)
    assert caplog.messages[-1].endswith(", 2:05 left")


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


# --- divergence ----------------------------------------------------------------------------------


def assert_diverged(folder: Path) -> None:
    table = history(folder)
    assert not np.isfinite(table["train_loss"].iloc[-1])
    assert np.isfinite(table["train_loss"].iloc[:-1]).all()
    assert sorted(checkpoints(folder)) == [checkpoint_name(step) for step in table["step"][:-1]]
    for path in checkpoints(folder).values():
        for name, tensor in read_tensors(path)[0].items():
            assert torch.isfinite(tensor).all(), f"{path}: {name}"
    assert read_metadata(folder / STATE)["diverged"] is True


@pytest.mark.parametrize("early_checkpoints", [0, 3])
def test_a_rate_that_is_far_too_large(few_digits, tmp_path, early_checkpoints):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=early_checkpoints)
    assert_diverged(segment(few_digits, spec, 0, 3, None, tmp_path / "run"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run(
    few_digits, whole, tmp_path, monkeypatch, trained_epochs, value
):
    original = train._evaluate
    calls = 0

    def evaluate(*args):
        nonlocal calls
        calls += 1
        loss, accuracy = original(*args)
        # Two a record: from the end of the second epoch on
        return (loss if calls <= 2 * len(history(whole)) - 4 else value), accuracy

    monkeypatch.setattr(train, "_evaluate", evaluate)
    first = segment(few_digits, FC, 0, 3, None, tmp_path / "first")
    assert_diverged(first)
    assert history(first)["epoch"].iloc[-1] == 2
    assert trained_epochs == [0, 1]


def test_the_segment_after_a_divergence_is_empty(few_digits, tmp_path, trained_epochs):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=0)
    first = segment(few_digits, spec, 0, 1, None, tmp_path / "first")
    trained_epochs.clear()
    chain = [first]
    for start in (1, 2):
        chain.append(segment(few_digits, spec, start, start + 1, chain[-1], tmp_path / str(start)))
    assert trained_epochs == []
    for folder in chain[1:]:
        assert checkpoints(folder) == {}
        assert len(history(folder)) == 0
        assert history(folder).columns.tolist() == HISTORY_COLUMNS
        assert read_metadata(folder / STATE)["diverged"] is True
    assert len(history(*chain)) == len(history(first))


def test_an_interrupted_divergence_stays_one(few_digits, tmp_path, monkeypatch, trained_epochs):
    spec = replace(FC, learning_rate="1e20", early_checkpoints=0)
    expected = segment(few_digits, spec, 0, 3, None, tmp_path / "expected")
    trained_epochs.clear()
    with interrupted(monkeypatch, "_log_progress", 1, KeyboardInterrupt()):
        segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    output = segment(few_digits, spec, 0, 3, None, tmp_path / "run")
    assert trained_epochs == [0]
    assert_diverged(output)
    pd.testing.assert_frame_equal(history(output), history(expected))


# --- optimisers, warm-up, mixed precision --------------------------------------------------------

OPTIMIZERS = {
    "adamw": OptimizerSpec("adamw", weight_decay=0.1),
    "sgd": OptimizerSpec("sgd", momentum=0.9, weight_decay=0.01),
    "plain_sgd": OptimizerSpec("sgd"),
    "warm_up": OptimizerSpec("adam", warmup_epochs=1.5),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_is_cut_without_a_trace(few_digits, tmp_path, name):
    spec = replace(FC, optimizer=OPTIMIZERS[name], learning_rate="1e-2")
    whole = segment(few_digits, spec, 0, 2, None, tmp_path / "whole")
    first = segment(few_digits, spec, 0, 1, None, tmp_path / "first")
    second = segment(few_digits, spec, 1, 2, first, tmp_path / "second")
    assert_same_run([whole], [first, second])
    losses = history(whole)["train_loss"]
    assert losses.iloc[-1] < losses.iloc[0]


def first_update(few_digits, folder, spec) -> torch.Tensor:
    output = segment(few_digits, spec, 0, 1, None, folder)
    before, after = (
        read_tensors(output / checkpoint_name(step))[0]["1.weight"].double() for step in (0, 1)
    )
    return after - before


def test_a_warm_up_of_ten_steps_takes_a_tenth_of_the_first_step(few_digits, tmp_path):
    full = replace(FC, optimizer=OptimizerSpec("sgd"), learning_rate="1e-1")
    slow = replace(full, optimizer=OptimizerSpec("sgd", warmup_epochs=10 / STEPS))
    ratio = first_update(few_digits, tmp_path / "slow", slow).norm() / (
        first_update(few_digits, tmp_path / "full", full).norm()
    )
    assert float(ratio) == pytest.approx(0.1, rel=1e-3)


def test_sgd_steps_along_the_gradient_and_decay_adds_the_weights(few_digits, tmp_path):
    plain = replace(FC, optimizer=OptimizerSpec("sgd"), learning_rate="1e-1")
    decayed = replace(plain, optimizer=OptimizerSpec("sgd", weight_decay=0.5))
    weights = build_model(FC.model, (1, 8, 8), 10, 0).state_dict()["1.weight"].double()
    difference = first_update(few_digits, tmp_path / "decayed", decayed) - (
        first_update(few_digits, tmp_path / "plain", plain)
    )
    torch.testing.assert_close(difference, -0.1 * 0.5 * weights, rtol=1e-3, atol=1e-7)


def test_an_unknown_optimiser_is_named(few_digits, tmp_path):
    spec = replace(FC, optimizer=OptimizerSpec("lion"))
    with pytest.raises(
        StiffnessError, match=r"optimizer: unknown 'lion'; known: .*adam, .*adamw, .*sgd"
    ):
        segment(few_digits, spec, 0, 1, None, tmp_path / "out")


def test_mixed_precision_trains_other_weights_to_a_similar_loss(few_digits, whole, tmp_path):
    spec = replace(FC, mixed_precision=True)
    mixed = segment(few_digits, spec, 0, 3, None, tmp_path / "mixed")
    losses, full = history(mixed)["train_loss"], history(whole)["train_loss"]
    assert losses.iloc[0] == full.iloc[0]  # measured in float32
    assert losses.iloc[-1] != full.iloc[-1]
    assert losses.iloc[-1] == pytest.approx(full.iloc[-1], rel=0.05)
    weights = read_tensors(mixed / checkpoint_name(3 * STEPS))[0]["1.weight"]
    assert weights.dtype == torch.float32
    assert not torch.equal(weights, weights.bfloat16().float())


def test_keras_arithmetic_trains_other_weights_to_a_similar_loss(few_digits, whole, tmp_path):
    spec = replace(FC, training_arithmetic="keras")
    clipped = segment(few_digits, spec, 0, 3, None, tmp_path / "clipped")
    losses, full = history(clipped)["train_loss"], history(whole)["train_loss"]
    assert losses.iloc[0] == full.iloc[0]  # the exact cross-entropy of the same weights
    assert losses.iloc[-1] != full.iloc[-1]
    # Few examples are confident after three epochs: rounding alone parts the two runs.
    assert losses.iloc[-1] == pytest.approx(full.iloc[-1], rel=0.05)


def test_a_history_on_some_examples(few_digits, whole, tmp_path):
    spec = replace(FC, history_examples=60)
    some = segment(few_digits, spec, 0, 3, None, tmp_path / "some")
    assert_same_tensors(some / checkpoint_name(3 * STEPS), whole / checkpoint_name(3 * STEPS))
    ours, all_examples = history(some), history(whole)
    assert (ours["train_loss"] != all_examples["train_loss"]).all()
    np.testing.assert_allclose(ours["train_loss"], all_examples["train_loss"], rtol=0.2)
    # Accuracies are multiples of 1/60.
    hits = ours["validation_accuracy"] * 60
    np.testing.assert_allclose(hits, np.round(hits), atol=1e-9)
    more = replace(FC, history_examples=10**6)
    every = segment(few_digits, more, 0, 1, None, tmp_path / "every")
    assert (history(every)["train_loss"] == all_examples["train_loss"][: len(history(every))]).all()


def test_a_later_segment_reports_before_its_first_checkpoint(few_digits, tmp_path, caplog):
    caplog.set_level("INFO")
    spec = replace(FC, checkpoint_interval=2)
    first = segment(few_digits, spec, 0, 1, None, tmp_path / "first")
    caplog.clear()
    second = segment(few_digits, spec, 1, 4, first, tmp_path / "second")
    lines = caplog.messages
    assert [line.split(":")[0] for line in lines] == [f"epoch {n}/4" for n in (2, 3, 4)]
    assert list(history(second)["epoch"]) == [2, 4]
    assert "(at epoch 2)" in lines[1]
    other = replace(spec, checkpoint_interval=3)
    third = segment(few_digits, other, 1, 3, first, tmp_path / "third")
    assert "no checkpoint yet" in caplog.text
    assert list(history(third)["epoch"]) == [3]
