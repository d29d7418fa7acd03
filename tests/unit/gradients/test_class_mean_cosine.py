"""The class matrix over all pairs, in linear time, against the one through the Gram matrix."""

import numpy as np
import pytest
import torch
from torch import nn

from stiffness import class_mean_cosine, gradient_cosines
from stiffness.errors import StiffnessError
from stiffness.gradients.families.conv import convolution
from stiffness.measures.classes import class_stiffness
from stiffness.measures.pairs import select_pairs
from stiffness.training.models import ModelSpec, build_model

# Models without a fast path and budgets without room are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::stiffness.errors.StiffnessWarning")

CLASSES = 4


def through_the_gram_matrix(model: nn.Module, inputs, targets) -> torch.Tensor:
    cosines, log_norms = gradient_cosines(model, inputs, targets)
    labels = targets.numpy()
    pairs = select_pairs(
        cosines.numpy(), log_norms.numpy(), labels, len(labels), "train-train", "cosine"
    )
    weights = np.ones((len(labels), 1), np.float32)  # of resamples, which do not matter here
    return torch.from_numpy(class_stiffness(pairs, CLASSES, weights, weights).matrix)


@pytest.mark.parametrize("name", ["fc", "cnn", "resnet20v1"])
@pytest.mark.parametrize("budget", ["4GiB", "1MiB"])
def test_it_equals_the_gram_route(name, budget):
    torch.manual_seed(0)
    model = build_model(ModelSpec(name, padding="same"), (1, 12, 12), CLASSES, seed=0)
    inputs, targets = torch.randn(43, 1, 12, 12), torch.randint(CLASSES, (43,))
    found = class_mean_cosine(model, inputs, targets, memory_budget=budget)
    assert found.dtype == torch.float64
    expected = through_the_gram_matrix(model, inputs, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_confident_examples_count_in_full():
    torch.manual_seed(0)
    model = build_model(ModelSpec("fc"), (1, 6, 6), CLASSES, seed=0)
    last = list(model.modules())[-1]
    with torch.no_grad():
        last.weight *= 60
    inputs = torch.randn(30, 1, 6, 6)
    targets = model(inputs).argmax(1)
    _, log_norms = gradient_cosines(model, inputs, targets)
    assert log_norms.min() < -20
    found = class_mean_cosine(model, inputs, targets, num_classes=CLASSES)
    expected = through_the_gram_matrix(model, inputs, targets)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, equal_nan=True)


def test_what_has_no_pair_is_undefined():
    model = nn.Sequential(nn.Linear(3, 5))
    targets = torch.tensor([0, 0, 0, 1, 3, 3])
    found = class_mean_cosine(model, torch.randn(6, 3), targets, num_classes=5)
    undefined = torch.isnan(found)
    assert undefined[1, 1]  # one example
    assert undefined[2].all()  # none
    assert undefined[4].all()
    assert not undefined[0, [0, 1, 3]].any()
    # A product need not sum both of its triangles in the same order: 20 terms, in float64.
    torch.testing.assert_close(found, found.T, rtol=0, atol=20 * 2**-52, equal_nan=True)


def test_examples_without_a_gradient_are_left_out():
    model = nn.Sequential(nn.Linear(3, 4, bias=False))
    inputs, targets = torch.randn(8, 3), torch.tensor([0, 0, 0, 1, 1, 1, 2, 3])
    inputs[0] = 0  # the gradient of a bias-free layer
    found = class_mean_cosine(model, inputs, targets)
    torch.testing.assert_close(
        found, class_mean_cosine(model, inputs[1:], targets[1:]), equal_nan=True
    )


def test_targets_that_are_no_classes_are_refused():
    model = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(StiffnessError, match=r"^targets: class indices"):
        class_mean_cosine(model, torch.randn(5, 3), torch.randn(5, 4))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("room", [100, 1_000, 10_000])
def test_sums_have_one_order_of_columns_whatever_the_number_of_examples(groups, room):
    """The last chunk has fewer examples than the others, and is added to the same sums."""
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 6, 3, groups=groups).double()
    a, d = torch.randn(10, 8, 5, 5).double(), torch.randn(10, 6, 3, 3).double()
    labels, weights = torch.randint(CLASSES, (10,)), torch.rand(10).double()
    found, expected = torch.zeros(2, CLASSES, 6 * 8 * 9 // groups + 6, dtype=torch.float64)
    for chunk in (slice(0, 7), slice(7, 10)):
        late, early = (
            convolution(layer, a[chunk], d[chunk], form) for form in ("late rows", "rows")
        )
        late.add_sums(labels[chunk], weights[chunk], found, room)
        early.add_sums(labels[chunk], weights[chunk], expected, room)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
