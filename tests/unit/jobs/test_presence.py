"""Stale locks go, live ones stay, and jobs end with the process that leads them."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stiffness.jobs import presence
from stiffness.jobs.presence import WORKFLOW_VARIABLE, remove_stale_locks

LIBRARY = Path(__file__).parents[3] / "workflow"
PRESENT = """
import sys
from stiffness.jobs.presence import be_present
print(be_present(sys.argv[1]), flush=True)
sys.stdin.read()
"""
LEADER = """
import subprocess, sys
from stiffness.jobs.presence import lead_jobs
lead_jobs()
job = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.DEVNULL)
print(job.pid, flush=True)
sys.stdin.read()
"""
JOB = """
import os, time
from stiffness.jobs.presence import end_with_workflow
end_with_workflow(lambda: os._exit(0), seconds=0.01)
print("watching", flush=True)
time.sleep(600)
"""


@pytest.fixture
def records(tmp_path, monkeypatch) -> Iterator[Path]:
    """A .snakemake with a lock and the marker of an earlier run."""
    held: dict = {}
    monkeypatch.setattr(presence, "_HELD", held)
    monkeypatch.setattr(presence, "_PATIENCE", 1.0)
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/0.output.lock").write_text("results/x\n")
    (tmp_path / "present").touch()
    yield tmp_path
    for file in held.values():
        file.close()


@contextmanager
def python(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def locks(records: Path) -> list[str]:
    return [path.name for path in (records / "locks").iterdir()]


def test_locks_go_where_nobody_is(records):
    assert not remove_stale_locks(records)
    assert locks(records) == []


def test_locks_stay_while_another_is_there_and_go_after_it(records):
    with python(PRESENT, str(records)) as other:
        assert other.stdout.readline() == "True\n"
        assert remove_stale_locks(records)
        assert locks(records) == ["0.output.lock"]
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert not remove_stale_locks(records)
        assert locks(records) == []


def test_who_looked_is_present_itself(records):
    remove_stale_locks(records)
    (records / "locks/1.output.lock").touch()
    held = presence._HELD.copy()
    presence._HELD.clear()  # as another process sees it
    try:
        assert remove_stale_locks(records)
    finally:
        for file in presence._HELD.values():
            file.close()
        presence._HELD.update(held)
    assert locks(records) == ["1.output.lock"]


def test_locks_of_a_program_that_marks_no_presence_stay(records):
    (records / "present").unlink()
    assert not remove_stale_locks(records)
    assert locks(records) == ["0.output.lock"]


@pytest.mark.parametrize("error", [OSError(95, "not supported"), OSError(37, "no locks")])
def test_locks_stay_where_the_file_system_cannot_tell(records, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr("fcntl.flock", fail)
    remove_stale_locks(records)
    assert locks(records) == ["0.output.lock"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_job_ends_with_the_process_that_leads_it(how):
    with python(LEADER, JOB) as leader:
        assert int(leader.stdout.readline()) > 0
        assert leader.stdout.readline() == "watching\n"
        leader.send_signal(how)
        leader.wait()
        # The job holds the other end of the pipe as long as it lives.
        assert leader.stdout.read() == ""


@pytest.mark.parametrize(
    ("leader", "ends"),
    [
        ("", False),
        ("another-machine/pid:[1] 1 1", False),
        ("{machine} 1 not-its-start", True),
        ("{machine} 4194305 1", True),  # no process can have that number
    ],
)
def test_a_job_whose_leader_is_gone_ends_at_once_and_others_do_not(monkeypatch, leader, ends):
    monkeypatch.setenv(WORKFLOW_VARIABLE, leader.format(machine=presence._machine()))
    ended = []
    presence.end_with_workflow(lambda: ended.append(True))
    assert bool(ended) == ends
