"""The record of a job: what it made, from what, with which settings, code, packages and device.

The record lies beside the job's log, as JSON, and names files as the workflow does, relative to
its folder; so it stays true when the folder is moved or copied. ``jobs.provenance`` reads it.
"""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from stiffness.digests import file_digest
from stiffness.files import write_json
from stiffness.process import peak_memory

# Modules whose version may change a result, and the distributions that they belong to.
_PACKAGES = {
    "datasets": "datasets",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "seaborn": "seaborn",
    "sklearn": "scikit-learn",
    "snakemake": "snakemake",
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "yaml": "PyYAML",
}
_HASHED = 2**24  # bytes; larger outputs carry checksums of their own


@contextmanager
def record_job(snakemake: Any) -> Iterator[None]:
    """Write the record of a job if the body succeeds.

    Args:
        snakemake: the object that Snakemake defines in a script.
    """
    path = record_path(snakemake.log[0])
    path.unlink(missing_ok=True)
    started = datetime.now(UTC)
    yield
    finished = datetime.now(UTC)
    inputs = {
        name: _file_names(files) for name, files in snakemake.input.items() if name != "library"
    }
    params, used = snakemake.params.items(), os.times()
    record = {
        "rule": snakemake.rule,
        "wildcards": dict(snakemake.wildcards.items()),
        "params": _to_json({name: value for name, value in params if name != "caption"}),
        "inputs": inputs,
        "threads": snakemake.threads,
        "outputs": {file: output_digest(file) for file in map(str, snakemake.output)},
        "started": started.isoformat(timespec="seconds"),
        "finished": finished.isoformat(timespec="seconds"),
        "seconds": round((finished - started).total_seconds(), 1),
        # From its start on, imports included.
        "process_seconds": round(finished.timestamp() - psutil.Process().create_time(), 1),
        "cpu_seconds": round(used.user + used.system, 1),
        "peak_mib": round(peak_memory() / 2**20),
        **environment(),
    }
    try:
        write_json(path, record)
    except OSError as error:
        print(f"no record: {error}", file=sys.stderr)


def record_path(log: str | Path) -> Path:
    """The path of the record of the job that writes this log."""
    return Path(log).with_suffix(".json")


def output_digest(file: str | Path) -> str | None:
    """SHA-256 of a file; None for a folder and for a large file."""
    path = Path(file)
    if not path.is_file() or path.stat().st_size > _HASHED:
        return None
    return file_digest(path)


def environment() -> dict[str, Any]:
    """The code's revision, the versions of imported packages, the device and the processor."""
    return {
        "revision": revision(Path(__file__).parents[1]),
        "python": platform.python_version(),
        "packages": {
            name: importlib.metadata.version(name)
            for module, name in _PACKAGES.items()
            if module in sys.modules
        },
        "device": _device(),
        "processor": _processor(),
    }


def revision(folder: Path) -> str:
    """The commit of the repository that a folder belongs to.

    Returns:
        The commit, with "-dirty" at its end where there are changes that are in no commit;
        "unknown" outside a repository.
    """
    try:
        # A copy of the workflow may lie in a repository that knows nothing of it.
        _git(folder, "ls-files", "--error-unmatch", "__init__.py")
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        # Jobs ask at once: none may wait for another's lock.
        env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    )
    return done.stdout.strip()


def _device() -> str:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return "cpu"


def _processor() -> str:
    # Neither psutil nor the platform module knows the model of a processor on Linux.
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _file_names(files: Any) -> list[str]:
    return [files] if isinstance(files, str) else [str(file) for file in files]


def _to_json(params: Mapping[str, Any]) -> Any:
    """Copy to plain JSON types: Snakemake's own lists and mappings are subclasses."""
    return json.loads(json.dumps(params, default=str))
