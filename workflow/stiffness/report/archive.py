"""One zip of results to pass on: tables, figures, verdicts, and where they came from.

It is a Research Object Crate: ``ro-crate-metadata.json`` lists every file with its size and its
SHA-256. Unpacked into ``results/`` it is a folder of results again.
"""

import json
import logging
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from stiffness.digests import file_digest, text_digest
from stiffness.files import atomic_write

logger = logging.getLogger(__name__)
CONFIGURATION = "config.yaml"
METADATA = "ro-crate-metadata.json"
MANIFEST = "manifest-sha256.txt"
_RAW_DATA = "arrays.safetensors"  # large, and not ours to pass on
_GRADIENTS = ("gradients", "layer_gradients", "representations")
_KINDS = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".json": "application/json",
    ".md": "text/markdown",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".html": "text/html",
    ".yaml": "application/yaml",
}


def archived_files(results: str | Path, checkpoints: bool = False) -> list[Path]:
    """The files of a folder of results that belong into an archive, those made first first.

    Checkpoints (unless they are asked for), gradients, raw data and other archives stay out.
    """
    found = []
    for path in Path(results).rglob("*"):
        parts = path.relative_to(results).parts
        room = parts[3] if len(parts) > 4 and parts[0] != "logs" else ""  # <experiment>/lr=/seed=/
        left_out = (
            any(part.startswith(".") for part in parts)
            or path.suffix in (".zip", ".log")
            or path.name == _RAW_DATA
            or room in _GRADIENTS
            or (room == "checkpoints" and path.suffix == ".safetensors" and not checkpoints)
        )
        if path.is_file() and not left_out:
            found.append(path)
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, str(path)))


def write_archive(
    output: str | Path,
    results: str | Path,
    configuration: Mapping[str, Any],
    checkpoints: bool = False,
) -> None:
    """Write the zip ``output`` of ``archived_files``.

    Args:
        configuration: with which the results were made, as config.yaml and the command gave it.
    """
    results, files = Path(results), archived_files(results, checkpoints)
    digests = {str(path.relative_to(results)): file_digest(path) for path in files}
    text = yaml.safe_dump(dict(configuration), sort_keys=False)
    digests[CONFIGURATION] = text_digest(text)
    published = datetime.fromtimestamp(max(path.stat().st_mtime for path in files), UTC)
    # In the order in which files were made, so that no file is newer than what was made of it
    # when an unpacking program dates each by the moment it writes it.
    with atomic_write(output) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for path in files:
            packed = path.suffix in (".png", ".pdf", ".parquet")
            method = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
            archive.write(path, path.relative_to(results), method)
        archive.writestr(CONFIGURATION, text, zipfile.ZIP_DEFLATED)
        lines = [f"{digest}  {name}\n" for name, digest in sorted(digests.items())]
        archive.writestr(MANIFEST, "".join(lines), zipfile.ZIP_DEFLATED)
        sizes = {name.filename: name.file_size for name in archive.infolist()}
        metadata = _describe(digests, sizes, published)
        archive.writestr(METADATA, metadata, zipfile.ZIP_DEFLATED)
    size = Path(output).stat().st_size / 1e6
    logger.info("%d files, %.1f MB: %s", len(digests), size, output)


def _describe(digests: Mapping[str, str], sizes: Mapping[str, int], published: datetime) -> str:
    """The text of ro-crate-metadata.json."""
    from rocrate.rocrate import ROCrate

    crate = ROCrate()
    crate.name = "Results of the stiffness workflow"
    crate.description = (
        "Stiffness of neural networks (alignment of per-example loss gradients): tables, figures, "
        "verdicts, the jobs' records, and the configuration that they were made with"
    )
    crate.datePublished = published
    for name, digest in sorted(digests.items()):
        about = {"contentSize": str(sizes[name]), "sha256": digest}
        kind = _KINDS.get(Path(name).suffix)
        crate.add_file(
            dest_path=name, properties=about | ({"encodingFormat": kind} if kind else {})
        )
    return json.dumps(crate.metadata.generate(), indent=2)
