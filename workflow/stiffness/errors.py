"""The exception and the warning that are meant for users, and how a script reports errors."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StiffnessError(Exception):
    """Bad input. The message is one line: it names the key or the file and says what to do."""


class StiffnessWarning(UserWarning):
    """A result is right, but slow or large without need. The message says what and why."""


@contextmanager
def report_errors(rule: str) -> Iterator[None]:
    """End the process with one line on standard error if the user can mend the cause.

    Any other error is a defect of the workflow and keeps its traceback.

    Args:
        rule: the line begins with its name.
    """
    try:
        yield
    except StiffnessError as error:
        sys.exit(f"error in {rule}: {error}")
    except OSError as error:
        reason = _REASONS.get(error.errno or 0)
        if reason is None:
            raise
        what, advice = reason
        where = f" {what[1]} {error.filename}" if error.filename else ""
        sys.exit(f"error in {rule}: {what[0]}{where}; nothing half-written was kept. {advice}")
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        sys.exit(
            f"error in {rule}: out of memory ({str(error).splitlines()[0][:200]}); "
            "run fewer jobs at once (--cores, jobs_per_gpu: 1) or set a smaller memory_budget, and "
            "run the same command again"
        )


_FULL = (("no room on the disk", "while writing"), "Free some space and run the same command again")
_NO_ACCESS = (
    ("no access", "to"),
    "Allow it, or work in another folder with --directory, and run the same command again",
)
_REASONS = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EROFS: _NO_ACCESS,
    errno.EACCES: _NO_ACCESS,
    errno.EPERM: _NO_ACCESS,
}


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device or the machine had no memory left.

    It is told by names and messages, so that torch need not be imported.
    """
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or any(sign in text for sign in _NO_MEMORY)
    )


# In the messages of torch's allocators, of the CUDA runtime, and of its libraries.
_NO_MEMORY = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
