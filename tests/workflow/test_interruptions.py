"""Killed at any moment, in every rule: the same command goes on, and the results are the same.

MEASURES_KILLS=100 kills as often as that, at any time, instead of once or twice in every rule.
"""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from filecmp import cmp
from pathlib import Path

import psutil
import pytest
from project import Project

KILLS = int(os.environ.get("MEASURES_KILLS", "0"))
PATIENCE = 300  # seconds, against waiting for ever
# A training's last bits follow from its threads, which follow from the cores: two of them give one.
AS_UNDISTURBED = ("--set-threads", "training=1")
GRACE = 60  # seconds between a scheduler's SIGTERM and its SIGKILL
# As they come: a power cut, a kill of Snakemake alone, a scheduler's end, Ctrl-C in a terminal.
ENDS = (
    ("the group", signal.SIGKILL),
    ("snakemake", signal.SIGKILL),
    ("the group", signal.SIGTERM),
    ("the group", signal.SIGINT),
)


@dataclass
class Running:
    """A ``snakemake`` in a process group of its own."""

    process: psutil.Popen
    terminal: Path
    jobs: list[psutil.Process] = field(default_factory=list)

    @property
    def output(self) -> str:
        return self.terminal.read_text()

    def rules(self) -> set[str]:
        """Rules whose scripts run at this moment: Snakemake names their copies after them."""
        try:
            self.jobs = self.process.children(recursive=True)
            commands = [" ".join(job.cmdline()) for job in self.jobs if job.is_running()]
        except psutil.Error:
            return set()
        names = [word for command in commands for word in command.split() if "scripts/tmp" in word]
        return {Path(name).name.split(".")[1] for name in names}

    def end(self, what: str, how: signal.Signals) -> None:
        if what == "the group":
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        try:
            self.process.wait(GRACE)
        except psutil.TimeoutExpired:
            # Snakemake's handler of SIGTERM takes a lock that the thread it interrupts may hold,
            # and then waits for ever; Ctrl-C was seen to leave it waiting too, once, with all its
            # jobs gone. A scheduler, or the user, kills what does not end.
            assert how in (signal.SIGTERM, signal.SIGINT)
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)


@contextmanager
def started(project: Project, *arguments: str) -> Iterator[Running]:
    terminal = project.folder / f"terminal.{time.monotonic_ns()}.txt"
    command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "tiny.yaml"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with terminal.open("w") as out:
        process = psutil.Popen(
            command,
            cwd=project.folder,
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield Running(process, terminal)
        finally:
            if process.is_running():
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def same_results(project: Project, undisturbed: Project) -> None:
    """Every file, but for seconds and peak memory."""
    names = {name for name in undisturbed.results() if not name.endswith("performance.json")}
    assert names == {name for name in project.results() if not name.endswith("performance.json")}
    both = {name: [one.folder / name for one in (project, undisturbed)] for name in sorted(names)}
    assert [name for name, (here, there) in both.items() if not cmp(here, there, False)] == []


@pytest.mark.slow
def test_killed_in_every_rule_the_same_command_completes(fresh, request):
    draw = random.Random(0)
    planned = set(re.findall(r"^(\w+) +\d+$", fresh.build("-n").output, re.MULTILINE))
    # By script: one draws every figure.
    rules = planned & {path.stem for path in (fresh.folder / "workflow/scripts").glob("*.py")}
    assert len(rules) > 10
    killed: list[set[str]] = []
    orphans: list[psutil.Process] = []
    began = time.monotonic()
    finished = False
    while not finished:
        left = rules - set().union(*killed)
        # Where a rule was faster than the blow: once more.
        again = ("--forcerun", *sorted(left)) if finished is None else ()
        with started(fresh, "--cores", "8", *AS_UNDISTURBED, *again) as run:
            if not KILLS:
                while run.process.poll() is None and not run.rules() & left:
                    time.sleep(0.02)
                time.sleep(draw.uniform(0, 0.7))
            elif len(killed) < KILLS:
                time.sleep(draw.uniform(1.5, 8))
            if (not left and not KILLS) or (KILLS and len(killed) >= KILLS):
                run.process.wait(PATIENCE)
            if run.process.poll() is None:
                running = run.rules()
                orphans += run.jobs
                run.end(*ENDS[len(killed) % len(ENDS)])
                killed.append(running)
            else:
                assert run.process.returncode == 0, run.output
                finished = not left or bool(KILLS) or None
            assert "cannot be locked" not in run.output, run.output
            # Nothing half-written was read: no job complains of its input.
            assert not re.search("^error in ", run.output, re.MULTILINE), run.output
        assert time.monotonic() - began < 10 * PATIENCE
    assert KILLS or set().union(*killed) == rules
    assert len(killed) >= max(KILLS, len(ENDS)), "every way to end was tried"
    _, alive = psutil.wait_procs(orphans, PATIENCE)
    assert alive == []
    assert fresh.half_written() == []
    assert not list((fresh.folder / ".snakemake").glob("locks/*"))
    # Built only now: meanwhile another test process does so.
    same_results(fresh, request.getfixturevalue("tiny"))
    assert fresh.plan() == {}


ARRAYS = "results/data/digits/arrays.safetensors"


@contextmanager
def halted(project: Project) -> Iterator[Running]:
    """A ``snakemake`` that stands still in the middle of its first job."""
    with started(project, "--cores", "1", ARRAYS) as run:
        while run.process.poll() is None and not run.rules():
            time.sleep(0.02)
        assert run.process.poll() is None, run.output
        os.killpg(run.process.pid, signal.SIGSTOP)
        yield run


def test_two_commands_in_one_folder(fresh):
    with halted(fresh) as first:
        second = fresh.run(ARRAYS)
        assert second.code != 0
        assert "note: another snakemake is at work in this folder" in second.output
        assert "cannot be locked" in second.output
        assert fresh.plan(ARRAYS) == {"arrays": 1}  # looking is allowed
        assert fresh.results() == {}
        os.killpg(first.process.pid, signal.SIGCONT)
        first.process.wait(PATIENCE)
        assert first.process.returncode == 0, first.output
    assert set(fresh.results()) == {ARRAYS}
    assert fresh.half_written() == []


@pytest.mark.slow
def test_a_lock_that_may_be_of_another_program_stays(fresh):
    locks = fresh.folder / ".snakemake/locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").write_text(f"{ARRAYS}\n")
    refused = fresh.run(ARRAYS)
    assert refused.code != 0
    assert "--unlock" in refused.output
    assert fresh.results() == {}
    fresh.build("--unlock")
    fresh.build(ARRAYS)


