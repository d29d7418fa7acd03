"""Names, paths and lookups that the rule files share."""

import os
import re
import shlex
import sys
from pathlib import Path

from humanfriendly import parse_size

WORKFLOW = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(WORKFLOW))
from stiffness.plan.config import STAGE_KINDS, check_config, check_figure, lacking
from stiffness.plan.fingerprint import content_fingerprint, folder_fingerprint
from stiffness.data.hierarchy import read_hierarchy
from stiffness.data.shards import tile_names
from stiffness.errors import StiffnessError
from stiffness.jobs.gpus import gpu_driver_present
from stiffness.data.hub import local_or_hub
from stiffness.plan.modules import library_modules, share_with_jobs
from stiffness.jobs.presence import end_with_workflow, lead_jobs, remove_stale_locks
from stiffness.jobs.terminal import shorten_output
from stiffness.plan.requests import (
    gradients_request,
    stiffness_request,
    training_request,
    training_threads,
)
from stiffness.plan.segments import finished_segments, plan_segments

# Snakemake takes PYTHONPATH away from jobs in conda environments.
search_path = shlex.quote(share_with_jobs(WORKFLOW))
shell.prefix(f"set -euo pipefail; export PYTHONPATH={search_path}; ")
if workflow.is_main_process:
    shorten_output(workflow.output_settings)
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
    EXPERIMENTS = check_config(config)
    for name, entry in config["datasets"].items():
        if "hierarchy" in entry:
            HIERARCHIES[name] = os.path.relpath(Path(workflow.basedir) / entry["hierarchy"])
            read_hierarchy(HIERARCHIES[name])
except StiffnessError as error:
    sys.exit(f"error in the configuration: {error}")

ENVIRONMENT = "../../envs/environment.yaml"
RUN = "results/{experiment}/lr={lr}/seed={seed}"
TILE = f"{RUN}/gradients/{{precision}}/{{segment}}/tiles/{{tile}}"


wildcard_constraints:
    dataset="|".join(config["datasets"]),
    experiment="|".join(EXPERIMENTS),
    lr=r"[0-9.eE+-]+",
    seed=r"\d+",
    segment=r"epochs=\d+-\d+",
    precision="exact|plain",
    tile=r"\d+-\d+",
    stage=r"\d+|last",


def library(script):
    """The library modules of a script; see stiffness.plan.modules."""
    return library_modules(WORKFLOW / "scripts" / f"{script}.py", WORKFLOW)


def setting(*keys):
    """One key of the experiment as a parameter, so that other keys do not rerun a job."""

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


def dataset_options(wildcards):
    """What decides a data set's arrays; groups of its classes do not."""
    entry = config["datasets"][wildcards.dataset]
    return {key: value for key, value in entry.items() if key != "hierarchy"}


def hierarchy_path(wildcards):
    """The hierarchy of an experiment's classes, checked against them; nothing where it has none."""
    dataset = EXPERIMENTS[wildcards.experiment]["dataset"]
    return [f"results/data/{dataset}/hierarchy.yaml"] if dataset in HIERARCHIES else []


def gradients_parts(name):
    """A file or folder of a segment's gradients: one, or one a tile where there are shards."""

    def get(wildcards):
        shards = setting("evaluation", "shards")(wildcards)
        folder = f"{RUN}/gradients/{{precision}}/{{segment}}"
        if shards == 1:
            return [f"{folder}/{name}"]
        return [f"{folder}/tiles/{tile}/{name}" for tile in tile_names(shards)]

    return get


def inner_layers(wildcards):
    """Layers of the network in which distances are measured."""
    layers = EXPERIMENTS[wildcards.experiment]["distance_layers"]
    return [layer for layer in layers if layer != "input"]


def first_layer(wildcards):
    """The space whose distances figures show."""
    return EXPERIMENTS[wildcards.experiment]["distance_layers"][0]


