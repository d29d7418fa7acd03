"""Commands that only look, in a process that has imported Snakemake before: half their time."""

import multiprocessing
import os
import sys
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["commands", "snakemake.cli", "snakemake.workflow", "pandas"])


def look(folder: Path, arguments: list[str], terminal: Path) -> int:
    """The exit code of ``snakemake`` in ``folder`` with these arguments, such as --dry-run."""
    path = os.environ.pop("PYTHONPATH", None)  # as project.Project.run
    try:
        process = _CONTEXT.Process(target=_snakemake, args=(folder, arguments, terminal))
        process.start()
    finally:
        if path is not None:
            os.environ["PYTHONPATH"] = path
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _snakemake(folder: Path, arguments: list[str], terminal: Path) -> None:
    with terminal.open("w") as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
    os.chdir(folder)
    os.environ.pop("PYTHONPATH", None)
    library = Path(__file__).parents[2] / "workflow"
    sys.path[:] = [place for place in sys.path if place and Path(place).resolve() != library]
    sys.argv = ["snakemake", *arguments]
    from snakemake.cli import main

    main()