def test_another_directory_is_another_project(built):
    before = built.results()
    target = ("--directory", "elsewhere", ARRAYS)
    built.build(*target)
    assert set(Project(built.folder / "elsewhere").results()) == {ARRAYS}
    there = built.folder / "elsewhere" / ARRAYS
    assert there.read_bytes() == (built.folder / ARRAYS).read_bytes()
    assert built.results().items() >= before.items()
    assert built.plan() == {}


OTHER = {
    "dataset": "digits",
    "model": {"name": "cnn", "padding": "same"},
    "learning_rates": ["1e-3"],
    "epochs": 1,
    "evaluation": {"train": 40, "validation": 40},
}
SEGMENT = "results/tiny/lr=1e-3/seed=0/measures/exact/epochs=0000-0001/summary.parquet"


@pytest.mark.slow
def test_another_model_under_the_same_name_is_never_mixed_in(built, tiny):
    """What one configuration made, another makes again, and back."""
    own = (tiny.folder / SEGMENT).read_bytes()
    three = {"training": 1, "gradients": 1, "measures": 1}
    built.configure({"experiments": {"tiny": {"model": {"initialization": "pytorch"}}}})
    assert built.build(SEGMENT).jobs == three
    other = (built.folder / SEGMENT).read_bytes()
    assert other != own
    built.configure({})
    assert built.build(SEGMENT).jobs == three
    assert (built.folder / SEGMENT).read_bytes() == own


def test_two_configurations_share_what_is_the_same(built):
    built.configure({"run": ["other"], "experiments": {"other": OTHER}})
    shared = built.build("-n", "results/other/tables/exact/runs.parquet").jobs
    assert "arrays" not in shared
    assert "evaluation" not in shared
    assert shared["training"] == 1
    built.configure({"figures": {"distance": {"width": 6.0}}})
    assert built.plan() == {"figure distance": 1, "all": 1}
    built.configure({})
    assert built.plan() == {}


@pytest.mark.parametrize("seed", [[1], [0, 1]])
def test_a_seed_of_another_configuration_trains_that_seed_alone(built, seed):
    built.configure({"experiments": {"tiny": {"seeds": seed}}})
    planned = [line for line in built.build("-n").output.splitlines() if "Training tiny" in line]
    assert len(planned) == 4
    assert all("seed 1" in line for line in planned)
