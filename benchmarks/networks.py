"""The networks that the benchmark measures, with random inputs and targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from stiffness.data.batch import Inputs
from stiffness.data.vision import import_torchvision
from stiffness.training.models import ModelSpec, build_model

TOKENS = 128
VOCABULARY = 30522
CLASSES = 3


@dataclass
class Network:
    model: nn.Module
    inputs: Inputs
    targets: torch.Tensor


class Recurrent(nn.Module):
    """An LSTM over 64 vectors: no layer family covers it."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.LSTM(64, 256, batch_first=True)
        self.out = nn.Linear(256, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.cells(x)[0][:, -1])


def images(name: str, shape: tuple[int, int, int], count: int) -> Network:
    model = build_model(ModelSpec(name), shape, 10, seed=0)
    return Network(model, torch.randn(count, *shape), torch.randint(10, (count,)))


def bert(layers: int, width: int, heads: int, count: int) -> Network:
    """A BERT classifier with random weights, as transformers builds it."""
    import_torchvision()  # which transformers imports, and could not beside a CPU-only torch
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        num_labels=CLASSES,
        hidden_dropout_prob=0.0,  # opacus works in training mode only
        attention_probs_dropout_prob=0.0,
    )
    # By default positions are looked up once for the whole batch, which opacus takes for the
    # gradient of one example.
    inputs = {
        "input_ids": torch.randint(VOCABULARY, (count, TOKENS)),
        "position_ids": torch.arange(TOKENS).repeat(count, 1),
        "token_type_ids": torch.zeros(count, TOKENS, dtype=torch.long),
    }
    model = BertForSequenceClassification(config).eval()
    return Network(model, inputs, torch.randint(CLASSES, (count,)))


def recurrent(count: int) -> Network:
    return Network(Recurrent().eval(), torch.randn(count, 64, 64), torch.randint(10, (count,)))


NETWORKS: dict[str, Callable[[int], Network]] = {
    "fc": lambda count: images("fc", (1, 28, 28), count),
    "cnn": lambda count: images("cnn", (1, 28, 28), count),
    "resnet20v1": lambda count: images("resnet20v1", (3, 32, 32), count),
    "encoder": lambda count: bert(6, 384, 6, count),
    "bert_base": lambda count: bert(12, 768, 12, count),
    "lstm": recurrent,
}


def build(name: str, count: int) -> Network:
    """A network and ``count`` examples, the same for every method."""
    torch.manual_seed(0)
    return NETWORKS[name](count)
