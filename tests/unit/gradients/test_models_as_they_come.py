"""Models of torchvision and transformers, unchanged, against a loop over examples in float64."""

import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, gradient_gram
from stiffness.data.batch import Inputs, call, length, take
from stiffness.data.vision import import_torchvision

import_torchvision()  # before transformers, which imports it

# Some of their layers have no fast path, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")

N = 5
CLASSES = 3


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


@pytest.mark.parametrize("build", [resnet, mobilenet, shufflenet, densenet, convnext])
def test_convolutional_networks(build):
    torch.manual_seed(0)
    assert_exact(settled(build()), torch.randn(N, 3, 32, 32))


def test_a_vision_transformer():
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


def test_bert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
        num_labels=CLASSES,
        pad_token_id=0,
    )
    model = settled(transformers.BertForSequenceClassification(config))
    assert_exact(model, tokens(types=True))


def test_distilbert():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.DistilBertConfig(
        vocab_size=50,
        dim=12,
        n_layers=2,
        n_heads=3,
        hidden_dim=20,
        max_position_embeddings=16,
        num_labels=CLASSES,
    )
    assert_exact(settled(transformers.DistilBertForSequenceClassification(config)), tokens())


def test_gpt2():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50,
        n_embd=12,
        n_layer=2,
        n_head=3,
        n_positions=16,
        num_labels=CLASSES,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    assert_exact(settled(transformers.GPT2ForSequenceClassification(config)), tokens())


def test_bert_needs_no_slow_path(recwarn):
    """Positions are looked up once for all examples; each example has its own gradient there."""
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=12,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=20,
        max_position_embeddings=16,
        num_labels=CLASSES,
    )
    model = transformers.BertForSequenceClassification(config).eval()
    gradient_gram(model, tokens(), torch.arange(N) % CLASSES)
    assert not [one for one in recwarn if "no fast path" in str(one.message)]
