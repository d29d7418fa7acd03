"""Import torchvision beside a CPU-only torch.

torchvision's Linux wheel is built for CUDA; next to a CPU build of torch its compiled operators
cannot load, and the import stops at the missing schema ``torchvision::nms``. Data sets need no
compiled operator, so declaring the two schemas lets the import through. Where the operators load,
nothing is declared.
"""

import importlib.util
from types import ModuleType

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_library: torch.library.Library | None = None  # a Library's definitions live as long as it does


def import_torchvision() -> ModuleType:
    """Return ``torchvision``, declaring the schemas its Python code expects if they are missing."""
    global _library
    if torch.version.cuda is None and _library is None and importlib.util.find_spec("torchvision"):
        try:
            import torchvision
        except RuntimeError:
            _library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                _library.define(name + _SCHEMA)
    import torchvision
    import torchvision.datasets

    return torchvision
