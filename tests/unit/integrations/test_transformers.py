"""The callback in short trainings of the real ``Trainer``."""

import math
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from stiffness import StiffnessError, StiffnessMonitor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("accelerate") is None, reason="the Trainer needs accelerate"),
    pytest.mark.filterwarnings("ignore"),  # of the libraries that are trained with
]

LENGTH = 24


def texts(tokenizer, rows):
    """Tokens by name and labels of pairs of sentences."""
    tokens = tokenizer(
        [row["premise"] for row in rows],
        [row["hypothesis"] for row in rows],
        padding="max_length",
        truncation=True,
        max_length=LENGTH,
        return_tensors="pt",
    )
    return dict(tokens), torch.tensor([row["label"] for row in rows])


def as_list(tokens, labels):
    return [
        {**{name: value[row] for name, value in tokens.items()}, "labels": labels[row]}
        for row in range(len(labels))
    ]


def events(folder: Path) -> dict[str, dict[int, float]]:
    """What TensorBoard would show: values by step, by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found: dict[str, dict[int, float]] = {}
    for file in folder.rglob("events.out.tfevents.*"):
        read = EventAccumulator(str(file))
        read.Reload()
        for tag in read.Tags()["scalars"]:
            found.setdefault(tag, {}).update({one.step: one.value for one in read.Scalars(tag)})
    return found


def trained(model, rows, folder: Path, callbacks, **options):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        output_dir=str(folder),
        use_cpu=True,
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        save_strategy="no",
        disable_tqdm=True,
        seed=3,
        **options,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=callbacks)
    trainer.train()
    return trainer


@pytest.fixture(scope="module")
def tokens(tiny_language, make_rows):
    from stiffness.data.hub import import_transformers

    tokenizer = import_transformers().BertTokenizerFast.from_pretrained(tiny_language / "bert")
    return texts(tokenizer, make_rows(64, 1)), texts(tokenizer, make_rows(24, 2))


@pytest.fixture(scope="module")
def bert(make_transformer, tmp_path_factory):
    return make_transformer(tmp_path_factory.mktemp("three") / "bert", num_labels=3)


@pytest.mark.parametrize("bf16", [False, True])
def test_curves_reach_tensorboard_and_no_bit_of_the_training_changes(
    bert, tokens, tmp_path, bf16, monkeypatch
):
    from transformers import BertForSequenceClassification

    from stiffness.integrations.transformers import StiffnessCallback

    (train, labels), (validation, validation_labels) = tokens

    def run(folder, callbacks):
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder / "events"))
        model = BertForSequenceClassification.from_pretrained(bert)
        options = {"gradient_accumulation_steps": 2, "bf16": bf16, "report_to": ["tensorboard"]}
        return trained(model, as_list(train, labels), folder, callbacks, **options)

    monitor = StiffnessMonitor(
        train=({name: value[:24] for name, value in train.items()}, labels[:24]),
        validation=(validation, validation_labels),
        resamples=40,
    )
    watched = run(tmp_path / "watched", [StiffnessCallback(monitor, every_n_steps=3)])
    alone = run(tmp_path / "alone", [])
    # 64 examples in batches of 8, two batches per step, two epochs: 8 steps.
    assert watched.state.global_step == 8
    steps = [0, 3, 6]
    assert sorted(monitor.seconds) == steps
    assert monitor.table.groupby("step")["epoch"].first().tolist() == [0.0, 0.75, 1.5]
    for (name, one), other in zip(
        watched.model.state_dict().items(), alone.model.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    shown = events(tmp_path / "watched" / "events")
    assert "train/stiffness/seconds" in shown
    for row in monitor.table.itertuples():
        tag = f"train/stiffness/{row.quantity}/{row.metric}/{row.pair_mode}"
        assert sorted(shown[tag]) == steps
        assert shown[tag][row.step] == pytest.approx(row.value, rel=1e-6)  # float32 on disk
    logged = [one for one in watched.state.log_history if "stiffness/seconds" in one]
    assert [one["step"] for one in logged] == steps


def test_measured_in_full_precision_where_training_is_not(bert, tokens, tmp_path):
    from transformers import BertForSequenceClassification

    from stiffness.integrations.transformers import StiffnessCallback

    (train, labels), (validation, validation_labels) = tokens
    examples = {"train": (train, labels), "validation": (validation, validation_labels)}
    monitor, again = (StiffnessMonitor(**examples, resamples=40) for _ in range(2))
    model = BertForSequenceClassification.from_pretrained(bert)
    trained(
        model,
        as_list(train, labels),
        tmp_path,
        [StiffnessCallback(monitor, every_n_steps=16)],
        bf16=True,
        report_to=[],
    )
    plain = BertForSequenceClassification.from_pretrained(bert)
    plain.load_state_dict(model.state_dict())
    values = again.measure(plain, 16)
    last = monitor.table[monitor.table["step"] == 16]
    for row in last.itertuples():
        name = f"stiffness/{row.quantity}/{row.metric}/{row.pair_mode}"
        assert values[name] == row.value, name


def test_a_causal_language_model_learns_with_lora(tmp_path):
    peft = pytest.importorskip("peft")
    from transformers import LlamaConfig, LlamaForCausalLM

    from stiffness.integrations.transformers import StiffnessCallback

    # Sequences of two sources: one counts up, the other one down.
    vocabulary, length = 32, 12
    starts = torch.randint(2, vocabulary, (80,), generator=torch.Generator().manual_seed(0))
    sources = np.array(["up", "down"] * 40)
    signs = torch.tensor([1 if source == "up" else -1 for source in sources])
    tokens = 2 + (starts[:, None] + signs[:, None] * torch.arange(length)) % (vocabulary - 2)
    mask = torch.ones_like(tokens)
    mask[::3, 9:] = 0
    labels = tokens.masked_fill(mask == 0, -100)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=length,
    )
    lora = peft.LoraConfig(r=4, lora_dropout=0.1, target_modules=["q_proj", "v_proj"])
    model = peft.get_peft_model(LlamaForCausalLM(config), lora)
    monitor = StiffnessMonitor(
        train=({"input_ids": tokens[:40], "attention_mask": mask[:40]}, labels[:40]),
        validation=({"input_ids": tokens[40:], "attention_mask": mask[40:]}, labels[40:]),
        labels=(sources[:40], sources[40:]),
        loss="causal_lm",
        resamples=40,
    )
    trainer = trained(
        model,
        as_list({"input_ids": tokens[:40], "attention_mask": mask[:40]}, labels[:40]),
        tmp_path,
        [StiffnessCallback(monitor, every_n_steps=5)],
        report_to=[],
    )
    assert sorted(monitor.seconds) == [0, 5, 10]
    assert set(monitor.tables["classes"]["class_a"]) == {"down", "up"}
    assert monitor.table["value"].notna().all()
    # The last measurement against plain backward passes, of the adapters alone.
    model = trainer.model.eval()
    parameters = [one for one in model.parameters() if one.requires_grad]
    assert sum(one.numel() for one in parameters) < 0.2 * sum(
        one.numel() for one in model.parameters()
    )
    gradients = []
    for row in range(80):
        logits = model(input_ids=tokens[row : row + 1], attention_mask=mask[row : row + 1]).logits
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], labels[row, 1:], reduction="sum")
        found = torch.autograd.grad(loss, parameters)
        gradients.append(torch.cat([one.flatten() for one in found]).double())
    units = torch.nn.functional.normalize(torch.stack(gradients))
    cosines = (units[:40] @ units[40:].T).numpy()
    up = sources == "up"
    within = np.mean(
        [cosines[np.ix_(up[:40] == side, up[40:] == side)].mean() for side in (True, False)]
    )
    last = monitor.table.set_index(["step", "quantity", "metric", "pair_mode"])["value"]
    # float32 on both sides; gradients of some 1e3 numbers.
    assert last[10, "within", "cosine", "train-val"] == pytest.approx(within, abs=1e-4)


def test_it_needs_a_trainer_and_a_positive_number():
    from transformers import TrainerControl, TrainerState

    from stiffness.integrations.transformers import StiffnessCallback

    x, y = torch.randn(12, 4), torch.arange(12) % 2
    monitor = StiffnessMonitor(train=(x, y), validation=(x, y), resamples=40)
    with pytest.raises(StiffnessError, match="every_n_steps: must be at least 1, got 0"):
        StiffnessCallback(monitor, every_n_steps=0)
    with pytest.raises(StiffnessError, match="to be called by a Trainer"):
        StiffnessCallback(monitor).on_train_begin(
            None, TrainerState(), TrainerControl(), model=torch.nn.Linear(4, 2)
        )
    assert math.isfinite(monitor.table["value"].sum())
