"""Stiffness of neural networks: the alignment of per-example loss gradients.

The library follows the workflow's rooms, in this order and never backwards:
``data`` -> ``training`` -> ``gradients`` -> ``measures`` -> ``figures`` -> ``report``.
``monitor`` and ``integrations`` measure the same in somebody else's training loop.

The names below are what a notebook needs; they are loaded on first use, so that a plot does
not pay for importing torch.
"""

from importlib import import_module
from typing import Any

_EXPORTS = {
    "class_mean_cosine": "stiffness.gradients.gram",
    "class_stiffness": "stiffness.measures.from_cosines",
    "cosine_distances": "stiffness.data.evaluation",
    "cosine_tile": "stiffness.gradients.gram",
    "critical_length": "stiffness.measures.from_cosines",
    "gradient_cosines": "stiffness.gradients.gram",
    "gradient_gram": "stiffness.gradients.gram",
    "measure_checkpoints": "stiffness.monitor.checkpoints",
    "Plans": "stiffness.gradients.plan",
    "plot_stiffness": "stiffness.monitor.plot",
    "StiffnessError": "stiffness.errors",
    "StiffnessMonitor": "stiffness.monitor.monitor",
    "StiffnessWarning": "stiffness.errors",
}

__all__ = [
    "Plans",
    "StiffnessError",
    "StiffnessMonitor",
    "StiffnessWarning",
    "class_mean_cosine",
    "class_stiffness",
    "cosine_distances",
    "cosine_tile",
    "critical_length",
    "gradient_cosines",
    "gradient_gram",
    "measure_checkpoints",
    "plot_stiffness",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
