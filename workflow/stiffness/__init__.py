"""Stiffness of neural networks: the alignment of per-example loss gradients.

The library follows the workflow's rooms, in this order and never backwards:
``data`` -> ``training`` -> ``gradients`` -> ``measures`` -> ``figures`` -> ``report``.

The names below are what a notebook needs; they are loaded on first use, so that a plot does
not pay for importing torch.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "class_mean_cosine": "stiffness.gradients.gram",
    "cosine_tile": "stiffness.gradients.gram",
    "gradient_cosines": "stiffness.gradients.gram",
    "gradient_gram": "stiffness.gradients.gram",
    "StiffnessError": "stiffness.errors",
}

__all__ = [
    "StiffnessError",
    "class_mean_cosine",
    "cosine_tile",
    "gradient_cosines",
    "gradient_gram",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
