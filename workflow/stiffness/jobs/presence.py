"""Who is at work in a folder, so that a run that was killed leaves nothing in the way.

A killed Snakemake leaves two things behind: its locks, files that do not say who made them, and
perhaps jobs that continue by themselves. Every process of this workflow therefore holds a shared
lock of the kernel on one file of the working folder; the kernel frees it when the process ends,
whatever ended it. A process that gets this lock exclusively knows that Snakemake's locks are stale.
Jobs end as soon as the Snakemake that waits for them is gone.

The locks are taken by hand, since ``filelock`` has no shared lock that turns into an exclusive one
and back. The start of a process is read from /proc, since ``psutil`` counts it from the time of the
boot, which moves when the clock is set: a job would then take its own Snakemake for another one.
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
    """Mark this process as present in a working folder; remove Snakemake's locks if it is alone.

    Nothing is removed where this cannot be known: on a file system without locks, and where the
    locks may belong to a process that leaves no mark.

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
    orphans = _hold(records, _LEADS, exclusive=True)
    give_up = time.monotonic() + (_PATIENCE if left and orphans else 0)
    while not (alone := _hold(records, _PRESENT, exclusive=True)) and time.monotonic() < give_up:
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
    """Mark this process, a job, as present in the working folder until it ends.

    Returns:
        Whether the mark could be set.
    """
    return _hold(records, _PRESENT)


def _hold(records: str | Path, name: str, exclusive: bool = False) -> bool:
    """Lock a marker of the folder; with ``exclusive``, only if no other process holds it."""
    try:
        if name not in _HELD:
            _HELD[name] = (Path(records) / name).open("r+")
        fcntl.flock(_HELD[name], fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except OSError:
        return False
    return True


def lead_jobs() -> None:
    """Tell the jobs that this process starts which process waits for them."""
    os.environ[WORKFLOW_VARIABLE] = _identity(os.getpid())


def end_with_workflow(end: Callable[[], None], seconds: float = 0.5) -> None:
    """Call ``end`` as soon as the Snakemake that started this process is gone.

    Nothing happens in a process that no Snakemake started, or one on another machine: a scheduler's
    jobs outlive the command that submitted them, on purpose.

    Args:
        end: called once, from another thread unless Snakemake is gone already.
        seconds: time between two looks.
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
    """The machine and namespace in which process numbers are unique; empty without /proc."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _identity(pid: int) -> str:
    """Name a process for ever: its number may be used again, but not with this time of start."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if status[0] == "Z" else f"{_machine()} {pid} {status[19]}"
