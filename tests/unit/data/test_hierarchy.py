"""Hierarchies of classes: what a file may say, and which pairs of classes belong to a level."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from stiffness.data.hierarchy import Hierarchy, read_hierarchy
from stiffness.errors import StiffnessError

CIFAR100 = Path(__file__).parents[3] / "workflow/hierarchies/cifar100.yaml"

GOOD = """
super_super_classes:
  living: [pets, "trees"]
  non-living: [things]
super_classes:
  things: [cup, 7]
  pets: [cat, dog]
  trees: [no]
"""
NAMES = ["7", "cat", "cup", "dog", "no"]


@pytest.fixture
def write(tmp_path):
    def make(text: str) -> Path:
        path = tmp_path / "groups.yaml"
        path.write_text(text)
        return path

    return make


def refusal(path: Path, names: list[str] | None = None) -> str:
    with pytest.raises(StiffnessError) as raised:
        read_hierarchy(path).check_classes(names or [], path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


def test_names_are_text_and_groups_stand_together(write):
    hierarchy = read_hierarchy(write(GOOD))
    hierarchy.check_classes(NAMES, "groups.yaml")
    assert hierarchy.class_names == ["cat", "dog", "no", "cup", "7"]
    assert list(hierarchy.super_classes) == ["pets", "trees", "things"]
    assert hierarchy.super_super_classes == {"living": ["pets", "trees"], "non-living": ["things"]}


def test_levels_are_disjoint_and_follow_the_given_order(write):
    cells = read_hierarchy(write(GOOD)).cells(NAMES)
    pairs = {
        name: {(NAMES[a], NAMES[b]) for a, b in zip(*np.nonzero(mask), strict=True)}
        for name, mask in cells.items()
    }
    assert pairs["super_class"] == {("cat", "dog"), ("dog", "cat"), ("7", "cup"), ("cup", "7")}
    across = set(itertools.product(["cat", "dog"], ["no"]))
    assert pairs["super_super_class"] == across | {(b, a) for a, b in across}


def test_the_second_level_is_optional(write):
    hierarchy = read_hierarchy(write("super_classes: {one: [a, b], two: [c]}"))
    assert hierarchy == Hierarchy({"one": ["a", "b"], "two": ["c"]}, {})
    assert list(hierarchy.cells(["a", "b", "c"])) == ["super_class"]


WRONG = {
    "a class listed twice": (
        GOOD.replace("[no]", "[no, cat]"),
        ["the class 'cat' is listed twice", "'pets'", "'trees'"],
    ),
    "a class twice in one group": (
        GOOD.replace("[no]", "[no, no]"),
        ["the class 'no' is listed twice in 'trees'"],
    ),
    "a super-class in two halves": (
        GOOD.replace("[things]", "[things, pets]"),
        ["the super-class 'pets' is listed twice", "'living'", "'non-living'"],
    ),
    "a super-class in no half": (
        GOOD.replace('[pets, "trees"]', "[pets]"),
        ["the super-class 'trees' is in no super-super-class"],
    ),
    "an unknown super-class": (
        GOOD.replace("[things]", "[things, stones]"),
        ["super_super_classes", "'stones'"],
    ),
    "a group named twice": (GOOD + "  pets: [horse]\n", ["'pets' (line 9) is named twice"]),
    "a level named twice": (GOOD + "super_classes: {}\n", ["'super_classes'", "named twice"]),
    "an empty group": (GOOD.replace("[no]", "[]"), ["super_classes", "'trees'"]),
    "a group that is a word": (GOOD.replace("[no]", "no"), ["super_classes", "'trees'"]),
    "a member that is a group": (GOOD.replace("[no]", "[[no]]"), ["'trees'", "['no']"]),
    "no super-classes": ("super_super_classes: {}", ["super_classes"]),
    "nothing": ("", ["super_classes"]),
    "a level of words": ("super_classes: [a, b]", ["super_classes is not a mapping"]),
    "another key": (GOOD + "classes: {}\n", ["unknown key 'classes'"]),
    "no YAML": ("super_classes: [a, b", ["not a readable hierarchy file"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_file_that_cannot_be(write, name):
    text, parts = WRONG[name]
    message = refusal(write(text))
    assert [part for part in parts if part not in message] == [], message


def test_a_missing_file(tmp_path):
    assert "no such hierarchy file" in refusal(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("names", "parts"),
    [
        ([*NAMES, "horse"], ["'horse'", "is in no super-class"]),
        ([*NAMES, "horse", "ant"], ["'ant'", "is in no super-class (and 1 more)"]),
        (NAMES[1:], ["no class '7'", "its classes are cat, cup, dog, no"]),
        (["x"], ["no class 'cat' (and 4 more)", "its classes are x"]),
    ],
)
def test_other_classes_than_the_data_set_has(write, names, parts):
    message = refusal(write(GOOD), names)
    assert [part for part in parts if part not in message] == [], message


def test_cifar100_has_20_super_classes_of_5_in_two_halves():
    hierarchy = read_hierarchy(CIFAR100)
    assert len(set(hierarchy.class_names)) == 100
    assert [len(members) for members in hierarchy.super_classes.values()] == [5] * 20
    assert {name: len(members) for name, members in hierarchy.super_super_classes.items()} == {
        "living": 13,
        "non-living": 7,
    }
    cells = hierarchy.cells(sorted(hierarchy.class_names))
    assert cells["super_class"].sum() == 100 * 4
    assert cells["super_super_class"].sum() == 65 * 60 + 35 * 30
