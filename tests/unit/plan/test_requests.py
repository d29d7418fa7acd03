"""What jobs ask for: more where the work is more, and more at every attempt."""

import pytest

from stiffness.plan.requests import (
    gradients_request,
    measures_request,
    training_request,
    training_threads,
)

TRAINING = {"model": "cnn", "arrays_mb": 55, "epochs": 20, "gpu": False, "attempt": 1}
GRADIENTS = {
    "model": "cnn",
    "examples": 1000,
    "shards": 1,
    "checkpoints": 20,
    "budget": 2**32,
    "gpu": False,
    "attempt": 1,
}
TILE = GRADIENTS | {"examples": 6000, "shards": 5}
STIFFNESS = {
    "examples": 1000,
    "shards": 1,
    "checkpoints": 20,
    "resamples": 1000,
    "attempt": 1,
}


@pytest.mark.parametrize(
    ("request_of", "base", "change", "grows"),
    [
        (training_request, TRAINING, {"epochs": 60}, {"runtime"}),
        (training_request, TRAINING, {"arrays_mb": 185}, {"mem_mb", "runtime"}),
        (training_request, TRAINING, {"model": "transformer"}, {"mem_mb", "runtime"}),
        (training_request, TRAINING, {"model": "own"}, {"runtime"}),
        (training_request, TRAINING, {"gpu": True}, {"mem_mb"}),
        (gradients_request, GRADIENTS, {"budget": 2**33}, {"mem_mb"}),
        (gradients_request, GRADIENTS, {"examples": 6000}, {"mem_mb", "runtime"}),
        (gradients_request, GRADIENTS, {"checkpoints": 40}, {"runtime"}),
        (gradients_request, TILE, {"shards": 2}, {"mem_mb", "runtime"}),
        (gradients_request, GRADIENTS, {"gpu": True}, {"mem_mb"}),
        (measures_request, STIFFNESS, {"examples": 6000}, {"mem_mb", "runtime"}),
        (measures_request, STIFFNESS | {"shards": 5}, {"shards": 2}, {"mem_mb"}),
        (measures_request, STIFFNESS, {"resamples": 4000}, {"mem_mb"}),
    ],
)
def test_what_grows_with_what(request_of, base, change, grows):
    before, after = request_of(**base), request_of(**base | change)
    assert {name for name in before if after[name] > before[name]} == grows
    assert {name for name in before if after[name] == before[name]} == set(before) - grows


@pytest.mark.parametrize(
    ("request_of", "base"),
    [
        (training_request, TRAINING),
        (gradients_request, GRADIENTS),
        (measures_request, STIFFNESS),
    ],
)
def test_an_attempt_asks_for_as_much_again(request_of, base):
    once, thrice = request_of(**base), request_of(**base | {"attempt": 3})
    assert thrice == {name: 3 * value for name, value in once.items()}


def test_the_budget_and_the_matrix_fit_into_the_memory_asked_for():
    matrix = 4 * 1000**2
    assert gradients_request(**GRADIENTS)["mem_mb"] * 1e6 > GRADIENTS["budget"] + 2 * matrix


@pytest.mark.parametrize(
    ("cores", "runs", "gpu", "threads"),
    [
        (2, 1, False, 2),
        (2, 2, False, 1),
        (2, 6, False, 1),
        (16, 5, False, 3),
        (16, 1, True, 1),
        (None, 1, False, 1),  # jobs of a cluster
    ],
)
def test_a_training_alone_uses_the_machine(cores, runs, gpu, threads):
    assert training_threads(cores, runs, gpu) == threads
