"""How often Snakemake's scheduler looks for jobs while nothing happens."""

import threading
from typing import Any

from snakemake.scheduling.job_scheduler import JobScheduler

_METHOD = "_schedule_reevalutation"  # as Snakemake spells it


def look_once_per_delay() -> None:
    """Let the scheduler wait with one timer, not with one per job that has ended.

    Snakemake limits how many jobs it starts per second, and sets a timer after every look at the
    jobs that are ready, to look again. The timer causes another look, which sets another timer, so
    each job that ends adds one look per second for ever: with some hundred jobs, a core does
    nothing else. One timer is enough. It does not hold up the end of the process either.
    """
    if not hasattr(JobScheduler, _METHOD):  # of another version
        return
    lock = threading.Lock()
    pending: set[int] = set()

    def wait(scheduler: Any, delay: float) -> None:
        def look() -> None:
            with lock:
                pending.discard(id(scheduler))
            scheduler._open_jobs.release()

        with lock:
            if id(scheduler) in pending:
                return
            pending.add(id(scheduler))
        timer = threading.Timer(delay, look)
        timer.daemon = True
        timer.start()

    setattr(JobScheduler, _METHOD, wait)
