"""Callbacks for the training loops of other libraries; each needs its library."""

import importlib.util

if importlib.util.find_spec("torchvision"):  # which both libraries import, and which may need help
    from stiffness.data.vision import import_torchvision

    import_torchvision()
