"""This process, as the operating system sees it."""

import resource
import sys


def peak_memory() -> int:
    """The most memory that this process has held at any one time, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, which Linux gives in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
