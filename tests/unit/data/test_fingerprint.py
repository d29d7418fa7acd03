"""A folder's fingerprint changes when its images do."""

import pytest

from stiffness.data.fingerprint import folder_fingerprint


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
