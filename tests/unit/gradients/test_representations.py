"""What layers make of the evaluation subset."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stiffness.data.batch import take
from stiffness.data.evaluation import Evaluation, draw_evaluation
from stiffness.data.text import load_text
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors
from stiffness.gradients.representations import represent_segment, representations
from stiffness.training.models import ModelSpec, build_model

BERT = ModelSpec("transformer", path="bert")
LAYERS = ["bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1"]


@pytest.fixture(scope="module")
def subset(tiny_language) -> Evaluation:
    arrays = load_text(
        tiny_language,
        ["premise", "hypothesis"],
        "label",
        ["entailment", "neutral", "contradiction"],
        "bert",
        32,
        path="nli",
    )
    return draw_evaluation(arrays, 9, 6, seed=0)


@pytest.fixture(scope="module")
def bert(tiny_language) -> nn.Module:
    return build_model(BERT, (), 3, 0, tiny_language)


class Wrapped(nn.Module):
    """A layer whose output is something else than one tensor."""

    def __init__(self, wrap) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self.wrap = wrap

    def forward(self, inputs):
        return self.wrap(self.inner(inputs))


class Around(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.layer = Wrapped(wrap)
        self.parts = nn.ModuleList([nn.Linear(4, 2)])
        self.idle = nn.Linear(4, 2)

    def forward(self, inputs):
        self.layer(inputs)
        return self.parts[0](inputs)


@pytest.mark.parametrize("chunk", [100, 4])
def test_the_mean_over_tokens_of_the_layers_that_transformers_reports(
    bert, subset, monkeypatch, chunk
):
    monkeypatch.setattr("stiffness.gradients.representations._CHUNK", chunk)
    found = representations(bert, subset.inputs, LAYERS)
    with torch.inference_mode():
        states = bert(**subset.inputs, output_hidden_states=True).hidden_states
    lengths = subset.inputs["attention_mask"].sum(1).tolist()
    assert len(set(lengths)) > 3
    for layer, state in zip(LAYERS, states, strict=True):
        expected = torch.stack([row[:n].mean(0) for row, n in zip(state, lengths, strict=True)])
        assert found[layer].dtype == torch.float32
        torch.testing.assert_close(found[layer], expected, rtol=0, atol=1e-6)


def test_padding_changes_nothing(bert, subset):
    expected = representations(bert, subset.inputs, LAYERS)
    wider = {n: nn.functional.pad(value, (0, 7), value=1) for n, value in subset.inputs.items()}
    wider["attention_mask"][:, -7:] = 0
    alone = [take(subset.inputs, slice(row, row + 1)) for row in range(len(subset.targets))]
    for layer in LAYERS:
        found = representations(bert, wider, [layer])[layer]
        torch.testing.assert_close(found, expected[layer], rtol=0, atol=1e-6)
        rows = [representations(bert, one, [layer])[layer] for one in alone]
        torch.testing.assert_close(torch.cat(rows), expected[layer], rtol=0, atol=1e-6)


def test_a_vector_an_example_is_taken_as_it_is(bert, subset):
    found = representations(bert, subset.inputs, ["classifier", "bert.pooler"])
    with torch.inference_mode():
        outputs = bert(**subset.inputs).logits
    torch.testing.assert_close(found["classifier"], outputs, rtol=0, atol=1e-6)
    assert found["bert.pooler"].shape == (15, 16)


def test_a_whole_encoder_and_an_attention(bert, subset):
    """They return a mapping and a tuple."""
    found = representations(
        bert,
        subset.inputs,
        ["bert.encoder", "bert.encoder.layer.1", "bert.encoder.layer.0.attention"],
    )
    assert torch.equal(found["bert.encoder"], found["bert.encoder.layer.1"])
    assert found["bert.encoder.layer.0.attention"].shape == (15, 16)


def test_images_are_flattened():
    model = build_model(ModelSpec("cnn", padding="same"), (1, 8, 8), 3, 0)
    images = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = representations(model, images, ["0", "2"])
    with torch.inference_mode():
        assert torch.equal(found["0"], model[0](images).flatten(1))
        assert torch.equal(found["2"], model[:3](images).flatten(1))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda output: (output, None),
        lambda output: [output],
        lambda output: {"first": output, "second": None},
        lambda output: output,
    ],
    ids=["tuple", "list", "mapping", "tensor"],
)
def test_the_first_of_several_outputs(wrap):
    model, inputs = Around(wrap).eval(), torch.randn(5, 4)
    with torch.inference_mode():
        assert torch.equal(
            representations(model, inputs, ["layer"])["layer"], model.layer.inner(inputs)
        )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda output: None,
        lambda output: (),
        lambda output: {},
        lambda output: SimpleNamespace(x=output),
        lambda output: output[:2],
        lambda output: output[:, 0],
    ],
    ids=["none", "empty tuple", "empty mapping", "object", "other rows", "no width"],
)
def test_an_output_without_a_row_an_example(wrap):
    with pytest.raises(StiffnessError, match="distance_layers: layer 'layer' gives no tensor"):
        representations(Around(wrap).eval(), torch.randn(5, 4), ["layer"])


@pytest.mark.parametrize("kind", ["Bert", "DistilBert"])
def test_the_last_hidden_layer_of_any_transformer(kind, subset, tmp_path, make_transformer):
    """It is what the network without its head returns, whatever its layers are called."""
    folder = str(make_transformer(tmp_path / "network", kind))
    model = build_model(ModelSpec(name="transformer", path=folder), (), 3, 0)
    inputs = subset.inputs
    if kind == "DistilBert":
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    name = {"Bert": "bert.encoder.layer.1", "DistilBert": "distilbert.transformer.layer.1"}[kind]
    found = representations(model, inputs, ["last_hidden", name])
    assert list(found) == ["last_hidden", name]
    # The same numbers, once computed and once looked at from further out.
    assert torch.equal(found["last_hidden"], found[name])


def test_a_network_that_does_not_say_what_its_last_hidden_layer_is():
    with pytest.raises(StiffnessError, match="distance_layers: the network has no layer 'last_hid"):
        representations(nn.Sequential(nn.Linear(4, 2)).eval(), torch.randn(5, 4), ["last_hidden"])


@pytest.mark.parametrize("layer", ["parts", "idle"])
def test_a_layer_that_is_never_called(layer):
    with pytest.raises(StiffnessError, match=f"distance_layers: layer '{layer}' gives no tensor"):
        representations(Around(tuple).eval(), torch.randn(5, 4), [layer])


def test_an_unknown_layer(bert, subset):
    with pytest.raises(StiffnessError) as raised:
        representations(bert, subset.inputs, ["bert.encoder.layer.11"])
    assert str(raised.value) == (
        "distance_layers: the network has no layer 'bert.encoder.layer.11'; close: "
        "bert.encoder.layer.1, bert.encoder.layer.0, bert.encoder.layer"
    )
    with pytest.raises(StiffnessError, match="no layer ''; close: bert"):
        representations(bert, subset.inputs, [""])


def test_an_output_of_tokens_that_is_no_vector_a_token(subset):
    class Matrices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Identity()

        def forward(self, input_ids, attention_mask, token_type_ids):
            self.layer(input_ids[:, :, None, None].float())
            return input_ids

    with pytest.raises(StiffnessError, match="does not have one vector per token"):
        representations(Matrices().eval(), subset.inputs, ["layer"])


def test_dropout_must_be_off(bert, subset, tiny_language):
    model = build_model(BERT, (), 3, 0, tiny_language).train()
    with pytest.raises(StiffnessError, match="is in training mode"):
        representations(model, subset.inputs, LAYERS)


def test_no_hook_is_left(bert, subset):
    def hooks() -> int:
        return sum(len(module._forward_hooks) for module in bert.modules())

    before = hooks()
    representations(bert, subset.inputs, LAYERS)
    with pytest.raises(StiffnessError):
        representations(bert, subset.inputs, ["bert.encoder.layer"])
    assert hooks() == before


def test_a_segment_of_checkpoints(tiny_language, subset, tmp_path):
    for step, seed in ((0, 0), (7, 1)):
        weights = build_model(BERT, (), 3, seed, tiny_language).state_dict()
        weights["bert.embeddings.word_embeddings.weight"] += seed
        file = tmp_path / "checkpoints" / f"step={step:08d}.safetensors"
        write_tensors(file, weights, {"step": step, "epoch": step / 7})
    output, cpu = tmp_path / "out" / "segment", torch.device("cpu")
    represent_segment(tmp_path / "checkpoints", subset, BERT, LAYERS, output, cpu, tiny_language)
    assert json.loads((output / "steps.json").read_text()) == [0, 7]
    names = {path.name for path in output.iterdir()}
    assert names == {"steps.json", "step=00000000.safetensors", "step=00000007.safetensors"}
    for step, seed in ((0, 0), (7, 1)):
        tensors, metadata = read_tensors(output / f"step={step:08d}.safetensors")
        model = build_model(BERT, (), 3, seed, tiny_language)
        with torch.no_grad():
            model.bert.embeddings.word_embeddings.weight += seed
        expected = representations(model, subset.inputs, LAYERS)
        assert metadata["step"] == step
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[name], value) for name, value in expected.items())


def test_a_bad_layer_leaves_nothing_behind(tiny_language, subset, tmp_path):
    weights = build_model(BERT, (), 3, 0, tiny_language).state_dict()
    write_tensors(tmp_path / "checkpoints/step=0.safetensors", weights, {"step": 0, "epoch": 0})
    output, cpu = tmp_path / "out" / "segment", torch.device("cpu")
    with pytest.raises(StiffnessError, match="no layer 'nothing'"):
        represent_segment(
            tmp_path / "checkpoints", subset, BERT, ["nothing"], output, cpu, tiny_language
        )
    assert list((tmp_path / "out").iterdir()) == []
