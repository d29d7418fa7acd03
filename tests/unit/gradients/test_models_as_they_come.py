"""Models of torchvision and transformers, unchanged, against a loop over examples in float64.

All of them have fast paths only: the warning of a slow path is an error.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, gradient_gram
from stiffness.data.batch import Inputs, call, length, take
from stiffness.data.vision import import_torchvision
from stiffness.gradients import plan

import_torchvision()  # before transformers, which imports it

pytestmark = [
    pytest.mark.filterwarnings("error::stiffness.errors.StiffnessWarning"),
    pytest.mark.filterwarnings("ignore:memory_budget:stiffness.errors.StiffnessWarning"),
]

N = 5
CLASSES = 3


def slow(build: Callable[[], nn.Module]) -> Any:
    """What it shows is shown on parts in test_uses.py too."""
    return pytest.param(build, marks=pytest.mark.slow)


def reference(model: nn.Module, inputs: Inputs, targets: torch.Tensor) -> torch.Tensor:
    """The Gram matrix by float64 autograd, one example at a time."""
    model = model.double()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for row in range(length(inputs)):
        one = take(inputs, slice(row, row + 1))
        one = one.double() if isinstance(one, torch.Tensor) else one
        loss = nn.functional.cross_entropy(call(model, one), targets[row : row + 1])
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    stacked = torch.stack(rows)
    return stacked @ stacked.T


def settled(model: nn.Module) -> nn.Module:
    """Away from initialisation, where scales are 1 or 1e-6, shifts 0 and heads may be 0."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point() and tensor.ndim <= 1:
                tensor.copy_(0.5 + torch.rand_like(tensor))
            elif "layer_scale" in name or "heads" in name:
                tensor.copy_(torch.randn_like(tensor) / 4)
    return model.eval()


def assert_exact(model: nn.Module, inputs: Inputs) -> None:
    targets = torch.arange(N) % CLASSES
    gram = gradient_gram(model, inputs, targets)
    tight = gradient_gram(model, inputs, targets, memory_budget="1MiB")
    blocks = gradient_gram(model, inputs, targets, per_layer=True)
    matrix = class_mean_cosine(model, inputs, targets)
    assert isinstance(gram, torch.Tensor)
    assert isinstance(tight, torch.Tensor)
    assert isinstance(blocks, dict)
    expected = reference(model, inputs, targets)
    for found in (gram, tight, sum(blocks.values())):
        assert float((found - expected).norm() / expected.norm()) < 1e-5
    norms = expected.diagonal().sqrt()
    cosines = expected / norms[:, None] / norms
    torch.testing.assert_close(matrix[0, 1], cosines[::3, 1::3].mean(), rtol=0, atol=1e-5)


def resnet() -> nn.Module:
    """resnet18 without the two widest stages' gradients: nine tenths of its parameters."""
    model = import_torchvision().models.resnet18(num_classes=CLASSES)
    model.layer3.requires_grad_(False)
    model.layer4.requires_grad_(False)
    return model


def convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    return ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], num_classes=CLASSES)


def densenet() -> nn.Module:
    torchvision = import_torchvision()
    return torchvision.models.DenseNet(4, (2, 2), 8, num_classes=CLASSES)


def mobilenet() -> nn.Module:
    return import_torchvision().models.mobilenet_v2(width_mult=0.1, num_classes=CLASSES)


def shufflenet() -> nn.Module:
    torchvision = import_torchvision()
    return torchvision.models.ShuffleNetV2([2, 2, 2], [8, 8, 16, 32, 64], num_classes=CLASSES)


def swin() -> nn.Module:
    """Windows: a bias of relative positions, and examples that share an axis with windows."""
    torchvision = import_torchvision()
    return torchvision.models.SwinTransformer(
        [2, 2], 8, [2, 2], [2, 4], [2, 2], num_classes=CLASSES
    )


@pytest.mark.parametrize("build", [resnet, mobilenet, shufflenet, densenet, convnext, slow(swin)])
def test_networks_for_images(build):
    torch.manual_seed(0)
    assert_exact(settled(build()), torch.randn(N, 3, 32, 32))


def test_a_vision_transformer():
    """A class token, positions, and attention with packed weights."""
    torchvision = import_torchvision()
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(
        image_size=8,
        patch_size=4,
        num_layers=2,
        num_heads=2,
        hidden_dim=12,
        mlp_dim=24,
        num_classes=CLASSES,
    )
    assert_exact(settled(model), torch.randn(N, 3, 8, 8))


