"""The cutting of a training into jobs."""

from itertools import pairwise

import pytest

from stiffness.plan.segments import finished_segments, plan_segments, segment_name


def names(*cuts: int) -> list[str]:
    return [segment_name(start, end) for start, end in pairwise(cuts)]


def test_segment_name_sorts_as_its_numbers():
    assert segment_name(0, 20) == "epochs=0000-0020"
    assert names(0, 20, 40, 100) == sorted(names(0, 20, 40, 100))


@pytest.mark.parametrize(
    ("epochs", "per_job", "cuts"),
    [
        (40, 20, [0, 20, 40]),
        (50, 20, [0, 20, 40, 50]),
        (20, 20, [0, 20]),
        (7, 20, [0, 7]),
        (3, 1, [0, 1, 2, 3]),
    ],
)
def test_a_new_training(epochs, per_job, cuts):
    assert plan_segments(epochs, per_job, []) == names(*cuts)


@pytest.mark.parametrize("epochs", [40, 50])
def test_a_finished_training_stays(epochs):
    plan = plan_segments(epochs, 20, [])
    assert plan_segments(epochs, 20, plan) == plan


def test_more_epochs_add_new_segments_only():
    finished = plan_segments(50, 20, [])
    assert plan_segments(80, 20, finished) == names(0, 20, 40, 50, 60, 80)
    assert plan_segments(55, 20, finished) == names(0, 20, 40, 50, 55)


def test_other_epochs_per_job_leave_finished_segments():
    assert plan_segments(50, 30, names(0, 20)) == names(0, 20, 30, 50)
    assert plan_segments(60, 10, names(0, 20, 40)) == names(0, 20, 40, 50, 60)


def test_fewer_epochs_keep_the_finished_segment_that_reaches_past_them():
    finished = names(0, 20, 40)
    assert plan_segments(20, 20, finished) == names(0, 20)
    assert plan_segments(30, 20, finished) == finished
    assert plan_segments(5, 20, finished) == names(0, 20)


def test_a_training_finished_in_part():
    assert plan_segments(60, 20, names(0, 20)) == names(0, 20, 40, 60)


def test_a_segment_that_nothing_leads_to_is_ignored():
    assert plan_segments(40, 20, names(30, 40)) == names(0, 20, 40)


def test_of_two_that_start_alike_the_longer_is_kept():
    assert plan_segments(30, 10, ["epochs=0000-0010", "epochs=0000-0020"]) == names(0, 20, 30)
    assert plan_segments(30, 10, ["epochs=0000-0020", "epochs=0000-0010"]) == names(0, 20, 30)


@pytest.mark.parametrize("name", [".epochs=0000-0030.unfinished", "epochs=all", "state", ""])
def test_other_names_are_ignored(name):
    assert plan_segments(20, 20, [name]) == names(0, 20)


def test_finished_segments_of_a_folder(tmp_path):
    for name in ("epochs=0000-0020", "epochs=0020-0040", ".epochs=0040-0060.unfinished", "x"):
        (tmp_path / name).mkdir()
    assert sorted(finished_segments(tmp_path)) == names(0, 20, 40)
    assert finished_segments(tmp_path / "absent") == []