def representations_path(wildcards):
    """What those layers make of the evaluation subset; nothing where only the input counts."""
    return [f"{RUN}/representations/{{segment}}"] if inner_layers(wildcards) else []


def kept(output):
    """An output that is deleted when nothing needs it any more, unless it is to be kept."""
    return output if config["keep_gradients"] else temp(output)


# How many GPUs a job asks for that can use one.
GPU = int(config["device"] == "cuda" or (config["device"] == "auto" and gpu_driver_present()))


def training_needs(name):
    """The memory or the time that a segment of a training asks for."""

    def get(wildcards, input, attempt):
        start, end = map(int, re.findall(r"\d+", wildcards.segment))
        return training_request(
            setting("model", "name")(wildcards),
            os.path.getsize(input.arrays) / 1e6,
            end - start,
            bool(GPU),
            attempt,
        )[name]

    return get


def gradients_needs(name):
    """The same of the gradients of a segment's checkpoints, or of a tile of them."""

    def get(wildcards, attempt):
        return gradients_request(
            setting("model", "name")(wildcards),
            _examples(wildcards),
            setting("evaluation", "shards")(wildcards),
            _checkpoints(wildcards),
            parse_size(config["memory_budget"]),
            bool(GPU),
            attempt,
        )[name]

    return get


def stiffness_needs(name):
    """The same of the tables made of them."""

    def get(wildcards, attempt):
        return stiffness_request(
            _examples(wildcards),
            setting("evaluation", "shards")(wildcards),
            _checkpoints(wildcards),
            setting("bootstrap", "resamples")(wildcards),
            attempt,
        )[name]

    return get


def _examples(wildcards):
    subset = EXPERIMENTS[wildcards.experiment]["evaluation"]
    return subset["train"] + subset["validation"]


def _checkpoints(wildcards):
    """How many a segment has, at most."""
    entry = EXPERIMENTS[wildcards.experiment]
    start, end = map(int, re.findall(r"\d+", wildcards.segment))
    early = 0 if start else 2 + entry["early_checkpoints"]
    return early + 1 + round((end - start) / entry["checkpoint_interval"])


def raw_fingerprint(wildcards):
    """Of the user's own files; other data are fixed, and checked against known checksums."""
    entry, data_dir = config["datasets"][wildcards.dataset], Path(config["data_dir"])
    if entry["source"] != "text":
        return folder_fingerprint(data_dir / entry["path"]) if "path" in entry else ""
    tokenizer = local_or_hub(entry["tokenizer"], data_dir)
    fingerprints = [content_fingerprint(tokenizer, ("*.json", "*.txt", "*.model"))]
    if "path" in entry:
        texts = content_fingerprint(data_dir / entry["path"], ("train.*", "validation.*"))
        fingerprints.append(texts)
    return fingerprints


def pretrained_fingerprint(wildcards):
    """Of a pretrained network's own folder."""
    path = EXPERIMENTS[wildcards.experiment]["model"]["path"]
    if not path:
        return ""
    folder = local_or_hub(path, config["data_dir"])
    return content_fingerprint(folder, ("config.json", "*.safetensors"))


def previous_segment(wildcards):
    chain = segments(wildcards.experiment, wildcards.lr, wildcards.seed)
    if wildcards.segment not in chain:
        raise WorkflowError(
            f"{wildcards.segment} is not a part of this training; its parts are {', '.join(chain)}"
        )
    position = chain.index(wildcards.segment)
    return [f"{RUN}/checkpoints/{chain[position - 1]}/state.safetensors"] if position else []


def experiment_parts(pattern):
    """Files of all segments of an experiment, run by run."""

    def get(wildcards):
        return [
            pattern.format(
                experiment=wildcards.experiment,
                lr=lr,
                seed=seed,
                segment=segment,
                precision=wildcards.precision,
            )
            for lr, seed, segment in run_segments(wildcards.experiment)
        ]

    return get


