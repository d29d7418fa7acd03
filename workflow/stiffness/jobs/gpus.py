"""Finding the GPUs of a machine and sharing them among jobs, without importing torch."""

import logging
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from stiffness.errors import StiffnessError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)

# Held until the process ends; the kernel then frees the names, whatever ended it.
_HELD: list[socket.socket] = []


def gpu_driver_present() -> bool:
    """Whether this machine has an NVIDIA driver, and CUDA_VISIBLE_DEVICES leaves a GPU.

    The check is cheap, since every start of Snakemake makes it.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1", "NoDevFiles"):
        return False
    return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/nvidiactl")


def take_gpu(identities: Sequence[str], jobs_per_gpu: int = 1, seconds: float = 1.0) -> int:
    """Reserve a GPU for this process until it ends; wait while other processes have them all.

    Jobs on one host agree without a daemon and without files: each binds one of ``jobs_per_gpu``
    names per GPU in Linux's abstract socket namespace. A name can be bound once, is shared by all
    users, and is freed with the process, also when that is killed. GPUs are named by identity, not
    by number: CUDA_VISIBLE_DEVICES gives the same GPU different numbers in different jobs.

    Args:
        identities: of the GPUs that this process may use, such as their UUIDs.
        jobs_per_gpu: how many processes may share a GPU; all GPUs get one before any gets two.
        seconds: time between two attempts while all are taken.

    Returns:
        The position in ``identities`` of the GPU taken.

    Raises:
        StiffnessError: there is none to choose from.
    """
    if not identities:
        raise StiffnessError("device: no GPU is visible; set device: cpu or auto")
    if not sys.platform.startswith("linux"):
        return 0
    waited = False
    while True:
        for share in range(jobs_per_gpu):
            for index, identity in enumerate(identities):
                if _bind(f"\0stiffness gpu {identity} {share}"):
                    return index
        if not waited:
            several = f"all {len(identities)} GPUs are" if len(identities) > 1 else "the GPU is"
            logger.warning("%s taken by other jobs: waiting", several)
            waited = True
        time.sleep(seconds)


def _bind(name: str) -> bool:
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(name)
    except OSError:
        held.close()
        return False
    _HELD.append(held)
    return True


def choose_device(name: str, jobs_per_gpu: int = 1) -> "torch.device":
    """Choose the device of this process; of several GPUs, reserve one with ``take_gpu``.

    Args:
        name: "auto" (a GPU where there is one), "cpu" or "cuda".
        jobs_per_gpu: how many jobs on this host may share a GPU.

    Raises:
        StiffnessError: a GPU was asked for and there is none.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu" and gpu_driver_present():
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
            logger.warning(
                "device: auto: this machine has an NVIDIA driver, but torch %s, %s, sees no GPU: "
                "computing on the CPU. Install a torch that fits the driver, or set device: cpu",
                torch.__version__,
                built,
            )
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise StiffnessError(
            f"device: {name} asked for but torch {torch.__version__} sees no GPU; "
            "set device: cpu or auto"
        )
    if name != "cuda":
        return torch.device(name)
    device = torch.device("cuda", _reserved_gpu(jobs_per_gpu))
    torch.cuda.set_device(device)  # what asks for no GPU in particular gets this one
    return device


@cache  # a process has one, however often it asks
def _reserved_gpu(jobs_per_gpu: int) -> int:
    import torch

    count = torch.cuda.device_count()
    return take_gpu(
        [str(torch.cuda.get_device_properties(index).uuid) for index in range(count)],
        jobs_per_gpu,
    )
