"""Wires the library's ``plan`` to Snakemake: settings, input functions, and what jobs share."""

import os
import shlex
import sys
from pathlib import Path

from humanfriendly import parse_size

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW))
from stiffness.data.hierarchy import read_hierarchy
from stiffness.data.sources import data_set
from stiffness.errors import StiffnessError
from stiffness.jobs.gpus import gpu_driver_present
from stiffness.jobs.presence import end_with_workflow, lead_jobs, remove_stale_locks
from stiffness.jobs.scheduling import look_once_per_delay
from stiffness.jobs.terminal import shorten_output
from stiffness.own_code import source_files
from stiffness.plan import paths, targets
from stiffness.plan.config import read_settings
from stiffness.plan.kinds import KINDS
from stiffness.plan.modules import library_modules, share_with_jobs
from stiffness.plan.needs import Needs

# Snakemake takes PYTHONPATH away from jobs in conda environments.
search_path = shlex.quote(share_with_jobs(WORKFLOW))
shell.prefix(f"set -euo pipefail; export PYTHONPATH={search_path}; ")
if workflow.is_main_process:
    shorten_output(workflow.output_settings)
    look_once_per_delay()
    if remove_stale_locks():
        print(
            "note: another snakemake is at work in this folder; what both would make is refused. "
            "Wait for it, and do not use --unlock",
            file=sys.stderr,
        )
elif not workflow.remote_exec:
    end_with_workflow(lambda: os._exit(1))
lead_jobs()

# Hierarchies by data set, as given: relative to the project, wherever it is run.
HIERARCHIES = {}
try:
    SETTINGS = read_settings(config)
    for name, entry in SETTINGS["datasets"].items():
        if entry.get("hierarchy"):
            HIERARCHIES[name] = os.path.relpath(Path(workflow.basedir) / entry["hierarchy"])
            read_hierarchy(HIERARCHIES[name])
except StiffnessError as error:
    sys.exit(f"error in the configuration: {error}")

ENVIRONMENT = "../../envs/environment.yaml"
DEVICE = SETTINGS["device"]
# How many GPUs a job asks for that can use one.
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and gpu_driver_present()))
ON_DEVICE = {
    "gpu": GPU,
    "device": DEVICE,
    "jobs_per_gpu": SETTINGS["jobs_per_gpu"],
    "memory_budget": SETTINGS["memory_budget"],
    "data_dir": SETTINGS["data_dir"],
}
"""Resources of jobs that compute with a network; they change no result."""

# On other machines a job has no more cores than it asks for.
HERE = workflow.local_exec and not workflow.remote_exec
needs = Needs(
    SETTINGS,
    bool(GPU),
    parse_size(SETTINGS["memory_budget"]),
    workflow.resource_settings.cores if HERE else None,
)
setting = needs.setting
evidence = targets.Claims(needs)


wildcard_constraints:
    dataset="|".join(SETTINGS["datasets"]),
    experiment="|".join(SETTINGS["experiments"]),
    lr=r"[0-9.eE+-]+",
    seed=r"\d+",
    segment=r"epochs=\d+-\d+|imported",
    arithmetic=r"[a-z0-9]+",
    tile=r"\d+-\d+",
    stage=r"\d+|last",
    suffix="pdf|png",


def library(script, module=None):
    """The library modules of a script, and of a module that it imports by a name it is given."""
    sources = [WORKFLOW / "scripts" / f"{script}.py"]
    sources += [WORKFLOW / "stiffness" / "figures" / f"{module}.py"] if module else []
    return library_modules(WORKFLOW, *sources)


def module_of(kind):
    """The module that draws a kind of figure."""
    return KINDS[kind].module or kind


def of_study(wildcards):
    """The kind of figure that a study makes."""
    return SETTINGS["studies"][wildcards.study]["kind"]


def refusing(function):
    """An input function that says in one line what cannot be made."""

    def get(wildcards):
        try:
            return function(wildcards)
        except StiffnessError as error:
            sys.exit(f"error in the command: {error}")

    return get


def kept(output):
    """An output that is deleted when nothing needs it any more, unless it is to be kept."""
    return output if SETTINGS["keep_gradients"] else temp(output)


def more(**first):
    """Resources that grow with every attempt."""
    return {
        name: lambda wildcards, attempt, value=value: value * attempt
        for name, value in first.items()
    }


def requested(request):
    """Memory and time as a job's own settings ask for them."""
    return {name: request(name) for name in ("mem_mb", "runtime")}


def in_report(path, page=False):
    """A figure of an experiment, as the report shows it: under one label.

    With several labels the report's page turns one into a switch where two figures happen to differ
    in it, and finds neither.
    """

    def label(wildcards):
        stage = wildcards.get("stage", "")
        return {"figure": targets.figure_label(SETTINGS, wildcards.kind, stage, page=page)}

    return report(
        path,
        caption="../report/figure.rst",
        category="Experiment {experiment}",
        labels=label,
    )