def table(name):
    """An experiment's table, in the first of its precisions."""

    def get(wildcards):
        precision = EXPERIMENTS[wildcards.experiment]["precisions"][0]
        return f"results/{wildcards.experiment}/tables/{precision}/{name}.parquet"

    return get


def reference_parts(wildcards):
    """(seed, segment) of the reference learning rate."""
    rate = EXPERIMENTS[wildcards.experiment]["reference_learning_rate"]
    parts = run_segments(wildcards.experiment)
    return [(seed, segment) for lr, seed, segment in parts if lr == rate]


def reference_classes(wildcards):
    """Class matrices of the reference learning rate, for every seed and segment."""
    entry = EXPERIMENTS[wildcards.experiment]
    return [
        f"{RUN}/measures/{{precision}}/{{segment}}/classes.parquet".format(
            experiment=wildcards.experiment,
            lr=entry["reference_learning_rate"],
            seed=seed,
            segment=segment,
            precision=entry["precisions"][0],
        )
        for seed, segment in reference_parts(wildcards)
    ]


def stages_measured(*keys):
    """Stages at which something is measured, by its setting; nothing for every checkpoint."""

    def get(wildcards):
        return setting("stages")(wildcards) if setting(*keys)(wildcards) == "stages" else []

    return get


whole_set_stages = stages_measured("evaluation", "all")
layer_stages = stages_measured("layer_stiffness")


def run_histories(stages):
    """Histories of all segments of a run that decide which checkpoints stand for its stages."""

    def get(wildcards):
        if not stages(wildcards):
            return []
        chain = segments(wildcards.experiment, wildcards.lr, wildcards.seed)
        return [f"{RUN}/checkpoints/{segment}/history.parquet" for segment in chain]

    return get


def reference_files(pattern, kind):
    """What a kind of figure reads of every seed and segment of the reference learning rate."""

    def get(wildcards):
        _refuse_figure(wildcards.experiment, kind)
        entry = EXPERIMENTS[wildcards.experiment]
        return [
            pattern.format(
                experiment=wildcards.experiment,
                lr=entry["reference_learning_rate"],
                seed=seed,
                segment=segment,
                precision=entry["precisions"][0],
            )
            for seed, segment in reference_parts(wildcards)
        ]

    return get


def reference_seeds(wildcards):
    """The seed of each of those files."""
    return [seed for seed, _ in reference_parts(wildcards)]


def hierarchy_of_figure(wildcards):
    """The hierarchy that a figure needs; an error in one line where there is none."""
    _refuse_figure(wildcards.experiment, "hierarchy_curves")
    return hierarchy_path(wildcards)


def stage_of_figure(kind):
    """The one stage that a figure shows, as the experiment's settings give it."""

    def get(wildcards):
        stage = wildcards.stage if wildcards.stage == "last" else int(wildcards.stage)
        _refuse_figure(wildcards.experiment, kind, stage)
        return [
            stage if stage == "last" else EXPERIMENTS[wildcards.experiment]["stages"][stage - 1]
        ]

    return get


def _refuse_figure(experiment, kind, stage=None):
    try:
        check_figure("the command", config, EXPERIMENTS, experiment, kind, stage)
    except StiffnessError as error:
        sys.exit(f"error in {error}")


def pdf(kind):
    name = f"{kind}/stage={{stage}}" if kind in STAGE_KINDS else kind
    return f"results/{{experiment}}/figures/{name}.pdf"


def png(kind):
    """The figure as the report shows it.

    Everything is in one label: with several the report's page turns one into a switch where two
    figures happen to differ in it, and finds neither.
    """
    stage = ", stage {stage}" if kind in STAGE_KINDS else ""
    return report(
        str(Path(pdf(kind)).with_suffix(".png")),
        caption=f"../report/{kind}.rst",
        category="Experiment {experiment}",
        labels={"figure": f"{figure_number(kind)}: {kind.replace('_', ' ')}{stage}"},
    )


