"""Noticing that a folder of raw images has changed, without reading the images."""

import hashlib
import os
from pathlib import Path


def folder_fingerprint(path: str | Path) -> str:
    """A digest of names and sizes below ``path``: changes when images come, go or change in size.

    A folder that is not there has the fingerprint of an empty one.
    """
    entries = sorted(_names_and_sizes(os.fspath(path), ""))
    return hashlib.sha256("\n".join(entries).encode()).hexdigest()


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
