"""Fewer training examples, and wrong labels."""

import pytest
import torch

from stiffness.data.arrays import Arrays, Normalization
from stiffness.data.draws import draw_stratified, draw_wrong_labels
from stiffness.data.evaluation import Evaluation, draw_evaluation
from stiffness.data.sources import load
from stiffness.errors import StiffnessError

DIGITS = {"validation_examples": 597, "seed": 0}


def few(number: int, seed: int = 0, noise: tuple[float, int] | None = None) -> Arrays:
    options = DIGITS | {"seed": seed, "train_examples": number}
    if noise:
        options["label_noise"] = {"share": noise[0], "seed": noise[1]}
    return load("digits", options, ".")


# --- fewer examples ------------------------------------------------------------------------------


def test_a_draw_has_equal_shares_of_what_there_is_and_none_twice():
    targets = torch.tensor([2, 0, 1, 1, 0, 2, 2, 0, 0, 1])
    chosen = draw_stratified(targets, 7, "abc", "key", torch.Generator().manual_seed(0))
    assert torch.bincount(targets[chosen]).tolist() == [3, 2, 2]
    assert len(set(chosen.tolist())) == 7


def test_few_examples_are_some_of_all_and_validation_is_untouched(digits):
    arrays = few(103)
    assert torch.bincount(arrays.train_targets).tolist() == [11] * 3 + [10] * 7
    # In their old order: found one after the other among all.
    whole = [(image.tolist(), int(label)) for image, label in zip(*_train(digits), strict=True)]
    places = [
        whole.index((image.tolist(), int(label)))
        for image, label in zip(*_train(arrays), strict=True)
    ]
    assert places == sorted(set(places))
    assert torch.equal(arrays.validation_inputs, digits.validation_inputs)
    assert torch.equal(arrays.validation_targets, digits.validation_targets)
    assert arrays.clean_targets is None


def _train(arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    return arrays.train_inputs, arrays.train_targets


def test_the_normalisation_is_that_of_the_few(digits):
    arrays, expected = few(30), Normalization.measure(few(30).train_inputs)
    assert torch.equal(arrays.normalization.mean, expected.mean)
    assert torch.equal(arrays.normalization.std, expected.std)
    assert not torch.equal(arrays.normalization.mean, digits.normalization.mean)


def test_the_draw_follows_from_the_seed(digits):
    generator = torch.random.get_rng_state()
    draws = [digits.with_few_examples(50, seed).train_inputs for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.random.get_rng_state(), generator)


@pytest.mark.parametrize(
    ("number", "rest"),
    [
        (9, "9 examples for 10 classes; ask for one per class or more"),
        (1201, "1201 examples need 121 of class '0', which has 119; ask for 1160 or fewer"),
    ],
)
def test_a_number_that_cannot_be(number, rest):
    with pytest.raises(StiffnessError) as raised:
        few(number)
    assert str(raised.value) == f"datasets: train_examples: {rest}"


def test_as_many_as_the_error_says_can_be():
    assert len(few(1160).train_targets) == 1160


def test_few_texts_keep_their_names():
    tokens = {"input_ids": torch.arange(24).reshape(8, 3), "attention_mask": torch.ones(8, 3)}
    arrays = Arrays.from_tokens(
        tokens, torch.arange(8) % 2, tokens, torch.arange(8) % 2, ["yes", "no"]
    )
    fewer = arrays.with_few_examples(4, 0).with_wrong_labels(0.5, 0)
    assert fewer.train_inputs["input_ids"].shape == (4, 3)
    assert torch.equal(fewer.train_inputs["input_ids"][:, 0] // 3 % 2, fewer.clean_targets)
    assert fewer.normalization is None


# --- wrong labels --------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.999])
def test_the_share_is_that_of_wrong_labels(share):
    targets = torch.arange(1230) % 10
    given = draw_wrong_labels(targets, 10, share, 0)
    assert int((given != targets).sum()) == round(share * 1230)
    assert set(given.tolist()) == set(range(10))


def test_wrong_labels_are_drawn_evenly_from_the_other_classes():
    targets = torch.arange(60_000) % 10
    given = draw_wrong_labels(targets, 10, 0.9, 0)
    table = torch.zeros(10, 10)
    table.index_put_((targets, given), torch.ones(60_000), accumulate=True)
    # Independent of the true one: 600 of each pair, within five binomial standard deviations.
    assert float((table - 600).abs().max()) < 5 * (6000 * 0.1 * 0.9) ** 0.5


def test_two_classes_swap():
    assert draw_wrong_labels(torch.tensor([0, 1, 1]), 2, 0.99, 0).tolist() == [1, 0, 0]


def test_wrong_labels_follow_from_the_seed_and_are_nested():
    targets = torch.arange(500) % 10
    less, more, other = (
        draw_wrong_labels(targets, 10, share, seed)
        for share, seed in ((0.2, 3), (0.6, 3), (0.2, 4))
    )
    wrong = less != targets
    assert torch.equal(less[wrong], more[wrong])
    assert not torch.equal(less, other)
    assert torch.equal(draw_wrong_labels(targets, 10, 0.2, 3), less)


def test_noise_is_in_the_training_set_alone_and_what_was_clean_is_kept(digits, tmp_path):
    clean, noisy = few(100), few(100, noise=(0.3, 1))
    assert torch.equal(noisy.clean_targets, clean.train_targets)
    assert int((noisy.train_targets != clean.train_targets).sum()) == 30
    assert torch.equal(noisy.train_inputs, clean.train_inputs)
    assert torch.equal(noisy.validation_targets, digits.validation_targets)
    noisy.save(tmp_path / "arrays.safetensors")
    found = Arrays.load(tmp_path / "arrays.safetensors")
    assert torch.equal(found.clean_targets, noisy.clean_targets)
    assert torch.equal(found.train_targets, noisy.train_targets)


def test_without_noise_nothing_is_kept(tmp_path):
    arrays = few(100, noise=(0, 0))
    assert arrays.clean_targets is None
    arrays.save(tmp_path / "arrays.safetensors")
    assert Arrays.load(tmp_path / "arrays.safetensors").clean_targets is None
    subset = draw_evaluation(arrays, 20, 20, 0)
    assert subset.mislabelled is None
    subset.save(tmp_path / "evaluation.safetensors")
    assert Evaluation.load(tmp_path / "evaluation.safetensors").mislabelled is None


def test_the_subset_is_drawn_by_given_label_and_knows_the_wrong_ones(tmp_path):
    arrays = few(200, noise=(0.4, 0))
    subset = draw_evaluation(arrays, 60, 40, 0)
    assert torch.bincount(subset.targets[:60]).tolist() == [6] * 10
    wrong = arrays.train_targets != arrays.clean_targets
    assert torch.equal(subset.mislabelled, wrong[subset.indices[:60]])
    assert torch.equal(subset.clean_targets, arrays.clean_targets[subset.indices[:60]])
    assert 0 < int(subset.mislabelled.sum()) < 60
    subset.save(tmp_path / "evaluation.safetensors")
    found = Evaluation.load(tmp_path / "evaluation.safetensors")
    assert torch.equal(found.mislabelled, subset.mislabelled)
