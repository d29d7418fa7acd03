"""A fingerprint changes when the images of a folder, or the contents of its files, do."""

import os

import pytest

from stiffness.fingerprint import content_fingerprint, folder_fingerprint


@pytest.fixture
def folder(tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png", "test/cat/3.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"pixels")
    return tmp_path / "images"


def test_same_content_same_fingerprint(folder):
    before = folder_fingerprint(folder)
    assert folder_fingerprint(str(folder)) == before
    moved = folder.rename(folder.with_name("moved"))
    assert folder_fingerprint(moved) == before


def add(folder):
    (folder / "train/cat/4.png").write_bytes(b"pixels")


def remove(folder):
    (folder / "train/cat/1.png").unlink()


def replace(folder):
    (folder / "train/cat/1.png").write_bytes(b"other pixels")


def rename(folder):
    (folder / "train/cat/1.png").rename(folder / "train/cat/0.png")


def move_to_another_class(folder):
    (folder / "train/cat/1.png").rename(folder / "train/dog/1.png")


@pytest.mark.parametrize("change", [add, remove, replace, rename, move_to_another_class])
def test_changes_are_noticed(folder, change):
    before = folder_fingerprint(folder)
    change(folder)
    assert folder_fingerprint(folder) != before


def test_a_missing_folder_has_a_fingerprint_that_images_change(folder):
    """The rule's own error is better than one while the workflow is read."""
    assert folder_fingerprint(folder / "absent") != folder_fingerprint(folder)


def test_contents_count_where_sizes_stay(tmp_path):
    (tmp_path / "train.jsonl").write_text('{"label": 0}')
    (tmp_path / "notes.txt").write_text("one")
    before = content_fingerprint(tmp_path, ("train.*", "validation.*"))
    assert content_fingerprint(tmp_path, ("train.*", "*.jsonl")) == before
    (tmp_path / "notes.txt").write_text("two")
    os.utime(tmp_path / "train.jsonl", (1, 1))
    assert content_fingerprint(tmp_path, ("train.*", "validation.*")) == before
    (tmp_path / "train.jsonl").write_text('{"label": 1}')
    edited = content_fingerprint(tmp_path, ("train.*", "validation.*"))
    (tmp_path / "train.jsonl").rename(tmp_path / "validation.jsonl")
    renamed = content_fingerprint(tmp_path, ("train.*", "validation.*"))
    (tmp_path / "train.csv").touch()
    more = content_fingerprint(tmp_path, ("train.*", "validation.*"))
    assert len({before, edited, renamed, more}) == 4


def test_a_folder_that_is_not_there_has_the_contents_of_an_empty_one(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other" / "train.jsonl").mkdir(parents=True)
    prints = {
        content_fingerprint(tmp_path / name, ("train.*",)) for name in ("empty", "absent", "other")
    }
    assert len(prints) == 1
