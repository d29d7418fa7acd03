"""What every script does around its work: threads, log, record, end, and errors in one line."""

import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from stiffness.errors import report_errors
from stiffness.jobs.presence import be_present, end_with_workflow
from stiffness.jobs.record import record_job

_GRACE = 10.0  # seconds from SIGTERM to the end of a process that does not heed it


class _Tee:
    """Standard error that also goes to the job's log, a whole line at a time.

    Jobs share the terminal: what one of them writes in two parts another's line may part.
    """

    def __init__(self, *streams: IO[str]) -> None:
        self.streams = streams
        self.begun = ""

    def write(self, text: str) -> int:
        lines, newline, self.begun = (self.begun + text).rpartition("\n")
        self._put(lines + newline)
        return len(text)

    def flush(self) -> None:
        self._put(self.begun)
        self.begun = ""

    def _put(self, text: str) -> None:
        for stream in self.streams if text else ():
            stream.write(text)
            stream.flush()


@contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a script's body for the job that ``snakemake`` describes.

    torch gets the job's threads. What the library logs, and every error, goes to the terminal and
    to the job's log; lines of the log begin with the job's experiment, learning rate and seed. A
    record of what was made, from what and with what, is written beside the log. An error that the
    user can mend is one line, and the exit code is 1. A job that is told to end, or whose Snakemake
    is gone, ends without leaving a half-written file.

    Args:
        snakemake: the object that Snakemake defines in a script.
    """
    signal.signal(signal.SIGTERM, _terminated)
    be_present()
    end_with_workflow(_end)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(snakemake.threads)
    terminal = sys.stderr
    try:
        os.makedirs(os.path.dirname(snakemake.log[0]), exist_ok=True)
        log = open(snakemake.log[0], "w")  # noqa: SIM115 (open as long as the process lives)
        sys.stderr = _Tee(terminal, log)
    except OSError as error:
        print(f"no log: {error}", file=sys.stderr)
    _log_progress(_job_name(snakemake))
    try:
        with report_errors(snakemake.rule), record_job(snakemake):
            yield
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _log_progress(name: str) -> None:
    """Send what the library logs to standard error, each line with the job's name before it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(job)s: %(message)s", defaults={"job": name}))
    logger = logging.getLogger("stiffness")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


def _job_name(snakemake: Any) -> str:
    """What a job works on, such as "digits_fc lr=1e-3 seed=0"; the rule where it has no name."""
    prefixes = {"experiment": "", "dataset": "", "lr": "lr=", "seed": "seed="}
    wildcards = dict(snakemake.wildcards.items())
    parts = [prefixes[key] + wildcards[key] for key in prefixes if key in wildcards]
    return " ".join(parts) or str(snakemake.rule)


def _terminated(number: int, _: Any) -> None:
    raise SystemExit(128 + number)


def _end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)
