"""A user's code by import path: found without running it; every mistake is one line."""

import sys
from pathlib import Path

import pytest

from stiffness.errors import StiffnessError
from stiffness.own_code import (
    call_object,
    check_import_path,
    is_import_path,
    load_object,
    source_digest,
    source_files,
)

CODE = """
from pathlib import Path
import shapes
from parts.blocks import Block
Path("ran").touch()
def build(input_shape, num_classes, width=32):
    return shapes.size(input_shape), num_classes, width
class Net: pass
LIMIT = other = 3
if True:
    def chosen(): raise ValueError("no such\\nluck")
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("shapes", "parts", "parts.blocks", "user_pkg", "user_pkg.nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    Path("nets.py").write_text(CODE)
    Path("shapes.py").write_text("def size(shape): return len(shape)\n")
    Path("parts").mkdir()
    Path("parts/__init__.py").touch()
    Path("parts/blocks.py").write_text("from .norms import *\nclass Block: pass\n")
    Path("parts/norms.py").touch()
    return tmp_path


def complaint(function, *args, **kwargs) -> str:
    with pytest.raises(StiffnessError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["cnn", "org/net", "nets.py", "nets.py:", ":f", "a b:f", "n.py:f()"]
)
def test_what_is_no_import_path(name):
    assert not is_import_path(name)
    assert source_files(name) == []


def test_files_are_found_without_running_them():
    check_import_path("nets.py:build", "key")
    assert {*source_files("nets.py:build")} == {
        "nets.py",
        "shapes.py",
        "parts/__init__.py",
        "parts/blocks.py",
        "parts/norms.py",
    }
    inner = {"parts/__init__.py", "parts/blocks.py", "parts/norms.py"}
    assert {*source_files("parts.blocks:Block")} == inner
    assert source_files("json:loads") == [], "installed"
    assert not Path("ran").exists()


@pytest.mark.parametrize("file", ["nets.py", "shapes.py", "parts/norms.py"])
def test_an_edit_of_a_file_or_of_what_it_imports_changes_the_digest(file):
    before = source_digest("nets.py:build")
    with Path(file).open("a") as stream:
        stream.write("# edited\n")
    assert source_digest("nets.py:build") != before


@pytest.mark.parametrize("name", ["build", "Net", "LIMIT", "other", "chosen", "Block", "shapes"])
def test_names_of_every_kind_are_found(name):
    check_import_path(f"nets.py:{name}", "key")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("net.py:build", "key: there is no file net.py; a relative path begins in the working "),
        ("nowhere.nets:build", "key: there is no module 'nowhere.nets': neither in the working "),
        ("nets.py:biuld", "key: nets.py has no 'biuld'; it has Block, LIMIT, Net, Path, build, "),
        ("broken.py:build", "key: broken.py, line 2 is no Python"),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(path, message):
    Path("broken.py").write_text("\ndef build(:\n")
    assert complaint(check_import_path, path, "key").startswith(message)
    assert complaint(load_object, path, "key").startswith(message)
    assert not Path("ran").exists()


def test_a_function_and_its_neighbours_are_imported():
    build = load_object("nets.py:build", "key")
    assert call_object(build, "nets.py:build", "key", (1, 2, 3), 10, width=4) == (3, 10, 4)
    assert load_object("nets.py:build", "key") is build
    assert load_object("json:loads", "key")("1") == 1


def test_arguments_that_it_does_not_take_are_named():
    build = load_object("nets.py:build", "key")
    path = "experiments.a.model.name"
    message = complaint(call_object, build, "nets.py:build", path, (1,), 10, widht=4)
    assert message == (
        "experiments.a.model.arguments: nets.py:build does not take them (got an unexpected "
        "keyword argument 'widht'); it takes (input_shape, num_classes, width=32)"
    )


def test_an_error_inside_names_its_line():
    chosen = load_object("nets.py:chosen", "key")
    assert complaint(call_object, chosen, "nets.py:chosen", "key") == (
        "key: nets.py:chosen: the call failed in nets.py, line 11 (ValueError: no such luck)"
    )
    Path("bad.py").write_text("x = 1\nimport no_such_module\nf = x\n")
    assert complaint(load_object, "bad.py:f", "key") == (
        "key: bad.py:f: the import failed in bad.py, line 2 "
        "(ModuleNotFoundError: No module named 'no_such_module')"
    )
