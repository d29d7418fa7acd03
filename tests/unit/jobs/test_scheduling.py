"""One timer wakes Snakemake's scheduler, however many jobs have ended."""

import threading
import time
from types import SimpleNamespace

from snakemake.scheduling.job_scheduler import JobScheduler

from stiffness.jobs.scheduling import look_once_per_delay


def test_looks_do_not_add_up(monkeypatch):
    method = "_schedule_reevalutation"
    # Fails where Snakemake renames its method: the timers would then add up again, in silence.
    monkeypatch.setattr(JobScheduler, method, getattr(JobScheduler, method))
    look_once_per_delay()
    scheduler = SimpleNamespace(_open_jobs=threading.Semaphore(0))
    for _ in range(5):
        getattr(JobScheduler, method)(scheduler, 0.05)
    assert scheduler._open_jobs.acquire(timeout=10)
    time.sleep(0.2)
    assert not scheduler._open_jobs.acquire(blocking=False)
    # The next look is waited for anew.
    getattr(JobScheduler, method)(scheduler, 0.0)
    assert scheduler._open_jobs.acquire(timeout=10)
