"""Which library modules a script uses, and making them importable for the workflow's jobs."""

import ast
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = "stiffness"


def library_modules(root: str | Path, *sources: str | Path) -> list[str]:
    """``sources`` and the modules of this package that they import, directly or not.

    Snakemake does not see imports. Named as inputs of a rule, an edited module reruns the rules
    whose scripts reach it, and no others. A module that is only named, as "stiffness.room.module"
    in a string, counts: it is imported by that name. So does the ``__init__.py`` of every package
    on the way that holds more than its docstring, but for that of the whole package: it forwards
    names to those who import from it, and does nothing for others.

    Args:
        root: the folder that holds the package.

    Returns:
        Paths relative to the working directory, so that a workflow moved as a whole is not out
        of date.
    """
    queue = [Path(source) for source in sources]
    found = set(queue)
    while queue:
        new = _imported(queue.pop(), Path(root)) - found
        found |= new
        queue += new
    return sorted(map(_relative, found))


@cache
def _relative(path: Path) -> str:
    return os.path.relpath(path)


@cache
def _imported(source: Path, root: Path) -> frozenset[Path]:
    """The modules of this package that one file imports or names itself."""
    files: set[Path] = set()
    for name in _names(ast.parse(source.read_text())):
        parts = name.split(".")
        places = [root.joinpath(*parts[:end]) for end in range(2, len(parts) + 1)] or [root / name]
        files |= {place / "__init__.py" for place in places if _has_logic(place / "__init__.py")}
        files.add(places[-1].with_suffix(".py"))
    return frozenset(file for file in files if file.is_file())


def _names(tree: ast.AST) -> Iterator[str]:
    """Dotted names below the package that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (node.module or "", *names)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            yield from (name for name in names if name.split(".")[0] == PACKAGE)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            named = re.fullmatch(rf"({PACKAGE}(\.\w+)+)(:\w+)?", node.value)
            yield from named.groups()[:1] if named else ()


@cache
def _has_logic(path: Path) -> bool:
    """Whether a package's own file is there, and holds more than its docstring."""
    return path.is_file() and any(
        not isinstance(node, ast.Expr) for node in ast.parse(path.read_text()).body
    )


def share_with_jobs(root: str | Path) -> str:
    """Let jobs import the package from ``root``, in whatever environment they run.

    Returns:
        The search path, for where Snakemake takes the variable away.
    """
    paths = [str(root), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, paths)))
    return os.environ["PYTHONPATH"]