def figure_number(kind):
    """Of a kind in the paper, for sorting; "new" where the paper has no such figure."""
    numbers = [
        int(name.removeprefix("fig"))
        for name, entry in config["paper"].items()
        if entry["kind"] == kind and name.removeprefix("fig").isdigit()
    ]
    return f"fig. {min(numbers):02d}" if numbers else "new"


def figures_of(experiments, kinds, stage="last"):
    """Every picture of these kinds for these experiments; of one stage where a kind has stages."""
    return [
        path.format(experiment=experiment, stage=stage)
        for experiment in experiments
        for kind in kinds
        if not lacking(config, EXPERIMENTS, experiment, kind)
        for path in (pdf(kind), str(Path(pdf(kind)).with_suffix(".png")))
    ]


def figures_of_paper(entry):
    """The pictures of one figure of the paper, and what their tables were made with."""
    figures = figures_of(entry["experiments"], [entry["kind"]], entry.get("stage", "last"))
    return [*figures, *provenance_of(entry["experiments"])]


def tables_of(experiments):
    """A table of every precision, also of those that no figure shows, and what made them."""
    return [
        *provenance_of(experiments),
        *[
            f"results/{experiment}/tables/{precision}/summary.parquet"
            for experiment in experiments
            for precision in EXPERIMENTS[experiment]["precisions"]
        ],
    ]


# Settings that decide what an experiment can say; others do not judge it again.
CLAIMS_KEYS = (
    "dataset",
    "model",
    "reference_learning_rate",
    "precisions",
    "distance_layers",
    "bootstrap",
)


def claims_evidence(experiment):
    """The tables that the claims read of an experiment."""
    folder = f"results/{experiment}/tables/exact"
    names = ("runs", "history", "summary", "distance", "critical_length", "order")
    return [f"{folder}/{name}.parquet" for name in names]


def claimed_experiments():
    """Experiments that speak to the claims: those of a plain `snakemake`, and all that have been
    run. The latter are read as they are: judging claims trains nothing."""
    return [
        name
        for name in EXPERIMENTS
        if "exact" in EXPERIMENTS[name]["precisions"]
        if name in config["run"] or all(map(os.path.exists, claims_evidence(name)))
    ]


def claims_tables(wildcards):
    """The tables to wait for."""
    run = [name for name in claimed_experiments() if name in config["run"]]
    return [path for name in run for path in claims_evidence(name)]


def claims_experiments(wildcards):
    """What the claims have to know about each experiment."""
    return {
        name: {
            "settings": {key: EXPERIMENTS[name][key] for key in CLAIMS_KEYS},
            "segments": [list(part) for part in run_segments(name)],
            "source": config["datasets"][EXPERIMENTS[name]["dataset"]]["source"],
            "has_hierarchy": EXPERIMENTS[name]["dataset"] in HIERARCHIES,
            "pictures": linked_pictures(name),
        }
        for name in claimed_experiments()
    }


def claims_studies(wildcards):
    """Experiments of the studies by the kind of figure that they are for."""
    kinds = {entry["kind"] for entry in config["studies"].values()}
    return {
        kind: sorted(
            {
                name
                for entry in config["studies"].values()
                if entry["kind"] == kind
                for name in entry["experiments"]
            }
        )
        for kind in sorted(kinds)
    }


def claims_pictures(wildcards):
    """The pictures to wait for: the page links to them."""
    run = [name for name in claimed_experiments() if name in config["run"]]
    return [path for name in run for path in linked_pictures(name).values()]


def linked_pictures(experiment):
    """An experiment's pictures by kind, as far as there will be any when the claims are judged."""
    kinds = [kind for kind in config["figures"] if kind not in (*STAGE_KINDS, "claims")]
    pictures = {
        kind: path
        for kind in kinds
        for path in figures_of([experiment], [kind])
        if path.endswith(".png")
    }
    made = experiment in config["run"]
    return {kind: path for kind, path in pictures.items() if made or os.path.exists(path)}


