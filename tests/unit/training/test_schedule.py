"""Which steps get a checkpoint."""

from itertools import pairwise

import pytest

from stiffness.training.schedule import checkpoint_steps


def early(steps_per_epoch: int, early_checkpoints: int) -> list[int]:
    """The steps strictly between the initialisation and the end of the first epoch."""
    steps = checkpoint_steps(0, 1, steps_per_epoch, early_checkpoints)
    assert steps[0] == 0
    assert steps[-1] == steps_per_epoch
    return steps[1:-1]


def test_initialisation_early_steps_and_the_end_of_every_epoch():
    steps = checkpoint_steps(0, 3, 1875, 8)
    assert steps[0] == 0
    assert steps[-3:] == [1875, 3750, 5625]
    assert all(0 < step < 1875 for step in steps[1:-3])


def test_early_steps_are_log_spaced_from_the_first_step():
    steps = early(1875, 8)
    assert steps[0] == 1
    # From 5 on, rounding moves a ratio by less than a tenth.
    late = [step for step in [*steps, 1875] if step >= 5]
    ratios = [after / before for before, after in pairwise(late)]
    assert len(ratios) >= 5
    assert max(ratios) / min(ratios) < 1.15


@pytest.mark.parametrize("early_checkpoints", [0, 1, 4, 8])
def test_the_first_step_and_as_many_as_asked_for(early_checkpoints):
    assert len(early(100_000, early_checkpoints)) == 1 + early_checkpoints


def test_a_later_segment_keeps_epoch_ends_alone():
    assert checkpoint_steps(2, 5, 10, 8) == [30, 40, 50]


def test_segments_together_keep_what_one_would():
    whole = checkpoint_steps(0, 5, 38, 5)
    assert checkpoint_steps(0, 2, 38, 5) + checkpoint_steps(2, 5, 38, 5) == whole


def test_fractions_of_an_epoch():
    assert checkpoint_steps(1, 3, 100, 8, 0.25) == [125, 150, 175, 200, 225, 250, 275, 300]
    first = [0, 1, 25, 50, 75, 100]
    assert checkpoint_steps(0, 3, 100, 0, 0.25) == first + checkpoint_steps(1, 3, 100, 0, 0.25)
    assert checkpoint_steps(3, 4, 309, 0, 0.1)[:3] == [958, 989, 1020]


def test_several_epochs_apart_and_the_end_of_every_job():
    assert checkpoint_steps(3, 10, 10, 8, 2) == [40, 60, 80, 100]
    assert checkpoint_steps(4, 9, 10, 8, 2) == [60, 80, 90]
    assert checkpoint_steps(4, 9, 10, 8, 100) == [90]


@pytest.mark.parametrize("interval", [0.5, 0.3, 0.01])
def test_more_fractions_than_steps_keep_every_step_once(interval):
    steps = checkpoint_steps(2, 4, 3, 0, interval)
    assert steps == sorted(set(steps))
    assert set(steps) <= set(range(7, 13))
    assert steps[-1] == 12
    assert checkpoint_steps(0, 2, 3, 0, interval) + steps == checkpoint_steps(0, 4, 3, 0, interval)


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 3, 5, 38])
@pytest.mark.parametrize("early_checkpoints", [0, 1, 5, 50])
def test_short_epochs(steps_per_epoch, early_checkpoints):
    steps = checkpoint_steps(0, 2, steps_per_epoch, early_checkpoints)
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert {steps_per_epoch, 2 * steps_per_epoch} <= set(steps)
    assert [step for step in steps if step > steps_per_epoch] == [2 * steps_per_epoch]
    assert len(steps) <= 3 + early_checkpoints + 1
