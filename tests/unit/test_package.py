"""The library as a package: what it imports, what a wheel of it holds, and the notebooks."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from itertools import groupby
from pathlib import Path

import pytest

import stiffness

REPOSITORY = Path(__file__).parents[2]


def run(code: str, path: Path, **environment: str) -> str:
    """Run Python in a process of its own, with ``path`` as the only place of the library."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(path), **environment},
        cwd=path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_to_import_it_costs_nothing():
    # What takes time is torch (1 s), pandas and numpy; without them it is a few milliseconds.
    loaded = run(
        "import sys; before = set(sys.modules); import stiffness; "
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))",
        REPOSITORY / "workflow",
    ).split()
    assert "stiffness" in loaded
    assert set(loaded) <= {"stiffness", *sys.stdlib_module_names}


def test_every_name_that_it_exports_is_there():
    assert set(stiffness.__all__) == set(stiffness._EXPORTS)
    for name in stiffness.__all__:
        assert getattr(stiffness, name).__name__ == name


FACE = """
import sys
for name in {blocked!r}:
    sys.modules[name] = None  # importing it fails, as where it is not installed
import torch
from stiffness import *
x, y = torch.randn(40, 5), torch.arange(40) % 2
model = torch.nn.Linear(5, 2)
monitor = StiffnessMonitor(train=(x[:20], y[:20]), validation=(x[20:], y[20:]), resamples=40)
monitor.measure(model, 0)
monitor.plot().savefig("stiffness.png")
torch.save(model.state_dict(), "step=0.pt")
measure_checkpoints(model, "step=0.pt", (x, y), (x, y), resamples=40)
cosines, _ = gradient_cosines(model, x, y)
class_stiffness(cosines, y)
critical_length(cosines, y, cosine_distances(x))
import stiffness
print(stiffness.__file__)
"""


@pytest.mark.slow
def test_a_wheel_holds_the_library_which_needs_no_package_of_the_workflow(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet"]
    # From a copy: setuptools writes beside the sources.
    copy = ["git", "archive", "--format=tar", "--output", tmp_path / "copy.tar", "HEAD"]
    subprocess.run(copy, cwd=REPOSITORY, check=True)
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    subprocess.run(["tar", "xf", tmp_path / "copy.tar", "-C", source], check=True)
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("stiffness-*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(unpacked)
    modules = {
        path.relative_to(source / "workflow")
        for path in (source / "workflow/stiffness").rglob("*.py")
    }
    assert modules == {path.relative_to(unpacked) for path in unpacked.rglob("*.py")}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = {one for names in project["optional-dependencies"].values() for one in names}
    modules_of = {"scikit-learn": "sklearn"}
    blocked = ["snakemake", *(modules_of.get(name, name) for name in extras)]
    assert not extras & set(project["dependencies"])
    assert str(unpacked) in run(FACE.format(blocked=blocked), unpacked)


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook", sorted((REPOSITORY / "examples").glob("*.ipynb")), ids=lambda path: path.stem
)
@pytest.mark.filterwarnings("ignore")  # of the kernel
def test_a_notebook_runs(notebook, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "workflow"))
    held = nbformat.read(notebook, 4)
    fresh = nbformat.read(notebook, 4)
    where = {"metadata": {"path": str(notebook.parent)}}
    NotebookClient(fresh, timeout=600, resources=where).execute()
    for cell, old in zip(fresh.cells, held.cells, strict=True):
        if cell.cell_type == "code":
            # What the page shows is what the cell gives today, in kind.
            assert kinds(cell.outputs) == kinds(old.outputs), cell.source


def kinds(outputs) -> list[list[str]]:
    """What outputs are; what is printed in one go or in several is the same."""
    each = [sorted(output.get("data", {})) or [output["output_type"]] for output in outputs]
    return [kind for kind, _ in groupby(each)]


def test_the_notebooks_hold_what_they_gave_and_no_path_of_a_machine():
    import json

    notebooks = sorted((REPOSITORY / "examples").glob("*.ipynb"))
    assert len(notebooks) == 2
    for path in notebooks:
        text = path.read_text()
        assert not re.search(r"/(home|tmp|work|root)/", text), path.name
        for cell in json.loads(text)["cells"]:
            if cell["cell_type"] == "code":
                assert cell["execution_count"] is not None, path.name
