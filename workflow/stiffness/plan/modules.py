"""Which library modules a script uses, and making them importable for the workflow's jobs."""

import ast
import os
from functools import cache
from pathlib import Path


def library_modules(script: str | Path, root: str | Path) -> list[str]:
    """``script`` and the modules of this package that it imports, directly or not.

    Snakemake does not see imports. Named as inputs of a rule, an edited module reruns the rules
    whose scripts reach it, and no others. Packages' own files hold no logic and are not listed.

    Args:
        root: the folder that holds the package.

    Returns:
        Paths relative to the working directory, so that a workflow moved as a whole is not out
        of date.
    """
    found = {Path(script)}
    queue = [Path(script)]
    while queue:
        new = _imported(queue.pop(), Path(root)) - found
        found |= new
        queue += new
    return sorted(os.path.relpath(source) for source in found)


@cache
def _imported(script: Path, root: Path) -> frozenset[Path]:
    """The modules of this package that one file imports itself."""
    names: list[str] = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    own = (name for name in names if name.startswith("stiffness."))
    sources = (root / (name.replace(".", "/") + ".py") for name in own)
    return frozenset(source for source in sources if source.is_file())


def share_with_jobs(root: str | Path) -> str:
    """Let jobs import the package from ``root``, in whatever environment they run.

    Returns:
        The search path, for where Snakemake takes the variable away.
    """
    paths = [str(root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return os.environ["PYTHONPATH"]
