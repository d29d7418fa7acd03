"""Data small enough to train on in a second."""

import pytest
import torch

from stiffness.data.arrays import Arrays
from stiffness.data.images import load_digits

torch.set_num_threads(1)


@pytest.fixture(
    scope="session",
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[
                pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
                # Said of operators that add up in any order; results are compared all the same.
                pytest.mark.filterwarnings("ignore:.*deterministic"),
            ],
        ),
    ],
)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device that gradients and trainings run on."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def digits() -> Arrays:
    """1,200 training and 597 validation digits."""
    return load_digits(validation_examples=597, seed=0)


@pytest.fixture(scope="session")
def few_digits(digits: Arrays) -> Arrays:
    """150 training digits (5 batches of 32, the last one short) and 60 validation digits."""
    return Arrays.from_images(
        digits.train_inputs[:150],
        digits.train_targets[:150],
        digits.validation_inputs[:60],
        digits.validation_targets[:60],
        digits.class_names,
    )
