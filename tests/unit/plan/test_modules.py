"""An edited module reruns what uses it: every module of the library, in turn."""

import re
from pathlib import Path

import pytest

from stiffness.plan.kinds import KINDS
from stiffness.plan.modules import library_modules

WORKFLOW = Path(__file__).parents[3] / "workflow"
LIBRARY = WORKFLOW / "stiffness"
# Modules that no job names, and why an edit of them makes no result stale.
EXCEPTIONS = {
    r"__init__\.py": "forwards names to those who import the package; jobs import modules",
    r"(\w+/)+__init__\.py": "docstrings alone; one that holds more is named",
    r"plan/\w+\.py": "decides what jobs get, which are their inputs and parameters",
    r"jobs/terminal\.py": "what a user sees of a run; no job imports it",
    r"jobs/scheduling\.py": "how Snakemake waits; no job imports it",
    r"gradients/reference\.py": "what tests compare the engine with; no job computes with it",
    r"(monitor|integrations)/.*": "for other people's training loops",
    r"(pages/.*|report/predictions\.py)": "makes pages of committed tables; no job imports it",
    r"measures/from_cosines\.py": "for notebooks: the measurements of one matrix",
}


def read(script: str, module: str = "") -> set[str]:
    """The library modules that a script's rule names, as paths below the library."""
    sources = [WORKFLOW / "scripts" / f"{script}.py"]
    sources += [LIBRARY / "figures" / f"{module}.py"] if module else []
    files = (Path(file).resolve() for file in library_modules(WORKFLOW, *sources))
    return {str(file.relative_to(LIBRARY)) for file in files if file.is_relative_to(LIBRARY)}


@pytest.fixture(scope="module")
def named() -> dict[str, set[str]]:
    """The modules of every rule's script, and of every kind of figure."""
    scripts = {path.stem for path in (WORKFLOW / "scripts").glob("*.py")} - {"figure"}
    return {script: read(script) for script in scripts} | {
        f"figure {name}": read("figure", kind.module or name) for name, kind in KINDS.items()
    }


def test_every_module_is_named_or_an_exception(named):
    modules = {str(path.relative_to(LIBRARY)) for path in LIBRARY.rglob("*.py")}
    unnamed = modules - set().union(*named.values())
    excused = {name for name in unnamed for one in EXCEPTIONS if re.fullmatch(one, name)}
    assert unnamed - excused == set()
    assert len(modules) > 60


def test_a_package_of_its_own_logic_is_named(named):
    for path in LIBRARY.rglob("*/__init__.py"):
        name = str(path.relative_to(LIBRARY))
        if "import " in path.read_text() and "monitor" not in name and "integrations" not in name:
            assert any(name in files for files in named.values()), name


@pytest.mark.parametrize(
    "module",
    sorted(
        path.relative_to(LIBRARY).as_posix()
        for path in (LIBRARY / "gradients/families").glob("*.py")
    ),
)
def test_a_family_of_layers_reruns_the_gradients(named, module):
    assert module in named["gradients"]
    assert module in named["layer_gradients"]
    assert module not in named["measures"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_figure_is_drawn_by_its_module_alone(named, kind):
    module = f"figures/{KINDS[kind].module or kind}.py"
    assert module in named[f"figure {kind}"]
    assert {"figures/load.py", "figures/style.py"} <= named[f"figure {kind}"]
    others = {f"figures/{KINDS[name].module or name}.py" for name in KINDS} - {module}
    shared = {  # what a module itself imports from another kind's
        "arithmetic_axes": {"figures/arithmetic.py"},
        "layers": {"figures/distance.py", "figures/critical_length.py"},
        "critical_lengths": {"figures/critical_length.py"},
    }
    assert named[f"figure {kind}"] & others <= shared.get(kind, set())


@pytest.fixture
def package(tmp_path):
    def write(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


@pytest.mark.parametrize(
    "script",
    [
        "import stiffness.room.one",
        "from stiffness.room import one",
        "from stiffness.room.one import name",
        "def later():\n    from stiffness.room.one import name",
        'import_module("stiffness.room.one")',
        'TABLE = {"kind": "stiffness.room.one:name"}',
    ],
)
def test_ways_to_import_a_module(package, script):
    root = package(
        script=script,
        stiffness__room__one="from stiffness.ground import x",
        stiffness__room__two="",
        stiffness__ground="",
    )
    (root / "stiffness/__init__.py").write_text("EXPORTS = {}")
    (root / "stiffness/room/__init__.py").write_text('"""Words alone."""')
    found = [Path(file).name for file in library_modules(root, root / "script.py")]
    assert found == ["script.py", "ground.py", "one.py"]
    (root / "stiffness/room/__init__.py").write_text("from stiffness.room import two")
    (root / "other.py").write_text(script)
    library_modules.__globals__["_has_logic"].cache_clear()
    library_modules.__globals__["_imported"].cache_clear()
    found = [Path(file).name for file in library_modules(root, root / "other.py")]
    assert found == ["other.py", "ground.py", "__init__.py", "one.py", "two.py"]


def test_what_is_imported_from_the_whole_package_counts(package):
    root = package(script="from stiffness import name", stiffness__ground="")
    (root / "stiffness/__init__.py").write_text('EXPORTS = {"name": "stiffness.ground"}')
    found = [Path(file).name for file in library_modules(root, root / "script.py")]
    assert found == ["script.py", "__init__.py", "ground.py"]


def test_prose_that_names_a_module_is_no_import(package):
    root = package(script='"""See stiffness.ground for more."""', stiffness__ground="")
    assert len(library_modules(root, root / "script.py")) == 1
