"""Training: what is recorded, and what every setting does."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_cases import (
    CNN,
    FC,
    NORM,
    STEPS,
    assert_same_run,
    assert_same_tensors,
    checkpoints,
    history,
    segment,
)

from stiffness.data.arrays import Arrays
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors
from stiffness.training import train
from stiffness.training.augmentation import crop_flip
from stiffness.training.models import build_model, load_weights
from stiffness.training.schedule import checkpoint_steps
from stiffness.training.specs import OptimizerSpec
from stiffness.training.train import (
    HISTORY,
    HISTORY_COLUMNS,
    STATE,
    checkpoint_name,
)

pytestmark = pytest.mark.usefixtures("on")


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
