"""The lines that a user sees of a run, from Snakemake's own log records."""

import io
import logging
from collections.abc import Callable
from typing import Any

import pytest
from snakemake.logging import ColorizingTextHandler, DefaultFormatter

from stiffness.jobs import terminal
from stiffness.jobs.terminal import ShortOutput, shorten_reason

FILES = [f"results/tiny/figures/{number}.png" for number in range(200)]


class Run:
    """A run whose clock and records are given by the test."""

    def __init__(self, patch: pytest.MonkeyPatch, dry_run: bool, stats: dict[str, int]) -> None:
        self.now = 0.0
        patch.setattr(terminal.time, "monotonic", lambda: self.now)
        replaced = ColorizingTextHandler(stream=io.StringIO(), formatter=DefaultFormatter())
        self.handler = ShortOutput(replaced, dry_run)
        self.total = sum(stats.values())
        self.counts = self.log("run_info", "Job stats:", stats={**stats, "total": self.total})

    def log(self, event: str | None, message: str = "", level: int = 20, **extra: Any) -> list[str]:
        """The lines that a record adds."""
        before = len(self.handler.stream.getvalue())
        record = {"msg": message, "levelno": level, "levelname": logging.getLevelName(level)}
        self.handler.handle(logging.makeLogRecord({**record, "event": event, **extra}))
        return self.handler.stream.getvalue()[before:].splitlines()

    def start(self, job: int, rule: str, name: str, reason: str = "") -> list[str]:
        files = {"input": FILES, "output": FILES if name else []}
        info = {"jobid": job, "rule_name": rule, "rule_msg": name, "reason": reason}
        return self.log("job_info", **files, **info)

    def end(self, job: int, done: int, seconds: float) -> list[str]:
        self.now += seconds
        return self.log("job_finished", job_id=job) + self.log(
            "progress", done=done, total=self.total
        )


@pytest.fixture
def make_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    return lambda dry_run=False, **stats: Run(monkeypatch, dry_run, stats)


def test_a_run_says_what_is_made_how_far_it_is_how_long_still_and_where_the_pictures_are(
    make_run: Callable[..., Run],
) -> None:
    run = make_run(training=4, figure=1, all=1)
    assert run.counts == ["Job stats:"]
    assert run.log("workflow_started", "started") + run.log(None, "Building DAG of jobs...") == []
    assert run.start(1, "training", "one") == ["[0 of 6] one"]
    assert run.start(2, "training", "two") == ["[0 of 6] two"]
    assert run.end(1, 1, 600) == ["[1 of 6]"]  # nothing was said for long
    assert run.end(2, 2, 0) == []
    # Two jobs of 600 s in 600 s; a figure is not known yet, but two of four jobs are.
    assert run.start(3, "training", "three") == ["[2 of 6] three"]
    assert run.end(3, 3, 300) == ["[3 of 6]"]
    assert run.start(4, "training", "four") == ["[3 of 6] four"]
    run.end(4, 4, 500)
    assert run.start(5, "figure", "five") == ["[4 of 6] five"]
    run.end(5, 5, 0)
    assert run.start(0, "all", "") == []
    assert run.end(0, 6, 0) == [
        "6 of 6 jobs done",
        "Pictures: results/tiny/figures",
        "Report: snakemake --report results/report.zip",
    ]


def test_the_time_left_is_that_of_like_jobs_as_many_at_once(make_run: Callable[..., Run]) -> None:
    run = make_run(training=6)
    run.start(1, "training", "one")
    run.start(2, "training", "two")
    run.end(1, 1, 600)
    assert run.handler.seconds_left() is None
    run.end(2, 2, 0)
    assert run.handler.seconds_left() == 1200  # four of 600 s, two at a time
    assert run.start(3, "training", "three") == ["[2 of 6, about 20 min left] three"]


def test_warnings_and_errors_are_shown_without_lists_of_files(make_run: Callable[..., Run]) -> None:
    run = make_run(training=1)
    assert run.log(None, "Select jobs: mind", logging.WARNING) == ["Select jobs: mind"]
    run.start(1, "training", "one")
    failed = {"jobid": 1, "rule_name": "training", "rule_msg": None, "log": ["one.log"]}
    rest = {"input": FILES, "output": FILES, "conda_env": None, "shellcmd": None, "aux": {}}
    lines = run.log("job_error", "Error", logging.ERROR, **failed, **rest)
    assert [line.strip() for line in lines[1:]] == [
        "Error in rule training:",
        "message: one",
        "jobid: 1",
        "log: one.log (check log file(s) for error details)",
    ]
    said = failed | {"rule_msg": "SLURM-job '7' failed, SLURM status is: 'CANCELLED'"}
    lines = run.log("job_error", "Error", logging.ERROR, **said, **rest)
    assert lines[2].strip() == f"message: one: {said['rule_msg']}"
    assert run.log(None, "Will exit") + run.log(None, "Will exit") == ["Will exit"]


def test_a_dry_run_lists_jobs_with_reasons_and_counts_them_last(
    make_run: Callable[..., Run],
) -> None:
    run = make_run(dry_run=True, training=1)
    assert run.counts == []
    assert run.start(1, "training", "one", "Missing output files: a; b: c") == [
        "one (missing; b: c)"
    ]
    assert run.log(None, "Reasons:\n    many") == []
    assert run.log("run_info", "Job stats:", stats={"total": 1}) == ["Job stats:"]


@pytest.mark.parametrize(
    ("reason", "short"),
    [
        ("Missing output files: a, b; Input files updated by another job: c", "missing"),
        ("Input files updated by another job: a, b", "follows from the above"),
        ("Updated input files: b, a; Params: x", "Updated input files: a and 1 more; Params: x"),
    ],
)
def test_reasons_leave_out_what_follows(reason: str, short: str) -> None:
    assert shorten_reason(reason) == short
