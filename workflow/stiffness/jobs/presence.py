"""Who is at work in a folder, so that a run that was killed leaves nothing in the way.

A killed Snakemake leaves two things behind: its locks, files without a word on who made them, and
maybe jobs that go on by themselves. Every process of this workflow therefore holds a shared lock
of the kernel on one file of the working folder, which is free when the process ends, whatever ended
it. Who gets that lock for itself alone knows that all other locks are stale. And jobs end as soon
as the Snakemake that waits for them is gone.
"""

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

WORKFLOW_VARIABLE = "STIFFNESS_WORKFLOW"
"""Environment variable: the Snakemake process that started a job."""

# Held until the process ends, by name.
_HELD: dict[str, IO[str]] = {}
_PRESENT, _LEADS = "present", "leads"  # every process; those that are no job of another
_PATIENCE = 30.0  # seconds, for orphans to end where no Snakemake leads them any more


def remove_stale_locks(records: str | Path = ".snakemake") -> bool:
    """Be present in a working folder; remove Snakemake's locks where nobody else is.

    Nothing is removed where presence cannot tell: on a file system without locks, and where the
    locks may be those of a process that does not take part in this.

    Args:
        records: Snakemake's own folder in the working folder.

    Returns:
        Whether another process is known to be at work in this folder, with locks of its own.
    """
    locks, marker = Path(records) / "locks", Path(records) / "present"
    left = sorted(locks.glob("*.lock"))
    if left and not marker.exists():
        return False
    try:
        marker.parent.mkdir(exist_ok=True)
        marker.touch()
        (marker.parent / _LEADS).touch()
    except OSError:
        return False
    orphans = _hold(records, _LEADS, alone=True)
    give_up = time.monotonic() + (_PATIENCE if left and orphans else 0)
    while not (alone := _hold(records, _PRESENT, alone=True)) and time.monotonic() < give_up:
        time.sleep(0.2)
    if alone:
        for lock in left:
            lock.unlink(missing_ok=True)
        left = []
    # Shared from here on: another target may be made beside this one.
    _hold(records, _LEADS)
    _hold(records, _PRESENT)
    return bool(left)


def be_present(records: str | Path = ".snakemake") -> bool:
    """Hold the folder's marker until this process, a job, ends.

    Returns:
        Whether it is held.
    """
    return _hold(records, _PRESENT)


def _hold(records: str | Path, name: str, alone: bool = False) -> bool:
    """Lock a marker of the folder; with ``alone``, only if no other process holds it."""
    try:
        if name not in _HELD:
            _HELD[name] = (Path(records) / name).open("r+")
        fcntl.flock(_HELD[name], fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except OSError:
        return False
    return True


def lead_jobs() -> None:
    """Let the jobs that this process starts know whose they are."""
    os.environ[WORKFLOW_VARIABLE] = _identity(os.getpid())


def end_with_workflow(end: Callable[[], None], seconds: float = 0.5) -> None:
    """Call ``end`` when the Snakemake that started this process is gone; at once if it is already.

    Does nothing in a process that none started, or one on another machine: a scheduler's jobs
    outlive the command that submitted them, as the scheduler wants it.
    """
    leader = os.environ.get(WORKFLOW_VARIABLE, "")
    pid = leader.rpartition(" ")[0].rpartition(" ")[2]
    if not pid or leader.split(" ")[0] != _machine():
        return

    def gone() -> bool:
        return _identity(int(pid)) != leader

    if gone():
        end()
        return

    def watch() -> None:
        while not gone():
            time.sleep(seconds)
        print("the workflow that started this job is gone: ending", file=sys.stderr, flush=True)
        end()

    threading.Thread(target=watch, daemon=True).start()


def _machine() -> str:
    """Where process numbers mean the same; empty without /proc, and nothing is watched."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _identity(pid: int) -> str:
    """A process for good: numbers are used again, but not with the same time of start."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if status[0] == "Z" else f"{_machine()} {pid} {status[19]}"
