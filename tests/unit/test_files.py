"""Whole files or none, and errors that name the file."""

import errno
import json
import os

import pandas as pd
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from stiffness.errors import StiffnessError
from stiffness.files import (
    read_metadata,
    read_table,
    read_tensors,
    replacing,
    replacing_directory,
    write_json,
    write_table,
    write_tensors,
)

TABLE = pd.DataFrame({"step": [0, 5], "loss": [2.3, 0.1]})


def write_some_tensors(path):
    write_tensors(path, {"x": torch.arange(6.0)}, {"step": 3})


def write_some_table(path):
    write_table(path, TABLE)


def write_some_json(path):
    write_json(path, {"b": 1, "a": [2.5, None]})


WRITERS = [write_some_tensors, write_some_table, write_some_json]


@pytest.fixture
def umask():
    """Set the umask for one test."""
    before = os.umask(0)
    yield os.umask
    os.umask(before)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- replacing -----------------------------------------------------------------------------------


def test_replacing_renames_at_the_end(tmp_path):
    path = tmp_path / "deep" / "figure.pdf"
    with replacing(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".pdf"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["figure.pdf"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_replacing_keeps_the_old_file_on_an_error(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_replacing_directory_swaps_the_whole_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with replacing_directory(path) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_replacing_directory_keeps_the_old_folder_on_an_error(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def write():
        with replacing_directory(path) as temporary:
            (temporary / "new").touch()
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert names(path) == ["old"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
@pytest.mark.parametrize("write", WRITERS)
def test_files_get_the_mode_that_open_would_give(tmp_path, umask, write, mask):
    umask(mask)
    write(tmp_path / "file")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask
    # Asking for the umask sets it for a moment.
    assert umask(mask) == mask


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_folders_get_the_mode_that_mkdir_would_give(tmp_path, umask, mask):
    umask(mask)
    with replacing_directory(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


# --- round trips ---------------------------------------------------------------------------------


def test_tensors_round_trip(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {
        "bytes": torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2),
        "view": torch.arange(12.0).reshape(3, 4).T,
        "layout": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "learned": torch.nn.Parameter(torch.ones(2)),
    }
    metadata = {"class_names": ["a", "ü"], "num_train": 5, "nested": {"x": 0.1}}
    write_tensors(path, tensors, metadata)
    found, found_metadata = read_tensors(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    assert found_metadata == metadata
    assert read_metadata(path) == metadata


def test_a_weight_that_two_layers_share_is_written_for_each(tmp_path):
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"first": shared, "second": shared, "part": shared[1:], "own": torch.ones(2)}
    write_tensors(tmp_path / "file", tensors, {})
    found, _ = read_tensors(tmp_path / "file")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], value) for name, value in tensors.items())


def test_only_the_named_tensors_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {"a": torch.ones(1), "b": torch.zeros(1)}, {})
    assert read_tensors(path, names=["b"])[0].keys() == {"b"}


def test_table_round_trip(tmp_path):
    write_table(tmp_path / "a.parquet", TABLE)
    pd.testing.assert_frame_equal(read_table(tmp_path / "a.parquet"), TABLE)


def test_json_round_trip(tmp_path):
    write_some_json(tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [2.5, None], "b": 1}


# --- a full disk ---------------------------------------------------------------------------------


def raising(error):
    def fail(*args, **kwargs):
        raise error

    return fail


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device"),
        SafetensorError("I/O error: (os error 28)"),
    ],
    ids=["OSError", "safetensors text", "safetensors number"],
)
def test_full_disk_while_writing_tensors(tmp_path, monkeypatch, error):
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    monkeypatch.setattr(safetensors.torch, "save_file", raising(error))
    with pytest.raises(OSError, match="No space left") as raised:
        write_some_tensors(path)
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(path)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.safetensors"]


def test_full_quota_while_writing_tensors(tmp_path, monkeypatch):
    error = SafetensorError("I/O error: Disk quota exceeded (os error 122)")
    monkeypatch.setattr(safetensors.torch, "save_file", raising(error))
    with pytest.raises(OSError, match=r"No space left|quota exceeded") as raised:
        write_some_tensors(tmp_path / "a.safetensors")
    assert raised.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert raised.value.filename == str(tmp_path / "a.safetensors")


def test_full_disk_while_writing_a_table(tmp_path, monkeypatch):
    # pyarrow fills in the number but no file name
    error = OSError(errno.ENOSPC, "Error writing bytes to file")
    monkeypatch.setattr("pyarrow.parquet.write_table", raising(error))
    with pytest.raises(OSError, match="No space left") as raised:
        write_some_table(tmp_path / "a.parquet")
    assert raised.value.errno == errno.ENOSPC
    assert raised.value.filename == str(tmp_path / "a.parquet")
    assert names(tmp_path) == []


@pytest.mark.parametrize("write", WRITERS)
def test_full_disk_before_the_first_byte(tmp_path, monkeypatch, write):
    error = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr("tempfile.mkstemp", raising(error))
    with pytest.raises(OSError, match="No space left") as raised:
        write(tmp_path / "file")
    assert raised.value.filename == str(tmp_path / "file")


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors.torch, "save_file", raising(SafetensorError("bad tensor")))
    with pytest.raises(SafetensorError, match="bad tensor"):
        write_some_tensors(tmp_path / "a.safetensors")


# --- damaged files -------------------------------------------------------------------------------

KINDS = [(write_some_tensors, read_tensors), (write_some_table, read_table)]


def complaint(read, path) -> str:
    with pytest.raises(StiffnessError) as raised:
        read(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(("write", "read"), KINDS)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.5, 0.99])
def test_truncated_file(tmp_path, write, read, kept):
    path = tmp_path / "file"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    message = complaint(read, path)
    assert f"delete {path}, make it again with `snakemake --cores 1 {path}`" in message


@pytest.mark.parametrize("read", [read_tensors, read_table, read_metadata])
def test_missing_file(tmp_path, read):
    assert complaint(read, tmp_path / "absent").endswith("no such file")


@pytest.mark.parametrize("read", [read_tensors, read_table])
def test_file_of_another_kind(tmp_path, read):
    path = tmp_path / "file"
    path.write_text("step,loss\n" * 20)
    complaint(read, path)


def test_tensors_of_another_program(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"x": torch.ones(1)}, path)
    complaint(read_tensors, path)


def test_missing_tensor_is_named(tmp_path):
    path = tmp_path / "a.safetensors"
    write_some_tensors(path)
    assert "absent" in complaint(lambda path: read_tensors(path, names=["absent"]), path)
