"""A folder that holds the workflow, and the tiny configuration that it is run with."""

import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import look

REPOSITORY = Path(__file__).parents[2]
KINDS = (
    "training_curves",
    "class_matrices",
    "class_matrix",
    "class_matrix_stages",
    "hierarchy_matrix",
    "hierarchy_curves",
    "stiffness_curves",
    "distance",
    "critical_length",
    "equal_loss",
    "early_stopping",
    "contact_sheet",
    "siblings",
)
# Pictures of a plain `snakemake` by kind, without their suffix.
PICTURES = {
    kind: f"{kind}/stage=last"
    if kind in ("class_matrix", "hierarchy_matrix", "contact_sheet")
    else kind
    for kind in KINDS
}
GROUPS = """
super_super_classes: {round: [holes, bows], straight: [lines]}
super_classes: {holes: [0, 6, 8, 9], bows: [2, 3, 5], lines: [1, 4, 7]}
"""
TINY = {
    "run": ["tiny"],
    "device": "cpu",
    "datasets": {"digits": {"hierarchy": "groups.yaml"}},
    "experiments": {
        "tiny": {
            "dataset": "digits",
            "model": {"name": "fc"},
            "learning_rates": ["1e-3", "3e-3"],
            "epochs": 2,
            "epochs_per_job": 1,
            "early_checkpoints": 1,
            "evaluation": {"train": 40, "validation": 40},
            "stages": [0, {"accuracy": 0.3}, {"accuracy": 1.0}, "last"],
        }
    },
    "figures": {kind: {"width": 5.0, "height": 5.0} for kind in KINDS},
    "paper": {"fig4": {"kind": "class_matrices", "experiments": ["tiny"]}},
}


# Rules that follow any change of a table; they have tests of their own.
NOTES = ("total", "provenance", "claims")
DRAWING = ("figure", "figure_and_page", "stage_figure", "study_figure")


def figures(*kinds: str) -> tuple[str, ...]:
    """The jobs that draw these kinds of figures, as ``Outcome.jobs`` names them."""
    return tuple(f"figure {kind}" for kind in kinds)


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: its exit code, and what it printed on both streams."""

    code: int
    output: str

    @property
    def errors(self) -> list[str]:
        """The lines that are meant for the user."""
        return [line for line in self.output.splitlines() if line.startswith("error in")]

    @property
    def jobs(self) -> dict[str, int]:
        """Snakemake's "Job stats", by rule; empty where nothing is to be done.

        In place of the rules that draw figures: "figure <kind>", as the lines of jobs name them.

        Not the note on what tables were made with, nor the claims, which follow every change.
        """
        rows = re.search(r"^Job stats:\n.*\n-+.*\n((?:\w+ +\d+\n)+)", self.output, re.MULTILINE)
        counts = dict(row.split() for row in rows[1].splitlines()) if rows else {}
        kept = {rule: int(count) for rule, count in counts.items() if rule not in NOTES}
        number = sum(kept.pop(rule, 0) for rule in DRAWING)
        drawn = set(re.findall(r"Drawing (\w+) of (\w+)(, stage \w+)?", self.output))
        drawn |= {(study,) for study in re.findall(r"Drawing the study (\w+)", self.output)}
        assert len(drawn) == number, self.output
        kept |= Counter(f"figure {kind}" for kind, *_ in drawn)
        return {} if set(kept) == {"all"} else kept


@dataclass(frozen=True)
class Project:
    """A folder that holds the workflow, and maybe its results."""

    folder: Path

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Write the tiny configuration with ``changes`` to any of its keys."""
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(merged(TINY, changes)))

    def run(self, *arguments: str, **environment: str) -> Outcome:
        """Run ``snakemake`` with these arguments."""
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        always = ("--cores", "2", "--configfile", "tiny.yaml")
        if not environment and {"-n", "--dry-run"} & set(arguments):
            terminal = self.folder / "terminal.of.look.txt"
            code = look(self.folder, [*arguments, *always], terminal)
            return Outcome(code, terminal.read_text())
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *arguments, *always],
            cwd=self.folder,
            env=inherited | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Outcome(done.returncode, done.stdout)

    def build(self, *targets: str) -> Outcome:
        """Run ``snakemake``, which has to succeed."""
        outcome = self.run(*targets)
        assert outcome.code == 0, outcome.output
        return outcome

    def plan(self, *targets: str) -> dict[str, int]:
        """The jobs that would run."""
        outcome = self.build(*targets, "-n")
        said = outcome.output
        assert "Job stats:" in said or "Nothing to be done" in said, said
        return outcome.jobs

    def edit(self, path: str, text: str = "\n# edited\n") -> None:
        """Append to a file of the workflow."""
        with (self.folder / path).open("a") as file:
            file.write(text)

    def results(self) -> dict[str, int]:
        """Every result by path, with its time of change; not what jobs say of themselves."""
        paths = [path for path in self.folder.glob("results/**/*") if path.is_file()]
        named = {str(path.relative_to(self.folder)): path.stat().st_mtime_ns for path in paths}
        return {name: time for name, time in named.items() if not name.startswith("results/logs/")}

    def half_written(self) -> list[str]:
        """Temporary files and folders in the results; every writer hides them behind a dot."""
        hidden = self.folder.glob("results/**/.*")
        return [str(path) for path in hidden if path.name != ".snakemake_timestamp"]


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``over``, which replace its own at any depth."""
    result = dict(base)
    for key, value in over.items():
        inner = result.get(key)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        result[key] = merged(inner, value) if both else value
    return result


def first_of(cases: Iterable[str]) -> list[Any]:
    """Cases that a unit test checks one by one: here the first, and the others where all is run."""
    first, *others = cases
    return [first, *(pytest.param(case, marks=pytest.mark.slow) for case in others)]


def of_tiny(**keys: Any) -> dict[str, Any]:
    """Changes to the tiny experiment."""
    return {"experiments": {"tiny": keys}}
