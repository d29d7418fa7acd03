"""A user's own code, which config.yaml names by an import path.

An import path is ``file.py:function``, with a file below the working directory or an absolute one,
or ``package.module:function``. To load it is to run the user's code. Whether the file and the
function are there is known without that, and without torch.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from stiffness.digests import file_digest, text_digest
from stiffness.errors import StiffnessError

_PATH = re.compile(r"(?P<module>.+\.py|[A-Za-z_]\w*(\.\w+)*):(?P<name>[A-Za-z_]\w*)")


def is_import_path(name: str) -> bool:
    """Whether a name is spelled as an import path.

    Examples:
        >>> [is_import_path(name) for name in ("nets.py:build", "my.nets:Net", "cnn", "org/net")]
        [True, True, False, False]
    """
    return _PATH.fullmatch(name) is not None


def source_files(path: str) -> list[str]:
    """The user's files that an import path reaches: its own, and those that it imports.

    Modules of installed packages do not count.

    Args:
        path: an import path; for any other name there are no files.
    """
    found = _sources(_split(path)[0]) if is_import_path(path) else []
    for file in found:  # grows in the loop
        folders = {file.parent, Path()}
        new = {module for name in _imports(file) for module in _modules_in(folders, name)}
        found += sorted(new - set(found))
    return [str(file) for file in found]


def source_digest(path: str) -> str:
    """A digest of the contents of ``source_files``; "" where there are none."""
    digests = [file_digest(file) for file in source_files(path)]
    return text_digest(" ".join(digests)) if digests else ""


def check_import_path(path: str, key: str) -> None:
    """Check that the file or module and the function are there, without running any code.

    Args:
        path: an import path.
        key: of the configuration, for messages.

    Raises:
        StiffnessError: there is no such file, module or function, or the file is not Python.
    """
    module, name = _split(path)
    file = next(iter(_sources(module)), None)
    if file is None:
        if module.endswith(".py"):
            raise StiffnessError(
                f"{key}: there is no file {module}; a relative path begins in the working "
                f"directory, {Path.cwd()}"
            )
        if importlib.util.find_spec(module.split(".")[0]) is None:
            raise StiffnessError(
                f"{key}: there is no module {module!r}: neither in the working directory nor "
                "installed"
            )
        return
    bound = set(_bound_names(_parsed(file, key)))
    if name not in bound and "*" not in bound:
        known = ", ".join(sorted(bound)) or "nothing"
        raise StiffnessError(f"{key}: {file} has no {name!r}; it has {known}")


def load_object(path: str, key: str) -> Any:
    """Import what an import path names. This runs the user's code.

    The folder of the file, or the working directory for a module, goes first on the search path for
    imports, as with ``python file.py``.

    Args:
        path: an import path.
        key: of the configuration, for messages.

    Raises:
        StiffnessError: see ``check_import_path``; or the import fails.
    """
    if not is_import_path(path):
        raise StiffnessError(f"{key}: {path!r} is no import path, such as nets.py:build")
    check_import_path(path, key)
    module, name = _split(path)
    try:
        loaded = _load_file(Path(module)) if module.endswith(".py") else _load_module(module)
        return getattr(loaded, name)
    except AttributeError as error:
        if not str(error).endswith(f"has no attribute {name!r}"):
            raise StiffnessError(_failed(key, path, "the import", error)) from None
        raise StiffnessError(f"{key}: {module} has no {name!r}") from None
    except Exception as error:  # whatever the user's code raises
        raise StiffnessError(_failed(key, path, "the import", error)) from None


def call_object(
    function: Callable[..., Any], path: str, key: str, *args: Any, **arguments: Any
) -> Any:
    """Call a user's function.

    Args:
        function: what ``load_object`` gave.
        path: its import path, for messages.
        key: of the configuration, for messages.
        args: given by place.
        arguments: those that the user has set, under the key ``arguments`` beside ``key``.

    Raises:
        StiffnessError: it does not take these arguments, or it fails.
    """
    try:
        signature = inspect.signature(function)
        signature.bind(*args, **arguments)
    except TypeError as error:
        key = ".".join([*key.split(".")[:-1], "arguments"]) if arguments else key
        raise StiffnessError(
            f"{key}: {path} does not take them ({error}); it takes {signature}"
        ) from None
    except ValueError:  # a function in C without a signature
        pass
    try:
        return function(*args, **arguments)
    except StiffnessError:
        raise
    except Exception as error:  # whatever the user's code raises
        raise StiffnessError(_failed(key, path, "the call", error)) from None


def _split(path: str) -> tuple[str, str]:
    match = _PATH.fullmatch(path)
    assert match, path
    return match["module"], match["name"]


def _sources(module: str) -> list[Path]:
    """The file of a module of the user's, and its packages'; none where it is installed."""
    if module.endswith(".py"):
        return [Path(module)] if Path(module).is_file() else []
    return list(_modules_in({Path()}, module))


def _modules_in(folders: set[Path], name: str) -> Iterator[Path]:
    """The file of a dotted name in folders, and then those of the packages that it is in."""
    for folder in folders:
        place = folder.joinpath(*name.split("."))
        files = [
            file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()
        ]
        yield from files
        for parent in place.parents if files else ():
            if parent == folder:
                break
            if (parent / "__init__.py").is_file():
                yield parent / "__init__.py"


def _imports(file: Path) -> Iterator[str]:
    """Dotted names that may be modules; the dots of a relative import are left out."""
    try:
        tree = ast.parse(file.read_text())
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            yield from (".".join([*base, alias.name]) for alias in node.names)
            yield from base


def _parsed(file: Path, key: str) -> ast.Module:
    try:
        return ast.parse(file.read_text())
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise StiffnessError(f"{key}: {file}{line} is no Python ({error.args[0]})") from None


def _bound_names(tree: ast.Module) -> Iterator[str]:
    """Names that a module binds at its top level, also below ``if`` and ``try``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in node.names)
        else:
            inner = (part for part in ast.walk(node) if isinstance(part, ast.Name | ast.stmt))
            for part in inner:
                if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                    yield part.id
                elif isinstance(part, ast.FunctionDef | ast.ClassDef):
                    yield part.name
                elif isinstance(part, ast.Import | ast.ImportFrom):
                    yield from ((alias.asname or alias.name) for alias in part.names)


def _load_file(file: Path) -> ModuleType:
    name = f"own_{text_digest(str(file.resolve()))[:8]}_{file.stem}"
    if name in sys.modules:
        return sys.modules[name]
    _search_in(file.parent)
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_module(name: str) -> ModuleType:
    _search_in(Path())
    return importlib.import_module(name)


def _search_in(folder: Path) -> None:
    place = str(folder.resolve())
    if place not in sys.path:
        sys.path.insert(0, place)


def _failed(key: str, path: str, what: str, error: Exception) -> str:
    """One line about an error in a user's code, with the place where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = set(map(str, (Path(file).resolve() for file in source_files(path))))
    inside = [frame for frame in frames if str(Path(frame.filename).resolve()) in own]
    where = f" in {Path(inside[-1].filename).name}, line {inside[-1].lineno}" if inside else ""
    text = " ".join(str(error).split())[:200]
    return f"{key}: {path}: {what} failed{where} ({type(error).__name__}: {text})"
