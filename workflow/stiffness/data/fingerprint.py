"""Noticing that a folder of raw images has changed, without reading the images."""

import hashlib
from pathlib import Path


def folder_fingerprint(path: str | Path) -> str:
    """A digest of names and sizes below ``path``: changes when images come, go or are replaced."""
    path = Path(path)
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path)} {file.stat().st_size}\n".encode())
    return digest.hexdigest()
