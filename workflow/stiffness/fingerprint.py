"""Noticing that raw data have changed: images by their sizes, a few files by their contents."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from stiffness.digests import file_digest, text_digest


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
