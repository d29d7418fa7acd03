"""The repository's own configuration, and wildcards as Snakemake gives them."""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.iocontainers import Wildcards

from stiffness.plan.config import read_settings

CONFIG = Path(__file__).parents[3] / "config.yaml"


@pytest.fixture
def settings(tmp_path, monkeypatch) -> dict[str, Any]:
    """Read in an empty folder: nothing has been made."""
    monkeypatch.chdir(tmp_path)
    return copy.deepcopy(_settings())


@pytest.fixture(scope="session")
def shipped() -> dict[str, Any]:
    """config.yaml as it is written."""
    return yaml.safe_load(CONFIG.read_text())


@pytest.fixture
def config(shipped: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(shipped)


@cache
def _settings() -> dict[str, Any]:
    return read_settings(yaml.safe_load(CONFIG.read_text()))


@pytest.fixture
def wildcards() -> Callable[..., Wildcards]:
    return lambda **values: Wildcards(fromdict=values)