def tokens(mask: bool = True, types: bool = False) -> dict[str, torch.Tensor]:
    inputs = {"input_ids": torch.randint(1, 50, (N, 9))}
    lengths = torch.tensor([9, 4, 7, 1, 6])
    kept = torch.arange(9) < lengths[:, None]
    inputs["input_ids"][~kept] = 0
    if mask:
        inputs["attention_mask"] = kept.long()
    if types:
        inputs["token_type_ids"] = (torch.arange(9) >= 5).long().expand(N, 9)
    return inputs


class FirstLogits(nn.Module):
    """A language model as a classifier: the first logits at the last position."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.model(**inputs).logits[:, -1, :CLASSES]


class Head(nn.Module):
    """An encoder as a classifier of the first position."""

    def __init__(self, encoder: nn.Module, width: int) -> None:
        super().__init__()
        self.encoder, self.out = encoder, nn.Linear(width, CLASSES)

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return self.out(self.encoder(**inputs).last_hidden_state[:, 0])


BERT = {
    "vocab_size": 50,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
}
GPT2 = {
    "vocab_size": 50,
    "n_embd": 12,
    "n_layer": 2,
    "n_head": 3,
    "n_positions": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5 = {
    "vocab_size": 50,
    "d_model": 12,
    "d_kv": 4,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 3,
}


def hugging_face(name: str, configuration: str, **settings: int) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    return getattr(transformers, name)(getattr(transformers, configuration)(**settings))


def llama(**settings: int) -> nn.Module:
    return hugging_face(
        "LlamaForSequenceClassification",
        "LlamaConfig",
        **BERT | {"num_key_value_heads": 1, "num_labels": CLASSES} | settings,
    )


def bert() -> nn.Module:
    settings = BERT | {"num_labels": CLASSES}
    return hugging_face("BertForSequenceClassification", "BertConfig", **settings)


def masked_bert() -> nn.Module:
    """Its output layer has the table of words as weight, and a bias of its own."""
    return FirstLogits(hugging_face("BertForMaskedLM", "BertConfig", **BERT))


def distilbert() -> nn.Module:
    return hugging_face(
        "DistilBertForSequenceClassification",
        "DistilBertConfig",
        vocab_size=50,
        dim=12,
        n_layers=2,
        n_heads=3,
        hidden_dim=20,
        max_position_embeddings=16,
        num_labels=CLASSES,
    )


def gpt2() -> nn.Module:
    settings = GPT2 | {"num_labels": CLASSES}
    return hugging_face("GPT2ForSequenceClassification", "GPT2Config", **settings)


def gpt2_tied() -> nn.Module:
    return FirstLogits(hugging_face("GPT2LMHeadModel", "GPT2Config", **GPT2))


def t5_encoder() -> nn.Module:
    """Relative positions: a bias that all layers share, to which a mask is added if any is."""
    return Head(hugging_face("T5EncoderModel", "T5Config", **T5), 12)


def adapted_llama() -> nn.Module:
    """Low-rank updates of frozen weights, as peft makes them."""
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "v_proj"])
    return peft.get_peft_model(llama(), settings)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "build",
    [bert, masked_bert, distilbert, gpt2, gpt2_tied, llama, t5_encoder, slow(adapted_llama)],
)
def test_language_models(build):
    torch.manual_seed(0)
    inputs = tokens(types=build is bert)
    assert_exact(settled(build()), inputs)


def test_a_vision_transformer_of_transformers():
    torch.manual_seed(0)
    settings = {name: BERT[name] for name in BERT if "_size" in name or "num_" in name}
    settings |= {"image_size": 8, "patch_size": 4, "num_labels": CLASSES}
    model = hugging_face("ViTForImageClassification", "ViTConfig", **settings)
    assert_exact(settled(model), {"pixel_values": torch.randn(N, 3, 8, 8)})


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_a_mask_that_only_some_passes_need(monkeypatch, chunk):
    """T5 adds its bias of relative positions to a mask, or, without padding, to the scores."""
    monkeypatch.setattr(plan, "_CHUNK", chunk)
    monkeypatch.setattr(plan, "_SMALL", 0)
    torch.manual_seed(0)
    model, inputs = settled(t5_encoder()), tokens()
    for first in (0, 1):  # an example without padding, or with
        rows = torch.arange(first, N)
        some = take(inputs, rows)
        gram = gradient_gram(model.float(), some, rows % CLASSES)
        expected = reference(model, some, rows % CLASSES)
        assert float((gram - expected).norm() / expected.norm()) < 1e-5
