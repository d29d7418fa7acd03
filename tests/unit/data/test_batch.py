"""Images and named tensors of tokens, handled alike."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stiffness.data.batch import (
    call,
    concatenate_inputs,
    flatten_inputs,
    length,
    place,
    take,
    trim_padding,
    unflatten_inputs,
)
from stiffness.errors import StiffnessError

IMAGES = torch.arange(24.0).reshape(4, 1, 2, 3)
TOKENS = {
    "input_ids": torch.tensor([[2, 5, 3, 0, 0], [2, 6, 7, 3, 0], [2, 3, 0, 0, 0]]),
    "attention_mask": torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]),
}


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.weight * (input_ids * attention_mask).sum(1))


def test_length():
    assert length(IMAGES) == 4
    assert length(TOKENS) == 3


def test_tensors_of_different_lengths_are_named():
    with pytest.raises(StiffnessError, match=r"'input_ids': 3, 'attention_mask': 2"):
        length({**TOKENS, "attention_mask": TOKENS["attention_mask"][:2]})


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([1, 2])], ids=str)
def test_take(rows):
    assert torch.equal(take(IMAGES, rows), IMAGES[1:3])
    taken = take(TOKENS, rows)
    assert taken.keys() == TOKENS.keys()
    for name, value in taken.items():
        assert torch.equal(value, TOKENS[name][1:3])


def test_place():
    meta = torch.device("meta")
    assert place(IMAGES, meta).device == meta
    assert {value.device for value in place(TOKENS, meta).values()} == {meta}


def test_a_dict_is_passed_by_keyword_and_logits_are_taken():
    model = Named()
    sums = torch.tensor([10.0, 18.0, 5.0])
    assert torch.equal(call(model, TOKENS), 2 * sums)
    assert torch.equal(call(model, TOKENS, {"weight": torch.tensor(3.0)}), 3 * sums)
    assert torch.equal(call(nn.Flatten(), IMAGES), IMAGES.flatten(1))


def test_joined():
    assert torch.equal(concatenate_inputs(IMAGES[:1], IMAGES[1:]), IMAGES)
    both = concatenate_inputs(take(TOKENS, slice(0, 1)), take(TOKENS, slice(1, 3)))
    for name, value in TOKENS.items():
        assert torch.equal(both[name], value)


def test_padding_that_all_examples_share_is_trimmed():
    assert {name: value.shape for name, value in trim_padding(TOKENS).items()} == {
        "input_ids": (3, 4),
        "attention_mask": (3, 4),
    }
    assert torch.equal(trim_padding(TOKENS)["input_ids"], TOKENS["input_ids"][:, :4])
    assert torch.equal(trim_padding(take(TOKENS, slice(2, 3)))["input_ids"], torch.tensor([[2, 3]]))


def test_nothing_else_is_trimmed():
    assert trim_padding(IMAGES) is IMAGES
    without_mask = {"input_ids": TOKENS["input_ids"]}
    assert trim_padding(without_mask) is without_mask
    padding = {name: torch.zeros_like(value) for name, value in TOKENS.items()}
    assert trim_padding(padding)["input_ids"].shape == (3, 1)


def test_names_in_a_file_and_back():
    stored = {**flatten_inputs(IMAGES, "inputs"), "targets": torch.zeros(4)}
    assert stored.keys() == {"inputs", "targets"}
    assert unflatten_inputs(stored, "inputs") is IMAGES
    stored = {**flatten_inputs(TOKENS, "inputs"), "inputs_of_another": torch.zeros(4)}
    assert stored.keys() == {"inputs/input_ids", "inputs/attention_mask", "inputs_of_another"}
    assert unflatten_inputs(stored, "inputs") == TOKENS
    with pytest.raises(KeyError):
        unflatten_inputs(stored, "targets")
