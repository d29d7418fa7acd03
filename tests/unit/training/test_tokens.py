"""Training a transformer on tokens: the same bits whatever the cuts, like lengths together."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.batch import call, take
from stiffness.data.text import load_text
from stiffness.errors import StiffnessError
from stiffness.files import read_table, read_tensors
from stiffness.training import train
from stiffness.training.models import ModelSpec, build_model, check_tokens
from stiffness.training.schedule import checkpoint_steps
from stiffness.training.specs import OptimizerSpec, TrainingSpec
from stiffness.training.train import (
    HISTORY,
    STATE,
    checkpoint_name,
    train_segment,
)

CPU = torch.device("cpu")
BERT = ModelSpec("transformer", path="bert")
SPEC = TrainingSpec(
    BERT,
    "3e-3",
    seed=0,
    batch_size=8,
    early_checkpoints=1,
    checkpoint_interval=0.25,
    optimizer=OptimizerSpec("adamw", weight_decay=0.01, warmup_epochs=0.5),
)
STEPS = 8  # an epoch of 60 examples


@pytest.fixture(scope="module")
def texts(tiny_language) -> Arrays:
    return load_text(
        tiny_language,
        ["premise", "hypothesis"],
        "label",
        ["entailment", "neutral", "contradiction"],
        "bert",
        32,
        path="nli",
    )


@pytest.fixture(scope="module")
def run(texts, tiny_language, device):
    def go(spec, start, end, previous, output, data_dir=tiny_language) -> Path:
        train_segment(texts, spec, start, end, previous, output, device, data_dir=data_dir)
        return Path(output)

    return go


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory) -> Path:
    return run(SPEC, 0, 3, None, tmp_path_factory.mktemp("whole") / "epochs=0000-0003")


@pytest.fixture
def batches(texts, tiny_language):
    """The batches of an epoch, as training draws them."""

    def of(epoch: int, spec: TrainingSpec = SPEC) -> list[torch.Tensor]:
        job = train.Run(texts, spec, CPU, tiny_language)
        generator = torch.Generator().manual_seed(train.mix_seed(spec.seed, epoch))
        return job._batches(torch.randperm(60, generator=generator), generator)

    return of


def tensors(*folders: Path) -> dict[str, dict[str, torch.Tensor]]:
    files = [path for folder in folders for path in folder.glob("step=*")]
    found = {path.name: read_tensors(path)[0] for path in files}
    return found | {STATE: read_tensors(folders[-1] / STATE)[0]}


def assert_same(ours: dict, theirs: dict) -> None:
    assert ours.keys() == theirs.keys()
    for file, weights in ours.items():
        for name, value in weights.items():
            assert torch.equal(value, theirs[file][name]), (file, name)


# --- training ------------------------------------------------------------------------------------


def test_it_learns(whole):
    table = read_table(whole / HISTORY)
    assert table["step"].tolist() == checkpoint_steps(0, 3, STEPS, 1, 0.25)
    assert table["train_loss"].iloc[0] > table["chance_loss"].iloc[0]
    assert table["train_loss"].iloc[-1] < 0.95 * table["chance_loss"].iloc[0]


def test_a_chain_equals_one_run(run, whole, tmp_path):
    parts, previous = [], None
    for start in range(3):
        previous = run(SPEC, start, start + 1, previous, tmp_path / f"{start}")
        parts.append(previous)
    assert_same(tensors(*parts), tensors(whole))
    history = pd.concat([read_table(part / HISTORY) for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(history, read_table(whole / HISTORY), check_exact=True)


def test_an_interrupted_training_ends_with_the_same_bits(run, whole, tmp_path, monkeypatch):
    original = train.Run.train_epoch

    def stop(job, work):
        if job.epoch == 2:
            raise KeyboardInterrupt
        original(job, work)

    output = tmp_path / whole.name
    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "train_epoch", stop)
        with pytest.raises(KeyboardInterrupt):
            run(SPEC, 0, 3, None, output)
    assert_same(tensors(run(SPEC, 0, 3, None, output)), tensors(whole))


def test_an_attempt_from_other_pretrained_weights_is_started_over(
    run, tiny_language, tmp_path, monkeypatch, make_transformer
):
    mine = tmp_path / "data"
    shutil.copytree(tiny_language / "bert", mine / "bert")
    spec = replace(SPEC, checkpoint_interval=1)
    with monkeypatch.context() as patch:
        patch.setattr(train, "replace_directory", None)
        with pytest.raises(TypeError):
            run(spec, 0, 1, None, tmp_path / "out" / "first", mine)
    make_transformer(mine / "bert", seed=5)
    again = run(spec, 0, 1, None, tmp_path / "out" / "first", mine)
    expected = run(spec, 0, 1, None, tmp_path / "out" / "second", mine)
    assert_same(tensors(again), tensors(expected))


def test_weights_and_history_belong_together(whole, texts, tiny_language):
    step = checkpoint_steps(0, 3, STEPS, 1, 0.25)[-2]
    model = build_model(BERT, (), 3, 0, tiny_language)
    model.load_state_dict(read_tensors(whole / checkpoint_name(step))[0])
    row = read_table(whole / HISTORY).set_index("step").loc[step]
    with torch.inference_mode():
        outputs = call(model, texts.validation_inputs)
        loss = torch.nn.functional.cross_entropy(outputs.double(), texts.validation_targets)
    assert row["validation_loss"] == pytest.approx(float(loss), rel=1e-6)
    right = outputs.argmax(1) == texts.validation_targets
    assert row["validation_accuracy"] == pytest.approx(float(right.double().mean()))


def test_dropout_in_training_alone(run, tmp_path, monkeypatch):
    modes: dict[str, set[bool]] = {"train": set(), "evaluate": set()}
    place = "evaluate"
    original, evaluate = train.call, train._evaluate

    def watched(model, inputs):
        modes[place] |= {m.training for m in model.modules() if isinstance(m, torch.nn.Dropout)}
        return original(model, inputs)

    def watched_evaluation(*args):
        nonlocal place
        place = "evaluate"
        try:
            return evaluate(*args)
        finally:
            place = "train"

    monkeypatch.setattr(train, "call", watched)
    monkeypatch.setattr(train, "_evaluate", watched_evaluation)
    run(SPEC, 0, 1, None, tmp_path / "out")
    assert modes == {"train": {True}, "evaluate": {False}}


def test_dropout_is_drawn_from_the_seed(run, whole, tmp_path):
    torch.manual_seed(123)
    state = torch.get_rng_state()
    assert_same(tensors(run(SPEC, 0, 3, None, tmp_path / "same")), tensors(whole))
    assert torch.equal(torch.get_rng_state(), state)


def test_mixed_precision(run, whole, tmp_path):
    mixed = run(replace(SPEC, mixed_precision=True), 0, 3, None, tmp_path / "mixed")
    name = checkpoint_name(3 * STEPS)
    ours, theirs = read_tensors(mixed / name)[0], read_tensors(whole / name)[0]
    assert {value.dtype for value in ours.values()} == {torch.float32}
    assert any(not torch.equal(ours[key], theirs[key]) for key in theirs)
    losses = [read_table(folder / HISTORY)["train_loss"].iloc[-1] for folder in (mixed, whole)]
    assert losses[0] == pytest.approx(losses[1], abs=0.1)


def test_the_rate_rises_over_the_warm_up(run, tmp_path, monkeypatch):
    rates = []
    original = train.Run._warm_up

    def watched(job):
        original(job)
        rates.append(job.optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(train.Run, "_warm_up", watched)
    first = run(SPEC, 0, 1, None, tmp_path / "first")
    run(SPEC, 1, 2, first, tmp_path / "second")
    rising = [0.25, 0.5, 0.75, 1.0]  # half an epoch
    assert rates == pytest.approx([3e-3 * share for share in rising + [1.0] * (2 * STEPS - 4)])


# --- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 7, 60, 100])
def test_every_example_once_an_epoch(batches, size):
    drawn = batches(0, replace(SPEC, batch_size=size))
    assert sorted(torch.cat(drawn).tolist()) == list(range(60))
    assert len(drawn) == -(-60 // size)
    assert sorted(map(len, drawn))[1:] == [size] * (len(drawn) - 1)


def test_epochs_differ(batches):
    def sets(epoch: int) -> set[frozenset[int]]:
        return {frozenset(batch.tolist()) for batch in batches(epoch)}

    assert [b.tolist() for b in batches(0)] == [b.tolist() for b in batches(0)]
    assert not sets(0) & sets(1)


def test_texts_of_like_length_lie_together(texts, batches):
    lengths = texts.train_inputs["attention_mask"].sum(1)

    def padding(drawn: list[torch.Tensor]) -> int:
        return sum(int((lengths[batch].max() - lengths[batch]).sum()) for batch in drawn)

    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert padding(batches(0, replace(SPEC, batch_size=2))) < 0.4 * padding(list(order.split(2)))


def test_short_batches_are_not_padded_to_the_longest_text(run, texts, tmp_path, monkeypatch):
    widths = []
    original = train.call

    def watched(model, inputs):
        if model.training:
            widths.append(inputs["input_ids"].shape[1])
            assert int(inputs["attention_mask"].sum(1).max()) == widths[-1]
        return original(model, inputs)

    monkeypatch.setattr(train, "call", watched)
    run(SPEC, 0, 1, None, tmp_path / "out")
    assert len(widths) == STEPS
    assert min(widths) < texts.train_inputs["input_ids"].shape[1]


def test_a_history_on_some_texts(run, texts, tiny_language, tmp_path):
    spec = replace(SPEC, history_examples=20, checkpoint_interval=1, early_checkpoints=0)
    job = train.Run(texts, spec, CPU, tiny_language)
    inputs, targets = job.history_sets["train"]
    lengths = inputs["attention_mask"].sum(1)
    assert len(targets) == 20
    assert torch.equal(lengths, lengths.sort().values)
    rows = {(*ids.tolist(), int(y)) for ids, y in zip(inputs["input_ids"], targets, strict=True)}
    assert len(rows) == 20
    assert rows <= {
        (*ids.tolist(), int(y))
        for ids, y in zip(texts.train_inputs["input_ids"], texts.train_targets, strict=True)
    }


# --- the pretrained network ----------------------------------------------------------------------


def test_another_seed_gives_another_head_on_the_same_encoder(tiny_language):
    first, again, other = (
        build_model(BERT, (), 3, seed, tiny_language).state_dict() for seed in (0, 0, 1)
    )
    changed = {name for name in first if not torch.equal(first[name], other[name])}
    assert changed == {"classifier.weight"}
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["classifier.weight"].shape == (3, 16)
    pretrained, _ = stored(tiny_language / "bert")
    assert torch.equal(first["bert.pooler.dense.weight"], pretrained["bert.pooler.dense.weight"])


def stored(folder: Path) -> tuple[dict[str, torch.Tensor], Path]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors"), folder / "model.safetensors"


def test_an_encoder_without_a_head_or_a_pooler(tiny_language, tmp_path):
    from safetensors.torch import save_file

    folder = shutil.copytree(tiny_language / "bert", tmp_path / "bert")
    weights, file = stored(folder)
    bare = {
        name.removeprefix("bert."): value
        for name, value in weights.items()
        if "pooler" not in name and "classifier" not in name
    }
    save_file(bare, file, {"format": "pt"})
    model = build_model(BERT, (), 3, 0, tmp_path)
    for name, value in bare.items():
        assert torch.equal(model.state_dict()[f"bert.{name}"], value)


@pytest.mark.parametrize("damage", ["missing", "misshapen"])
def test_an_encoder_that_lacks_weights_is_refused(tiny_language, tmp_path, damage):
    from safetensors.torch import save_file

    folder = shutil.copytree(tiny_language / "bert", tmp_path / "bert")
    weights, file = stored(folder)
    name = "bert.encoder.layer.1.output.dense.weight"
    value = weights.pop(name)
    save_file(weights | ({name: value[:, :5].clone()} if damage == "misshapen" else {}), file)
    with pytest.raises(StiffnessError) as raised:
        build_model(BERT, (), 3, 0, tmp_path)
    assert str(raised.value).startswith(
        "model.path: 'bert': the weights there lack 1 of the network's tensors, such as " + name
    )


def test_built_in_evaluation_mode_with_every_parameter_to_train(tiny_language):
    model = build_model(BERT, (), 3, 0, tiny_language)
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_fc_takes_no_tokens():
    with pytest.raises(StiffnessError, match="'fc' does not take tokens"):
        build_model(ModelSpec("fc"), (), 3, 0)


def test_augmentation_is_for_images(run, tmp_path):
    with pytest.raises(StiffnessError, match="augmentation: crop_flip is for images"):
        run(replace(SPEC, augmentation="crop_flip"), 0, 1, None, tmp_path / "out")


# --- tokens that a network does not take ---------------------------------------------------------


def refusal(run, tmp_path, path: Path) -> str:
    spec = replace(SPEC, model=replace(BERT, path=str(path)))
    with pytest.raises(StiffnessError) as raised:
        run(spec, 0, 1, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    return str(raised.value)


def test_tokens_beyond_the_vocabulary(run, tmp_path, make_transformer):
    folder = make_transformer(tmp_path / "few", vocab_size=12)
    assert refusal(run, tmp_path, folder) == (
        f"tokenizer: gives token number 20, but the network {str(folder)!r} knows 12 tokens; "
        "take the network's own tokenizer"
    )


@pytest.mark.parametrize(
    ("kind", "positions", "room"), [("Bert", 12, 12), ("Roberta", 12, 11), ("DistilBert", 12, 12)]
)
def test_texts_longer_than_the_positions(
    run, tmp_path, texts, make_transformer, kind, positions, room
):
    folder = make_transformer(tmp_path / "short", kind, max_position_embeddings=positions)
    longest = texts.train_inputs["input_ids"].shape[1]
    assert refusal(run, tmp_path, folder) == (
        f"max_length: there are texts of {longest} tokens, but the network {str(folder)!r} has "
        f"room for {room}; set max_length to {room} or less"
    )
    model = build_model(replace(BERT, path=str(folder)), (), 3, 0)
    fitting = {
        name: torch.cat([value, value], 1)[:, :room].clamp(max=5)
        for name, value in texts.train_inputs.items()
    }
    fitting["attention_mask"] = torch.ones_like(fitting["attention_mask"])
    fitting["input_ids"] = fitting["input_ids"].clamp(min=1)
    check_tokens(model, take(fitting, slice(0, 4)), 3, replace(BERT, path="short"))


def test_kinds_of_tokens_that_the_network_does_not_know(run, tmp_path, make_transformer):
    folder = make_transformer(tmp_path / "one", type_vocab_size=1)
    message = refusal(run, tmp_path, folder)
    assert message.startswith(
        f"model.path: the network {str(folder)!r} does not take the tokenizer's tokens "
        "(input_ids, token_type_ids, attention_mask): "
    )
    assert message.endswith("; take the network's own tokenizer")
