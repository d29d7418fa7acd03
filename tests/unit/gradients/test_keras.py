"""Our ``keras`` arithmetic against Keras itself, with its torch backend."""

import os

import pytest
import torch
from torch import nn

from stiffness.gradients.arithmetic import raw_gradients

os.environ.setdefault("KERAS_BACKEND", "torch")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def keras():
    found = pytest.importorskip("keras")
    if found.backend.backend() != "torch":
        pytest.skip("Keras was imported with another backend than torch")
    return found


@pytest.fixture(scope="module")
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """A trained network's logits from unsure to absurdly confident, right and wrong."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(-1, 2.5, 400)[:, None]
    logits = scale * torch.randn(400, 10, generator=generator)
    targets = torch.where(torch.arange(400) % 4 > 0, logits.argmax(1), torch.arange(400) % 10)
    return logits, targets


def gradients_of(losses: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(losses.sum(), logits)[0]


@pytest.mark.parametrize("sparse", [False, True])
def test_our_gradient_is_that_of_keras(keras, batch, sparse: bool) -> None:
    logits, targets = batch
    leaf = logits.clone().requires_grad_()
    output = keras.activations.softmax(leaf)
    if sparse:
        losses = keras.losses.sparse_categorical_crossentropy(targets, output)
    else:
        truth = nn.functional.one_hot(targets, 10).float()
        losses = keras.losses.categorical_crossentropy(truth, output)
    theirs = gradients_of(losses, leaf)
    ours = raw_gradients(logits, targets, "cross_entropy", "keras")
    zero = (theirs == 0).all(1)
    assert 0.2 < zero.double().mean() < 0.9  # the batch has both sides of the clip
    assert torch.equal(zero, (ours == 0).all(1))
    # The same operations in float32, up to the order in which a sum is taken.
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_network_of_keras_trains_with_that_gradient(keras, batch) -> None:
    """What ``compile`` and ``fit`` use, not the function alone."""
    logits, targets = batch
    identity = keras.layers.Dense(10, activation="softmax", use_bias=False)
    model = keras.Sequential([keras.Input((10,)), identity])
    model.compile(keras.optimizers.SGD(1.0), "categorical_crossentropy")
    identity.set_weights([torch.eye(10).numpy()])
    truth = nn.functional.one_hot(targets, 10).float()
    model.train_on_batch(logits.numpy(), truth.numpy())
    moved = torch.eye(10) - identity.kernel.value.detach()
    ours = raw_gradients(logits, targets, "cross_entropy", "keras")
    # float32 sums over 400 examples, whose inputs reach 1000.
    expected = logits.T @ ours / len(logits)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
