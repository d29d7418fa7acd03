"""SHA-256 digests, by which files, tensors, tables and settings are told apart."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    import torch


def text_digest(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def json_digest(value: Any) -> str:
    """SHA-256 of a value that JSON can hold; the order of a mapping's keys does not count."""
    return text_digest(json.dumps(value, sort_keys=True))


def file_digest(path: str | Path, algorithm: str = "sha256") -> str:
    """Digest of a file's content, in hexadecimal digits.

    Args:
        algorithm: a name that ``hashlib`` knows, such as "sha256" or "md5".

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as stream:
        # Where MD5 is asked for, it guards against accidents, not against attacks.
        return hashlib.file_digest(
            stream, lambda: hashlib.new(algorithm, usedforsecurity=False)
        ).hexdigest()


def tensors_digest(tensors: Iterable["torch.Tensor"]) -> str:
    """SHA-256 of tensors on the CPU, in their order: of their types, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def table_digest(table: "pd.DataFrame") -> str:
    """SHA-256 of a table's names and values.

    A number counts with its type; every missing value in a column of numbers counts the same.
    """
    import numpy as np

    digest = hashlib.sha256()
    for name in table.columns:
        values = table[name].to_numpy()
        if values.dtype.kind == "f":
            values = np.where(np.isnan(values), np.nan, values)
        numbers = values.dtype.kind in "iufb"
        kind = str(table[name].dtype) if numbers else "text"
        digest.update(f"{name} {kind} {len(values)} ".encode())
        if numbers:
            digest.update(np.ascontiguousarray(values).data)
        else:
            digest.update("\0".join(map(str, values)).encode())
    return digest.hexdigest()


def mix_seed(*numbers: int) -> int:
    """A seed of 63 bits from several numbers; neighbouring numbers give unrelated seeds."""
    digest = hashlib.sha256(" ".join(map(str, numbers)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
