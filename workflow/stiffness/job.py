"""What every script does around its work: threads, log, and errors in one line."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from stiffness.errors import reported


class _Tee:
    """Standard error that also goes to the job's log."""

    def __init__(self, *streams: IO[str]) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        for stream in self.streams:
            stream.flush()


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a script's body for the job that ``snakemake`` describes.

    torch gets the job's threads; progress and errors go to the terminal and to the log; an error
    that the user can mend is one line, and the exit code is 1.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    terminal = sys.stderr
    try:
        os.makedirs(os.path.dirname(snakemake.log[0]), exist_ok=True)
        log = open(snakemake.log[0], "w")  # noqa: SIM115 (open as long as the process lives)
        sys.stderr = _Tee(terminal, log)
    except OSError as error:
        print(f"no log: {error}", file=sys.stderr)
    with reported(snakemake.rule):
        yield
