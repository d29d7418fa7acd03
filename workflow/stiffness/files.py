"""Reading and writing the files that connect the rooms.

Every file is written under a temporary name beside its destination and then renamed, so that a
reader sees the whole file or none. Tensors are safetensors and tables are parquet; nothing is ever
unpickled. Both carry SHA-256 digests of their content, which are checked when it is read.
"""

import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stiffness.digests import json_digest, table_digest, tensors_digest
from stiffness.errors import StiffnessError

if TYPE_CHECKING:
    import pandas as pd
    import torch

METADATA_KEY = "stiffness"
DIGESTS_KEY = "sha256"
# What the file system says of locks that it does not have.
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the body succeeds.

    The temporary path has the same suffix, from which matplotlib takes the format. On any error the
    temporary file is removed and ``path`` stays as it was. Temporary files of writers that were
    killed are removed first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent, f".{path.stem}.", path.suffix)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    temporary = Path(name)
    try:
        _mark_in_use(handle)
        yield temporary
        _open_to_others(temporary, 0o666)
        os.replace(temporary, path)
    finally:
        os.close(handle)
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``; rename it to ``path`` if the body succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent, f".{path.name}.", "")
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    handle = os.open(temporary, os.O_RDONLY)
    try:
        _mark_in_use(handle)
        yield temporary
        _open_to_others(temporary, 0o777)
        replace_directory(temporary, path)
    finally:
        os.close(handle)
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(source: Path, path: Path) -> None:
    """Rename ``source`` to ``path``; a directory that is there is moved away and then deleted."""
    while True:
        old = None
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
            with suppress(FileNotFoundError):  # another process was faster
                os.replace(path, old)
        try:
            os.replace(source, path)
            return
        except OSError as error:
            # Another process has put its own directory there in the meantime.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        finally:
            if old is not None:
                shutil.rmtree(old, ignore_errors=True)


