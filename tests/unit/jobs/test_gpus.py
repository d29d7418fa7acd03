"""GPUs are dealt out among jobs of one host, without a GPU and without torch."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stiffness.errors import StiffnessError
from stiffness.jobs.gpus import gpu_driver_present, take_gpu

LIBRARY = Path(__file__).parents[3] / "workflow"
JOB = """
import sys
from stiffness.jobs.gpus import take_gpu
print(take_gpu(sys.argv[2:], int(sys.argv[1]), seconds=0.01), flush=True)
sys.stdin.read()  # hold it until told to end
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a job that takes a GPU and holds it. Names are this test's own."""
    with ExitStack() as stack:

        def begin(*gpus: str, jobs_per_gpu: int = 1) -> subprocess.Popen[str]:
            named = [f"{tmp_path} {gpu}" for gpu in gpus]
            process = subprocess.Popen(
                [sys.executable, "-c", JOB, str(jobs_per_gpu), *named],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(LIBRARY)},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def got(job: subprocess.Popen[str]) -> int:
    assert job.stdout is not None
    return int(job.stdout.readline())


def waits(job: subprocess.Popen[str]) -> str:
    assert job.stderr is not None
    return job.stderr.readline()


def test_concurrent_jobs_get_different_gpus(start):
    jobs = [start("a", "b", "c") for _ in range(3)]
    assert sorted(got(job) for job in jobs) == [0, 1, 2]


def test_gpus_are_known_by_identity_not_by_number(start):
    # CUDA_VISIBLE_DEVICES=0,1 and =1,2 number the middle one differently.
    assert got(start("a", "b")) == 0
    assert got(start("a", "b")) == 1
    assert got(start("b", "c")) == 1


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_gpu_is_free_when_its_job_ends_however_it_ends(start, end):
    first = start("a")
    assert got(first) == 0
    second = start("a")
    assert waits(second) == "the GPU is taken by other jobs: waiting\n"
    first.send_signal(end)
    assert got(second) == 0


def test_shared_gpus_fill_evenly(start):
    assert [got(start("a", "b", jobs_per_gpu=2)) for _ in range(4)] == [0, 1, 0, 1]
    assert waits(start("a", "b", jobs_per_gpu=2)) == "all 2 GPUs are taken by other jobs: waiting\n"


def test_no_gpu_to_choose_from_is_an_error():
    with pytest.raises(StiffnessError, match=r"^device: no GPU is visible; set device"):
        take_gpu([])


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_no_gpus(monkeypatch, hidden):
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert not gpu_driver_present()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpu_driver_present()
