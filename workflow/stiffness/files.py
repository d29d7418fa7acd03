"""Reading and writing the files that connect the rooms.

Every file is written to a temporary name beside its destination and renamed, so a reader sees
the whole file or none. Tensors are safetensors, tables are parquet; nothing is ever unpickled.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stiffness.errors import StiffnessError

if TYPE_CHECKING:
    import pandas as pd
    import torch

METADATA_KEY = "stiffness"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` if the body succeeds.

    The suffix is kept (matplotlib reads the format from it). On any error the temporary file is
    removed and ``path`` is left as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _open_to_others(temporary, 0o666)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_directory(path: str | Path) -> Iterator[Path]:
    """The same for a directory: filled under a temporary name, then renamed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        _open_to_others(temporary, 0o777)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _open_to_others(path: Path, mode: int) -> None:
    """Temporary files are private; give the mode that an ordinary file would have."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(mode & ~umask)


def _write_checked(path: str | Path, write: Callable[[Path], None]) -> None:
    """Write through ``replacing``; a full disk becomes an OSError that names the file.

    safetensors and pyarrow report ENOSPC each in their own exception type.
    """
    try:
        with replacing(path) as temporary:
            write(temporary)
    except Exception as error:
        text = str(error).lower()
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        if full or re.search(r"no space left|quota exceeded|os error (28|122)\b", text):
            raise OSError(errno.ENOSPC, "No space left on device", str(path)) from error
        raise


def write_tensors(
    path: str | Path, tensors: Mapping[str, "torch.Tensor"], metadata: Mapping[str, Any]
) -> None:
    """Write named tensors and a JSON-serialisable ``metadata`` to one safetensors file."""
    from safetensors.torch import save_file

    whole, storages = {}, set()
    for name, tensor in tensors.items():
        kept = tensor.detach().cpu().contiguous()
        # The format holds no memory twice: a weight that two layers share is written for each.
        if kept.untyped_storage().data_ptr() in storages:
            kept = kept.clone()
        storages.add(kept.untyped_storage().data_ptr())
        whole[name] = kept
    header = {METADATA_KEY: json.dumps(metadata, sort_keys=True)}
    _write_checked(path, lambda temporary: save_file(whole, temporary, metadata=header))


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such file") from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise StiffnessError(
            f"{path}: not a readable file of this workflow ({_line(error)}); "
            "delete it and run again to rebuild it"
        ) from None


def read_tensors(
    path: str | Path, names: Collection[str] | None = None
) -> tuple[dict[str, "torch.Tensor"], dict[str, Any]]:
    """Read the tensors (all, or those named) and the metadata written by ``write_tensors``.

    Raises:
        StiffnessError: the file is missing, truncated, not one of ours, or lacks a named tensor.
    """
    with _opened(path) as file:
        metadata = json.loads((file.metadata() or {})[METADATA_KEY])
        wanted = file.keys() if names is None else names
        return {name: file.get_tensor(name) for name in wanted}, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata alone of a file written by ``write_tensors``; raises as ``read_tensors``."""
    return read_tensors(path, names=())[1]


def write_table(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table to parquet."""
    _write_checked(path, lambda temporary: table.to_parquet(temporary, index=False))


def write_csv(path: str | Path, table: "pd.DataFrame") -> None:
    """Write a table that people read as comma-separated values."""
    _write_checked(path, lambda temporary: table.to_csv(temporary, index=False))


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read a parquet table.

    Raises:
        StiffnessError: the file is missing or not parquet.
    """
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such file") from None
    except (ValueError, OSError) as error:
        raise StiffnessError(
            f"{path}: not a readable parquet table ({_line(error)}); "
            "delete it and run again to rebuild it"
        ) from None


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON."""
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    _write_checked(path, lambda temporary: _write_text(temporary, text))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
