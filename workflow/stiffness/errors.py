"""The exception and the warning meant for the user, and how a script reports the former."""

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class StiffnessError(Exception):
    """Bad input. The message is one line: it names the key or the file and says what to do."""


class StiffnessWarning(UserWarning):
    """Nothing is wrong, but slower or larger than it need be. The message says what and why."""


@contextmanager
def reported(rule: str) -> Iterator[None]:
    """End the process with one line on standard error where the user can mend the cause.

    Anything else is a defect of ours and keeps its traceback.
    """
    try:
        yield
    except StiffnessError as error:
        sys.exit(f"error in {rule}: {error}")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        sys.exit(
            f"error in {rule}: no room on the disk{where}; nothing half-written was kept. "
            "Free some space and run the same command again"
        )
