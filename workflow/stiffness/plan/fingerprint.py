"""Noticing that raw data have changed: images by their sizes, a few files by their contents."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from stiffness.data.hub import local_or_hub
from stiffness.digests import file_digest, text_digest


def raw_fingerprint(dataset: Mapping[str, Any], data_dir: str | Path) -> str | list[str]:
    """A digest of a user's own raw data; others are fixed, and checked against known checksums.

    Args:
        dataset: the options of the data set.
    """
    if dataset["source"] != "text":
        path = dataset.get("path")
        return folder_fingerprint(Path(data_dir) / path) if path else ""
    tokenizer = local_or_hub(dataset["tokenizer"], data_dir)
    fingerprints = [content_fingerprint(tokenizer, ("*.json", "*.txt", "*.model"))]
    if dataset.get("path"):
        texts = Path(data_dir) / dataset["path"]
        fingerprints.append(content_fingerprint(texts, ("train.*", "validation.*")))
    return fingerprints


def folder_fingerprint(path: str | Path) -> str:
    """A digest of names and sizes below ``path``: changes when images come, go or change in size.

    A folder that is not there has the fingerprint of an empty one.
    """
    entries = sorted(_names_and_sizes(os.fspath(path), ""))
    return text_digest("\n".join(entries))


def content_fingerprint(path: str | Path, patterns: Sequence[str]) -> str:
    """A digest of names and contents of the files in ``path`` that match one of ``patterns``.

    An edited label changes no size, nor do other weights of one network. A folder that is not there
    has the fingerprint of an empty one.
    """
    files = sorted({file for pattern in patterns for file in Path(path).glob(pattern)})
    entries = [
        f"{file.name} {_content(file, file.stat().st_mtime_ns, file.stat().st_size)}"
        for file in files
        if file.is_file()
    ]
    return text_digest("\n".join(entries))


@cache  # Snakemake asks again for every job
def _content(file: Path, changed: int, size: int) -> str:
    return file_digest(file)


def _names_and_sizes(folder: str, prefix: str) -> list[str]:
    # scandir, not pathlib: this runs at every start of Snakemake, on up to 60,000 files.
    found: list[str] = []
    if not os.path.isdir(folder):
        return found
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                found += _names_and_sizes(entry.path, name + "/")
            elif entry.is_file():
                found.append(f"{name} {entry.stat().st_size}")
    return found
