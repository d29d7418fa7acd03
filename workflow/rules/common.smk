"""Names, paths and lookups that the rule files share."""

import ast
import os
import shutil
import sys
from pathlib import Path

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW))
# Jobs import the library from here, in whatever environment they run.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(WORKFLOW), *filter(None, [os.environ.get("PYTHONPATH")])]
)

from stiffness.config import check_config
from stiffness.data.fingerprint import folder_fingerprint
from stiffness.errors import StiffnessError
from stiffness.training.schedule import finished_segments, plan_segments

try:
    EXPERIMENTS = check_config(config)
except StiffnessError as error:
    sys.exit(f"error in the configuration: {error}")

ENVIRONMENT = "../../envs/environment.yaml"
RUN = "results/{experiment}/lr={lr}/seed={seed}"


wildcard_constraints:
    dataset="[A-Za-z0-9_]+",
    experiment="[A-Za-z0-9_]+",
    lr=r"[0-9.eE+-]+",
    seed=r"\d+",
    segment=r"epochs=\d+-\d+",
    precision="exact|plain",


def library(script):
    """The library modules that a script imports, directly or not.

    Snakemake does not see imports. Named as inputs, an edited module reruns the rules whose
    scripts reach it, and no others.
    """
    found, queue = set(), [WORKFLOW / "scripts" / f"{script}.py"]
    while queue:
        for node in ast.walk(ast.parse(queue.pop().read_text())):
            names = []
            if isinstance(node, ast.ImportFrom):
                names = [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            for name in names:
                source = WORKFLOW / (name.replace(".", "/") + ".py")
                if name.startswith("stiffness.") and source.is_file() and source not in found:
                    found.add(source)
                    queue.append(source)
    # Relative paths: a workflow that was moved as a whole is not out of date.
    return sorted(os.path.relpath(source) for source in found)


def setting(*keys):
    """A rule parameter: one key of the experiment, so that other keys do not rerun the rule."""

    def get(wildcards):
        value = EXPERIMENTS[wildcards.experiment]
        for key in keys:
            value = value[key]
        return value

    return get


def segments(experiment, lr, seed):
    """The jobs a training is cut into, by name."""
    run = RUN.format(experiment=experiment, lr=lr, seed=seed)
    return plan_segments(
        EXPERIMENTS[experiment]["epochs"],
        EXPERIMENTS[experiment]["epochs_per_job"],
        finished_segments(f"{run}/checkpoints"),
    )


def run_segments(experiment):
    """(learning rate, seed, segment) of every job of an experiment's trainings."""
    entry = EXPERIMENTS[experiment]
    return [
        (lr, seed, segment)
        for lr in entry["learning_rates"]
        for seed in entry["seeds"]
        for segment in segments(experiment, lr, seed)
    ]


def evaluation_path(wildcards):
    """The evaluation subset, drawn once for all experiments that ask for the same one."""
    entry = EXPERIMENTS[wildcards.experiment]
    subset = entry["evaluation"]
    return (
        f"results/data/{entry['dataset']}/evaluation/"
        f"train={subset['train']}_validation={subset['validation']}_seed={subset['seed']}"
        ".safetensors"
    )


def arrays_path(wildcards):
    """The data set of an experiment."""
    return f"results/data/{EXPERIMENTS[wildcards.experiment]['dataset']}/arrays.safetensors"


def has_gpu():
    """Whether jobs should ask for a GPU; cheap, since it runs at every start of Snakemake."""
    if config["device"] == "auto":
        return shutil.which("nvidia-smi") is not None or os.path.exists("/dev/nvidiactl")
    return config["device"] == "cuda"


GPU = int(has_gpu())
