"""Figures as the workflow draws them."""

from typing import Any

import matplotlib.pyplot as plt
import pytest
from figure_cases import DPI, draw, tables
from matplotlib.figure import Figure

from stiffness.figures import style
from stiffness.figures.style import use_looks

use_looks()


@pytest.fixture(scope="module")
def plain() -> dict[str, Figure]:
    """Figures of the unchanged tables by kind, each drawn once: to be read, not changed."""
    return {}


@pytest.fixture
def drawn(monkeypatch, plain):
    """Draw, and return the figure instead of saving it."""
    kept: list[Figure] = []
    monkeypatch.setattr(style, "save", lambda figure, outputs: kept.append(figure))

    def make(kind: str, made: dict[str, Any] | None = None, **changes: Any) -> Figure:
        unchanged = made is None and not changes
        if unchanged and kind in plain:
            return plain[kind]
        draw(kind, tables() if made is None else made, [], **changes)
        if unchanged:
            plain[kind] = kept[-1]
        return kept[-1]

    yield make
    plt.close("all")


@pytest.fixture
def few_dots(monkeypatch) -> None:
    monkeypatch.setitem(plt.rcParams, "savefig.dpi", DPI)
