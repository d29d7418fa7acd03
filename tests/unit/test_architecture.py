"""The rooms and their order: what may import what."""

import ast
from pathlib import Path

import pytest

ROOMS = ("data", "training", "gradients", "measures", "figures", "report")
BESIDE = ("plan", "jobs")
"""Rooms beside the chain: the rule files and the scripts use them, no room of the chain does."""
OUTSIDE = ("monitor", "integrations", "pages")
"""What measures in somebody else's training, and the committed results: they use the rooms, and
nothing in them uses these."""
WORKFLOW = Path(__file__).parents[2] / "workflow"
LIBRARY = WORKFLOW / "stiffness"
SCRIPT_ROOMS = {
    "arrays": "data",
    "evaluation": "data",
    "hierarchy": "data",
    "imported": "training",
    "training": "training",
    "gradients": "gradients",
    "representations": "gradients",
    "whole_set": "gradients",
    "layer_gradients": "gradients",
    "measures": "measures",
    "layer_stiffness": "measures",
    "tables": "measures",
    "comparison": "measures",
    "archive": "report",
    "claims": "report",
    "provenance": "report",
}
"""The room that a script works for; the others draw figures."""


def imported(path: Path) -> set[str]:
    """The modules of the library that a module imports, as seen from the library."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides from this check"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.removeprefix("stiffness.") for name in names if name.startswith("stiffness.")}


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)} & {*ROOMS, *BESIDE, *OUTSIDE}


def test_no_room_imports_a_later_one():
    crossings = 0
    for place, room in enumerate(ROOMS):
        for path in (LIBRARY / room).rglob("*.py"):
            later = rooms_of(path) & {*ROOMS[place + 1 :], *BESIDE, *OUTSIDE}
            assert not later, f"{path.relative_to(LIBRARY)} imports {later}"
            crossings += len(rooms_of(path) - {room})
    assert crossings > 5


def test_shared_modules_import_no_room():
    # An edit in a room would otherwise reach every other through what they share.
    shared = [path for path in LIBRARY.glob("*.py") if path.name != "__init__.py"]
    assert len(shared) > 2
    for path in shared:
        assert not rooms_of(path), path.name


def test_every_package_is_a_room():
    folders = {path.name for path in LIBRARY.iterdir() if (path / "__init__.py").exists()}
    assert folders == {*ROOMS, *BESIDE, *OUTSIDE}


@pytest.mark.parametrize(
    "script", sorted((WORKFLOW / "scripts").glob("*.py")), ids=lambda path: path.stem
)
def test_no_script_imports_a_later_room(script):
    # Its rule would rerun for an edit of what comes after it.
    place = ROOMS.index(SCRIPT_ROOMS.get(script.stem, "figures"))
    later = rooms_of(script) & {*ROOMS[place + 1 :], *OUTSIDE}
    assert not later, f"{script.name} imports {later}"
