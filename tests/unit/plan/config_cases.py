"""A configuration with keys put in and dropped, and what is said of it."""

import pytest

from stiffness.errors import StiffnessError
from stiffness.plan.config import read_settings


def put(config, key: str, value) -> None:
    """Set a key given as "a.b.c"."""
    *folders, last = key.split(".")
    for folder in folders:
        config = config.setdefault(folder, {})
    config[last] = value


def check_config(config):
    """The experiments, checked, with defaults filled in."""
    return read_settings(config)["experiments"]


def drop(config, key: str) -> None:
    *folders, last = key.split(".")
    for folder in folders:
        config = config[folder]
    del config[last]


def complaint(config) -> str:
    with pytest.raises(StiffnessError) as raised:
        read_settings(config)
    message = str(raised.value)
    assert len(message.splitlines()) == 1
    return message
