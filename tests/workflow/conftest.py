"""The workflow as a user runs it: copied to a temporary folder, built once, changed in copies."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from project import GROUPS, REPOSITORY, Project

PARTS = ("Snakefile", "config.yaml", "workflow", "profiles", "envs")


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workflow as it was when the tests began."""
    folder = tmp_path_factory.mktemp("source")
    ignore = shutil.ignore_patterns("__pycache__")
    for name in PARTS:
        if (REPOSITORY / name).is_dir():
            shutil.copytree(REPOSITORY / name, folder / name, ignore=ignore)
        else:
            shutil.copy2(REPOSITORY / name, folder / name)
    (folder / "groups.yaml").write_text(GROUPS)
    Project(folder).configure({})
    return folder


@pytest.fixture(scope="session")
def tiny(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The built tiny experiment: to be read, not changed. Test processes share one."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    project = Project(root / "tiny" / "project")
    with (root / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        terminal = project.folder / "terminal.txt"
        if not terminal.exists():  # or a process before this one could not build it
            shutil.rmtree(project.folder, ignore_errors=True)
            shutil.copytree(source, project.folder)
            outcome = project.build()
            terminal.write_text(outcome.output)
    return project


@pytest.fixture
def built(tiny: Project, tmp_path: Path) -> Project:
    """A copy of the built tiny experiment, times of change included."""
    return Project(shutil.copytree(tiny.folder, tmp_path / "project"))


@pytest.fixture
def fresh(source: Path, tmp_path: Path) -> Project:
    """The workflow without any results."""
    return Project(shutil.copytree(source, tmp_path / "project"))
