"""Models and tokenizers of ``transformers``: from a local folder, or from the Hugging Face hub.

Weights are safetensors; no code that comes with a model is run.
"""

import errno
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from stiffness.errors import StiffnessError


def import_transformers() -> ModuleType:
    """Return ``transformers``, quiet; it imports torchvision, which needs help to load."""
    from stiffness.data.vision import import_torchvision

    import_torchvision()
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers


def local_or_hub(name: str, data_dir: str | Path) -> str:
    """Where a pretrained network or tokenizer is.

    Returns:
        The folder ``name`` below ``data_dir`` or the working directory; ``name`` itself, for the
        hub, where there is no such folder.
    """
    for folder in (Path(data_dir) / name, Path(name)):
        if folder.is_dir():
            return str(folder)
    return name


def load_pretrained(kind: str, key: str, name: str, data_dir: str | Path, **options: Any) -> Any:
    """Load an object with ``transformers.<kind>.from_pretrained``.

    Args:
        kind: a class of ``transformers``, such as "AutoTokenizer".
        key: of the configuration, for messages.
        name: a folder (see ``local_or_hub``) or a name on the hub.
        options: further arguments of ``from_pretrained``.

    Raises:
        StiffnessError: there is no such folder or name, or its files cannot be read.
    """
    if not name:
        raise StiffnessError(f"{key}: is empty; set it to a local folder or to a name on the hub")
    place = local_or_hub(name, data_dir)
    try:
        return getattr(import_transformers(), kind).from_pretrained(place, **options)
    except Exception as error:  # of the files, the network, or any of four packages
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = (
            f"the folder {place} cannot be read"
            if Path(place).is_dir()
            else f"there is no such folder in {data_dir} or here, and the Hugging Face hub did not "
            "give it"
        )
        raise StiffnessError(
            f"{key}: {name!r}: {where} ({reason(error)}); set {key} to a local folder with the "
            "files of a transformers model, or to a name on the hub"
        ) from None


def reason(error: Exception) -> str:
    """The first sentence of an exception that may run over many lines."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z)'\"])[.:;] ", text)[0][:200].rstrip(".") or type(error).__name__