def claims_made(wildcards):
    """When the tables that are read as they are were made, so that newer ones are judged again."""
    found = [name for name in claimed_experiments() if name not in config["run"]]
    return {name: max(map(os.path.getmtime, claims_evidence(name))) for name in found}


def studies_of(kind):
    """The names of the studies of a kind, as a pattern; it matches nothing where there are none."""
    names = [name for name, entry in config["studies"].items() if entry["kind"] == kind]
    return "|".join(names) or "(?!)"


def study_files(study):
    """What a study makes: one figure of all its experiments, or one of each."""
    entry = config["studies"][study]
    if entry["kind"] in config["figures"]:
        return figures_of(entry["experiments"], [entry["kind"]])
    return [f"results/studies/{study}.{suffix}" for suffix in ("pdf", "png", "csv")]


def study_png(kind):
    """Its figure as the report shows it."""
    return report(
        "results/studies/{study}.png",
        caption=f"../report/{kind}.rst",
        category="Studies across experiments",
        labels={"study": "{study}"},
    )


def _of_study(wildcards):
    """Its experiments by name, with their settings."""
    names = config["studies"][wildcards.study]["experiments"]
    return {name: EXPERIMENTS[name] for name in names}


def study_tables(name):
    """One table of each of its experiments, in the first of the experiment's precisions."""

    def get(wildcards):
        return [
            f"results/{experiment}/tables/{entry['precisions'][0]}/{name}.parquet"
            for experiment, entry in _of_study(wildcards).items()
        ]

    return get


def _study_parts(wildcards):
    """(experiment, seed, segment) of the reference learning rates."""
    return [
        (experiment, seed, segment)
        for experiment, entry in _of_study(wildcards).items()
        for lr, seed, segment in run_segments(experiment)
        if lr == entry["reference_learning_rate"]
    ]


def study_replicates(wildcards):
    """Bootstrap replicates of the reference learning rates, for every seed and segment."""
    return [
        f"{RUN}/measures/{{precision}}/{{segment}}/replicates.safetensors".format(
            experiment=experiment,
            lr=EXPERIMENTS[experiment]["reference_learning_rate"],
            seed=seed,
            precision=EXPERIMENTS[experiment]["precisions"][0],
            segment=segment,
        )
        for experiment, seed, segment in _study_parts(wildcards)
    ]


def study_replicates_of(wildcards):
    """The experiment and the seed of each of those files."""
    return [[experiment, seed] for experiment, seed, _ in _study_parts(wildcards)]


def noise_columns(wildcards):
    """What a study of wrong labels shows: of each experiment its name, rate and wrong share."""
    return [
        {
            "experiment": experiment,
            "lr": entry["reference_learning_rate"],
            "share": config["datasets"][entry["dataset"]].get("label_noise", {}).get("share", 0),
        }
        for experiment, entry in _of_study(wildcards).items()
    ]


def study_settings(wildcards):
    """What a study of optimisers shows: of each experiment its name, rates and optimiser."""
    keys = ("learning_rates", "optimizer", "batch_size")
    return [
        {"experiment": experiment} | {key: entry[key] for key in keys}
        for experiment, entry in _of_study(wildcards).items()
    ]


def study_layer(wildcards):
    """The space of its distances, which is the same for all of its experiments."""
    return next(iter(_of_study(wildcards).values()))["distance_layers"][0]


def provenance_of(experiments):
    """What the tables of these experiments were made with."""
    return [f"results/{experiment}/provenance.yaml" for experiment in experiments]


def whole_experiment(wildcards):
    """An experiment's settings, defaults filled in."""
    return EXPERIMENTS[wildcards.experiment]


def whole_dataset(wildcards):
    """The options of an experiment's data set, and its name."""
    name = EXPERIMENTS[wildcards.experiment]["dataset"]
    return {"name": name, **config["datasets"][name]}


def unknown_figure(wildcards):
    known = ", ".join(config["paper"])
    sys.exit(f"error in the command: unknown figure fig{wildcards.unknown}; known: {known}")
