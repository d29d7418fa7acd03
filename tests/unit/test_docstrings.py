"""The examples in the library's docstrings run and print what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

WORKFLOW = Path(__file__).parents[2] / "workflow"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(WORKFLOW).with_suffix("").parts).removesuffix(".__init__")
    for path in (WORKFLOW / "stiffness").rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name):
    result = doctest.testmod(import_module(name))
    assert result.attempted > 0
    assert result.failed == 0
