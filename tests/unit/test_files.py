"""Whole files or none, and errors that name the file."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

import stiffness.files
from stiffness.errors import StiffnessError
from stiffness.files import (
    atomic_directory,
    atomic_write,
    exclusive_lock,
    read_metadata,
    read_table,
    read_tensors,
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


# --- atomic_write ------------------------------------------------------------------------------


def test_atomic_write_renames_at_the_end(tmp_path):
    path = tmp_path / "deep" / "figure.pdf"
    with atomic_write(path) as temporary:
        assert temporary.parent == path.parent
        assert temporary.suffix == ".pdf"
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["figure.pdf"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_write_keeps_the_old_file_on_an_error(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_atomic_directory_swaps_the_whole_folder(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()
    with atomic_directory(path) as temporary:
        (temporary / "new").touch()
        assert names(path) == ["old"]
    assert names(path) == ["new"]
    assert names(tmp_path) == ["folder"]


def test_atomic_directory_keeps_the_old_folder_on_an_error(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def write():
        with atomic_directory(path) as temporary:
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
    with atomic_directory(tmp_path / "folder"):
        pass
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o777 & ~mask


# --- killed writers, and several at once ----------------------------------------------------------

HANGS = """
import sys, time
from stiffness.files import atomic_write, atomic_directory
with {writer}(sys.argv[1]) as temporary:
    print(temporary, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("writer", ["atomic_write", "atomic_directory"])
def test_what_a_killed_writer_left_goes_with_the_next_and_a_live_ones_stays(tmp_path, writer):
    library = Path(stiffness.files.__file__).parents[1]
    command = [sys.executable, "-c", HANGS.format(writer=writer), str(tmp_path / "a.x")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(library)}
    ) as other:
        (left,) = [Path(other.stdout.readline().strip())]

        def write():
            with getattr(stiffness.files, writer)(tmp_path / "a.x") as temporary:
                if temporary.is_dir():
                    (temporary / "one").touch()

        write()
        assert left.exists()
        other.kill()
        other.wait()
        write()
        assert names(tmp_path) == ["a.x"]


def test_of_two_writers_of_a_folder_the_last_one_wins_whole(tmp_path):
    path = tmp_path / "folder"
    with atomic_directory(path) as first:
        (first / "a").touch()
        with atomic_directory(path) as second:
            (second / "b").touch()
        assert names(path) == ["b"]
    assert names(path) == ["a"]
    assert names(tmp_path) == ["folder"]


HOLDS = """
import sys, time
from stiffness.files import exclusive_lock
with exclusive_lock(sys.argv[1], lambda: print("waits", flush=True)):
    print("has it", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def test_one_at_a_time_and_the_next_when_it_is_killed(tmp_path):
    library = Path(stiffness.files.__file__).parents[1]

    def start(seconds: str):
        return subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(tmp_path / "lock"), seconds],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(library)},
        )

    with start("600") as first:
        assert first.stdout.readline() == "has it\n"
        with start("0") as second:
            assert second.stdout.readline() == "waits\n"
            first.kill()
            assert second.stdout.read() == "has it\n"
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_nobody_waits_where_the_file_system_has_no_locks(tmp_path, monkeypatch, number):
    def fail(*_):
        raise OSError(number, "no locks")

    monkeypatch.setattr("fcntl.flock", fail)
    with exclusive_lock(tmp_path / "lock"):
        (tmp_path / "result").touch()
    assert names(tmp_path) == ["result"]


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


@pytest.mark.parametrize(("write", "read"), KINDS)
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path, write, read):
    """In the values, and in what says how to read them."""
    path = tmp_path / "file"
    write(path)
    whole, content, refused = path.read_bytes(), read(path), 0
    for place in range(0, len(whole), 5):
        altered = bytearray(whole)
        altered[place] ^= 1 << place % 8
        path.write_bytes(altered)
        try:
            found = read(path)
        except StiffnessError:
            refused += 1
        else:
            same_content(found, content)
    assert refused > len(whole) / 20


def same_content(found, expected):
    if isinstance(expected, pd.DataFrame):
        pd.testing.assert_frame_equal(found, expected)
    else:
        assert found[1] == expected[1]
        assert torch.equal(found[0]["x"], expected[0]["x"])


def test_the_same_content_has_the_same_bytes(tmp_path):
    for number in range(8):
        write_some_tensors(tmp_path / f"{number}")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_every_value_is_covered_by_a_digest(tmp_path):
    path = tmp_path / "file"
    write_some_tensors(path)
    whole = path.read_bytes()
    for place in range(len(whole) - 24, len(whole)):  # six numbers of four bytes
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert "x has changed since it was written" in complaint(read_tensors, path)
        read_metadata(path)  # of it nothing has changed


def test_files_of_earlier_versions_have_no_digest_and_are_read(tmp_path):
    tensors, table = tmp_path / "a.safetensors", tmp_path / "a.parquet"
    header = {"stiffness": json.dumps({"step": 3})}
    safetensors.torch.save_file({"x": torch.ones(2)}, tensors, metadata=header)
    TABLE.to_parquet(table, index=False)
    assert read_tensors(tensors)[1] == {"step": 3}
    pd.testing.assert_frame_equal(read_table(table), TABLE)


def test_one_file_of_a_folder_of_checkpoints_is_made_again_with_its_folder(tmp_path):
    path = tmp_path / "epochs=0000-0001" / "step=00000006.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"")
    assert f"delete {path.parent}, make it again" in complaint(read_tensors, path)


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
