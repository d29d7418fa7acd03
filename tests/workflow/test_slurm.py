"""The same workflow through a scheduler: jobs run there, their results are the same, and one that
is cancelled is tried again."""

import importlib.util
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from project import Outcome, Project, of_tiny
from slurm_cluster import NODES, cluster, reason_not_to

WHY_NOT = (
    reason_not_to()
    if importlib.util.find_spec("snakemake_executor_plugin_slurm")
    else "no Slurm plugin of Snakemake: pip install -r envs/requirements-slurm.txt"
)
pytestmark = [pytest.mark.slurm, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

PROFILE = ("--profile", "profiles/slurm", "--configfile", "tiny.yaml")
# A user's overrides: here files appear at once, and jobs are short.
SOON = ("--latency-wait", "10", "--slurm-init-seconds-before-status-checks", "2")
PATIENCE = 600  # seconds, against waiting for ever


@dataclass(frozen=True)
class Record:
    """What the scheduler says of a job."""

    number: str
    state: str
    node: str
    memory: str
    minutes: str
    what: str


@dataclass(frozen=True)
class Run:
    project: Project
    outcome: Outcome
    records: list[Record]
    cancelled: Record

    def of(self, start: str) -> list[Record]:
        return [record for record in self.records if record.what.startswith(start)]


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment of a running cluster."""
    with cluster() as environment:
        yield {key: value for key, value in environment.items() if key != "PYTHONPATH"}


@pytest.fixture(scope="module")
def run(slurm: dict[str, str], source: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A figure from nothing, with the first training cancelled while it runs."""
    project = Project(tmp_path_factory.mktemp("slurm") / "project")
    shutil.copytree(source, project.folder)

    def cancel_one() -> Record | None:
        for job in records(slurm):
            logs = project.folder.glob(f".snakemake/slurm_logs/rule_training/*/{job.number}.log")
            # Its own Snakemake has started the script, which imports torch for seconds.
            if job.state == "RUNNING" and any("Training tiny" in log.read_text() for log in logs):
                subprocess.run(["scancel", job.number], env=slurm, check=True)
                return job
        return None

    outcome, cancelled = submit(slurm, project, "fig4", meanwhile=cancel_one)
    assert cancelled is not None, outcome.output
    return Run(project, outcome, records(slurm), cancelled)


def submit(
    slurm: dict[str, str],
    project: Project,
    *arguments: str,
    meanwhile: Callable[[], Record | None] = lambda: None,
) -> tuple[Outcome, Record | None]:
    """Run ``snakemake`` with the profile; call ``meanwhile`` until it has found what it wants."""
    terminal = project.folder / "terminal.txt"
    command = [sys.executable, "-m", "snakemake", *arguments, *PROFILE, *SOON]
    found, began = None, time.monotonic()
    with (
        terminal.open("w") as out,
        subprocess.Popen(
            command, cwd=project.folder, env=slurm, stdout=out, stderr=subprocess.STDOUT
        ) as process,
    ):
        while process.poll() is None:
            if time.monotonic() - began > PATIENCE:
                process.kill()
            found = found or meanwhile()
            time.sleep(0.2)
    return Outcome(process.returncode, terminal.read_text()), found


def records(slurm: dict[str, str]) -> list[Record]:
    """Of all jobs that there have been."""
    command = ["squeue", "--states=all", "--noheader", "--format=%i|%T|%N|%m|%l|%k"]
    lines = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout
    return [Record(*line.split("|", 5)) for line in lines.splitlines()]


def test_every_job_ran_in_slurm(run):
    assert run.outcome.code == 0, run.outcome.output
    done = [record for record in run.records if record.state == "COMPLETED"]
    assert {record.node for record in done} == set(NODES)
    kinds = [re.split("_wildcards_", record.what)[0] for record in done]
    # A segment's stiffness waits for no GPU; tables and figure are one job.
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "rule_training": 4,
        "rule_measurement_gradients": 4,
        "rule_segment_tables_measures": 4,
        "rule_report_figure_and_page_tables": 1,
    }
    assert run.outcome.jobs["evaluation"] == 1  # light, and run on this side


def test_results_are_those_of_a_local_run(run, tiny):
    """Byte for byte: arrays, evaluation subset, checkpoints, cosines, tables and pictures.

    Not logs and performance.json, which hold times.
    """
    here, there = tiny.folder / "results", run.project.folder / "results"
    patterns = ("data/**/*.safetensors", "tiny/**/*.safetensors", "tiny/**/*.parquet")
    for pattern in (*patterns, "tiny/**/digests.json"):
        names = sorted(path.relative_to(here) for path in here.glob(pattern))
        assert names
        # The one figure asked for needs no comparison of learning rates.
        names = [name for name in names if name.stem not in ("levels", "order", "stopping")]
        assert names == sorted(path.relative_to(there) for path in there.glob(pattern))
        same_bytes(here, there, names)
    same_bytes(here, there, [f"tiny/figures/class_matrices.{end}" for end in ("pdf", "png")])


def same_bytes(here: Path, there: Path, names: Iterable[str | Path]) -> None:
    for name in names:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_a_cancelled_job_is_tried_again_with_more(run):
    first, second = run.of(run.cancelled.what)
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")
    assert f"SLURM-job '{first.number}' failed, SLURM status is: 'CANCELLED'" in run.outcome.output
    megabytes = [int(record.memory.removesuffix("M")) for record in (first, second)]
    assert megabytes[1] == 2 * megabytes[0]
    assert (first.minutes, second.minutes) == ("10:00", "20:00")


def test_nothing_is_left_to_do_or_half_written(run):
    assert run.project.plan("fig4") == {}
    assert run.project.half_written() == []


def test_a_gpu_is_asked_for_on_the_command_line(run, slurm):
    run.project.configure(of_tiny(learning_rates=["2e-3"], reference_learning_rate="2e-3"))
    segment = "results/tiny/lr=2e-3/seed=0/checkpoints/epochs=0000-0001/state.safetensors"
    submit(slurm, run.project, segment, "--config", "device=cuda", "--retries", "0")
    known = {record.number for record in run.records}
    (job,) = [record for record in records(slurm) if record.number not in known]
    assert job.node in NODES
    assert gpus(slurm, job) == "gres:gpu:1"
    assert {gpus(slurm, record) for record in run.records} == {None}


def gpus(slurm: dict[str, str], job: Record) -> str | None:
    """What a job asked for beside processors and memory."""
    command = ["scontrol", "show", "job", job.number]
    shown = subprocess.run(command, env=slurm, capture_output=True, text=True, check=True).stdout
    found = re.search(r"TresPerJob=(\S+)", shown)
    return found[1] if found else None
