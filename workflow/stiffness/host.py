"""What the machine offers, found out without importing torch."""

import os
import shutil


def gpu_driver_present() -> bool:
    """Whether an NVIDIA driver is there; cheap, since every start of Snakemake asks."""
    return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/nvidiactl")