@contextmanager
def exclusive_lock(path: str | Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the lock file ``path`` until the body ends; other processes wait for it.

    The kernel frees the lock when its process ends, also when that is killed. The file exists for
    the lock alone and is removed in the end. Nobody waits on a file system that has no locks.

    Args:
        waiting: called once where another process holds the lock.
    """
    from filelock import FileLock, Timeout

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A soft lock, a file that marks its owner, would outlive an owner that was killed.
    lock = FileLock(path, fallback_to_soft=False)
    try:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        # Removed while it is held: whoever waited finds that the name is gone, and makes a new one.
        path.unlink(missing_ok=True)
        lock.release()


def _mark_in_use(handle: int) -> None:
    """Lock an open file or folder until it is closed; see ``_remove_abandoned``.

    By hand: ``filelock`` opens lock files itself, for writing, which a folder does not allow.
    """
    with suppress(OSError):  # no locks on this file system
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _remove_abandoned(folder: Path, prefix: str, suffix: str) -> None:
    """Remove temporary files and folders that no process holds a lock on: their writer is gone."""
    pattern = re.compile(re.escape(prefix) + "[a-z0-9_]{8}" + re.escape(suffix))
    for name in filter(pattern.fullmatch, os.listdir(folder)):
        try:
            handle = os.open(folder / name, os.O_RDONLY)
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (folder / name).is_dir():
                shutil.rmtree(folder / name, ignore_errors=True)
            else:
                (folder / name).unlink(missing_ok=True)
        except OSError:
            pass  # in use, or no locks here to tell
        finally:
            os.close(handle)


def _open_to_others(path: Path, mode: int) -> None:
    """Give a temporary file, which is private, the mode that an ordinary file would have."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def _write_checked(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write through ``atomic_write``; a full disk becomes an OSError that names the file.

    safetensors and pyarrow report ENOSPC each in their own exception type.
    """
    try:
        with atomic_write(path) as temporary:
            write(temporary)
    except Exception as error:
        text = str(error).lower()
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or re.search(r"no space left|quota exceeded|os error (28|122)\b", text):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def write_tensors(
    path: str | Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, Any]
) -> dict[str, str]:
    """Write named tensors and metadata to one safetensors file.

    Args:
        tensors: on any device, by name.
        metadata: whatever JSON can hold.

    Returns:
        The SHA-256 of every tensor, with its type and shape, by name.
    """
    from safetensors.torch import save_file

    whole, storages = {}, set()
    for name, tensor in tensors.items():
        copied = tensor.detach().cpu().contiguous()
        # The format refuses shared memory: a weight that two layers share is written for each.
        if copied.untyped_storage().data_ptr() in storages:
            copied = copied.clone()
        storages.add(copied.untyped_storage().data_ptr())
        whole[name] = copied
    digests = {name: tensors_digest([tensor]) for name, tensor in whole.items()}
    checked = digests | {"": json_digest(metadata)}
    # One key: the format stores several in any order, and equal content must give equal bytes.
    header = {METADATA_KEY: json.dumps({**metadata, DIGESTS_KEY: checked}, sort_keys=True)}
    _write_checked(path, lambda temporary: save_file(whole, temporary, metadata=header))
    return digests


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, OSError, AttributeError) as error:
        raise damaged_file_error(path, _first_line(error)) from None


def read_tensors(
    path: str | Path, names: Collection[str] | None = None
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Read tensors and metadata that ``write_tensors`` wrote.

    Files of earlier versions have no digests and are not checked.

    Args:
        names: the tensors to read; None for all.

    Raises:
        StiffnessError: the file is missing, truncated, changed, of another program, or lacks a
            tensor.
    """
    with _opened(path) as file:
        metadata = json.loads((file.metadata() or {})[METADATA_KEY])
        digests = metadata.pop(DIGESTS_KEY, {})
        if digests and digests[""] != json_digest(metadata):
            raise ValueError("its metadata have changed since they were written")
        wanted = file.keys() if names is None else names
        tensors = {name: file.get_tensor(name) for name in wanted}
        for name, tensor in tensors.items():
            if digests and digests[name] != tensors_digest([tensor]):
                raise ValueError(f"{name} has changed since it was written")
        return tensors, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata alone; the errors are those of ``read_tensors``."""
    return read_tensors(path, names=())[1]


def damaged_file_error(path: str | Path, reason: str) -> StiffnessError:
    """The error of a file that cannot be read; it says how to make the file again.

    Snakemake knows a folder of checkpoints as a whole and would not miss one file of it. A file
    that is made again by itself comes out as it was, so that nothing made from it is out of date.

    Args:
        reason: why the file cannot be read, in a few words.
    """
    path = Path(path)
    made = path.parent if path.name.startswith("step=") else path
    return StiffnessError(
        f"{path}: not a readable file of this workflow ({reason}); delete {made}, make it again "
        f"with `snakemake --cores 1 {made}` and the options of your command, and repeat the command"
    )


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table to parquet, with the digest of its content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), DIGESTS_KEY: table_digest(table)}
    content = content.replace_schema_metadata(metadata)
    _write_checked(
        path,
        lambda temporary: pq.write_table(content, temporary, write_page_checksum=True),
    )


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table as comma-separated values, for people to read."""
    _write_checked(path, lambda temporary: table.to_csv(temporary, index=False))


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read a parquet table; tables of earlier versions have no digest and are not checked.

    Raises:
        StiffnessError: the file is missing, not parquet, or changed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            content = file.read()
        table = content.to_pandas()
        digest = (content.schema.metadata or {}).get(DIGESTS_KEY.encode())
        if digest is not None and digest.decode() != table_digest(table):
            raise ValueError("its content has changed since it was written")
        return table
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such file") from None
    except (ValueError, TypeError, KeyError, OSError, pa.ArrowException) as error:
        raise damaged_file_error(path, _first_line(error)) from None


def rows(table: "pd.DataFrame", **values: Any) -> "pd.DataFrame":
    """Select the rows of a table whose columns have given values; they keep their index.

    Args:
        values: for each column a value, or a list, tuple or set of values.

    Raises:
        KeyError: the table has no such column.
    """
    import numpy as np

    chosen = np.ones(len(table), bool)
    for name, value in values.items():
        several = isinstance(value, (list, tuple, set, frozenset))
        chosen &= (table[name].isin(list(value)) if several else table[name] == value).to_numpy()
    return table[chosen]


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON with sorted keys."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8."""

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    _write_checked(path, write)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
