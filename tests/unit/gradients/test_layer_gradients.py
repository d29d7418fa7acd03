"""Gradient cosines of each layer's own parameters, and distances in what each layer reads."""

from pathlib import Path

import pytest
import torch
from torch import nn

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import Evaluation, cosine_distances, draw_evaluation
from stiffness.data.text import load_text
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors
from stiffness.gradients.layer_gradients import measure_layers
from stiffness.gradients.reference import reference_gradients
from stiffness.gradients.representations import input_widths, layer_inputs
from stiffness.training.models import ModelSpec, build_model

SPEC = ModelSpec("cnn", padding="same")
CPU = torch.device("cpu")
LAYERS = ["0", "3", "6", "10"]  # three convolutions and the linear layer
SATURATED, DEAD = 7, 50


@pytest.fixture(scope="module")
def evaluation(few_digits: Arrays) -> Evaluation:
    return draw_evaluation(few_digits, 20, 10, seed=0)


def network(step: int) -> nn.Sequential:
    """Untrained; at one step so sure of itself that float32 knows no doubt, at another with a
    layer behind which nothing changes."""
    model = build_model(SPEC, (1, 8, 8), 10, seed=step)
    assert isinstance(model, nn.Sequential)
    with torch.no_grad():
        if step == SATURATED:
            model[10].weight.mul_(3000)
        if step == DEAD:
            model[6].weight.zero_()
            model[6].bias.fill_(-1)
    return model


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (0, SATURATED, DEAD):
        weights = network(step).state_dict()
        write_tensors(folder / f"step={step:08d}.safetensors", weights, {"step": step, "epoch": 1})
    return folder


def measure(checkpoints: Path, evaluation: Evaluation, output: Path, **others) -> Path:
    given = {"device": CPU, "memory_budget": "4GiB", "arithmetic": "exact"} | others
    measure_layers(checkpoints, evaluation, SPEC, output, **given)
    return output


@pytest.fixture(scope="module")
def measured(checkpoints: Path, evaluation: Evaluation, tmp_path_factory, device) -> Path:
    folder = tmp_path_factory.mktemp("out") / "layers"
    return measure(checkpoints, evaluation, folder, device=device)


def read(measured: Path, step: int):
    return read_tensors(measured / f"step={step:08d}.safetensors")


@pytest.mark.parametrize("step", [0, SATURATED])
def test_every_block_is_what_autograd_finds_in_float64(measured, evaluation, step):
    tensors, _ = read(measured, step)
    model = network(step)
    # Probabilities are off by as much as the largest output is, which float32 rounds.
    rounding = 2**-23 * max(model(evaluation.inputs).abs().max().item(), 10)
    if step == SATURATED:
        losses = nn.functional.cross_entropy(
            model(evaluation.inputs), evaluation.targets, reduction="none"
        )
        assert (losses == 0).any()
    directions, log_norms = reference_gradients(model, evaluation.inputs, evaluation.targets)
    begin = 0
    for name, module in model.named_modules():
        size = sum(p.numel() for p in module.parameters())
        if name not in LAYERS:
            continue
        block = directions[:, begin : begin + size]
        begin += size
        unit = nn.functional.normalize(block, dim=1)
        torch.testing.assert_close(
            tensors[f"cosines/{name}"].double(), unit @ unit.T, rtol=0, atol=rounding
        )
        expected = block.norm(dim=1).log() + log_norms
        torch.testing.assert_close(tensors[f"log_norms/{name}"], expected, rtol=0, atol=1e-4)


def test_blocks_that_are_0_are_undefined(measured):
    tensors, _ = read(measured, DEAD)
    for layer in ("0", "3", "6"):
        assert tensors[f"cosines/{layer}"].isnan().all()
        assert (tensors[f"log_norms/{layer}"] == -torch.inf).all()
    assert tensors["cosines/10"].isfinite().all()


def test_distances_are_those_between_what_a_layer_reads(measured, evaluation):
    model = network(0)
    tensors, metadata = read(measured, 0)
    read_by = {"0": evaluation.inputs, "3": model[:3](evaluation.inputs)}
    read_by["10"] = model[:10](evaluation.inputs)
    for layer, vectors in read_by.items():
        expected = cosine_distances(vectors.detach())
        torch.testing.assert_close(tensors[f"distances/{layer}"], expected, rtol=0, atol=1e-5)
    assert metadata["layers"] == [
        {"name": "0", "kind": "Conv2d", "limit": 2.0},
        {"name": "3", "kind": "Conv2d", "limit": 1.0},
        {"name": "6", "kind": "Conv2d", "limit": 1.0},
        {"name": "10", "kind": "Linear", "limit": 1.0},
    ]


def test_a_small_budget_changes_nothing(checkpoints, evaluation, measured, tmp_path, device):
    less = {"device": device, "memory_budget": "256KiB", "steps": {0}}
    small = measure(checkpoints, evaluation, tmp_path / "a", **less)
    ample, _ = read(measured, 0)
    for name, tensor in read(small, 0)[0].items():
        torch.testing.assert_close(tensor, ample[name], rtol=0, atol=1e-6)


def test_only_the_steps_asked_for(checkpoints, evaluation, tmp_path):
    output = measure(checkpoints, evaluation, tmp_path / "a", steps={0, 99})
    assert sorted(path.name for path in output.iterdir()) == [
        "step=00000000.safetensors",
        "steps.json",
    ]


def test_a_checkpoint_that_cannot_be_measured_is_named(evaluation, tmp_path):
    weights = {name: p * torch.nan for name, p in network(0).state_dict().items()}
    bad = tmp_path / "checkpoints/step=00000005.safetensors"
    write_tensors(bad, weights, {"step": 5, "epoch": 1.0})
    with pytest.raises(StiffnessError, match=r"step=00000005\.safetensors: model: its outputs"):
        measure(bad.parent, evaluation, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Late(nn.Module):
    """Layers in another order than they are called in, one twice and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.idle = nn.Linear(4, 4), nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self.first(inputs)
        again = self.last(hidden)
        torch.relu_(hidden)  # what `last` has read is kept as it was
        return self.last(again)


def test_layers_stand_in_the_order_of_their_calls():
    model, inputs = Late(), torch.randn(5, 3)
    assert input_widths(model, inputs, ["last", "idle", "first"]) == {
        "first": 3,
        "last": 4,
        "idle": 0,
    }
    found = layer_inputs(model, inputs, ["first", "last"])
    expected = model.last(model.first(inputs))  # of several calls the last counts
    torch.testing.assert_close(found["last"], expected.detach())


def test_embeddings_read_no_vectors(tiny_language: Path):
    texts = load_text(
        tiny_language,
        ["premise", "hypothesis"],
        "label",
        ["entailment", "neutral", "contradiction"],
        "bert",
        32,
        path="nli",
    )
    subset = draw_evaluation(texts, 9, 6, seed=0)
    model = build_model(ModelSpec("transformer", path="bert"), (), 3, 0, tiny_language)
    names = [name for name, module in model.named_modules() if list(module.parameters(False))]
    widths = input_widths(model, subset.inputs, names)
    assert list(widths)[-1] == "classifier"
    embeddings = {name for name in names if name.endswith("_embeddings")}
    assert {name for name, width in widths.items() if not width} == embeddings
    assert widths["bert.encoder.layer.0.attention.self.query"] == 16
