"""What jobs read: files and settings, from the configuration and from what has been made before."""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from stiffness.data.hub import local_or_hub
from stiffness.data.shards import tile_names
from stiffness.errors import StiffnessError
from stiffness.fingerprint import content_fingerprint
from stiffness.own_code import source_files
from stiffness.plan import paths, requests
from stiffness.plan.checkpoints import find_checkpoints, of_run
from stiffness.plan.kinds import KINDS, Kind, check_figure
from stiffness.plan.segments import IMPORTED, finished_segments, plan_segments

Settings = Mapping[str, Any]
"""Everything that config.yaml decides, as ``read_settings`` gives it."""
Wildcards = Any
"""The wildcards of a job: attributes, and ``items()``."""
Function = Callable[[Wildcards], Any]
"""An input function, or a function of a parameter, as Snakemake calls it for a job."""


class Needs:
    """Input functions of the rules, and functions of their parameters, for one configuration.

    Args:
        settings: as ``read_settings`` gives them.
        gpu: whether jobs that can use a GPU ask for one.
        memory_budget: in bytes, for per-example gradients.
        cores: that jobs share on this machine; None where they run on others.
    """

    def __init__(
        self,
        settings: Settings,
        gpu: bool = False,
        memory_budget: int = 4 * 2**30,
        cores: int | None = None,
    ) -> None:
        self.settings, self.gpu = settings, gpu
        self.memory_budget, self.cores = memory_budget, cores
        self._runs: dict[str, dict[tuple[str, int], list[str]]] = {}

    def setting(self, *keys: str | int) -> Function:
        """One key of the experiment as a parameter, so that other keys do not rerun a job."""

        def get(wildcards: Wildcards) -> Any:
            value = self.settings["experiments"][wildcards.experiment]
            for key in keys:
                value = value[key]
            return value

        return get

    def segments(self, experiment: str) -> dict[tuple[str, int], list[str]]:
        """The segments of each of an experiment's trainings, by (learning rate, seed).

        The disk is asked once: what is planned stays planned while it is made.
        """
        if experiment not in self._runs:
            entry = self.settings["experiments"][experiment]
            epochs, per_job = entry["epochs"], entry["epochs_per_job"]
            self._runs[experiment] = {
                (lr, seed): [IMPORTED]
                if "checkpoints" in entry
                else plan_segments(
                    epochs,
                    per_job,
                    finished_segments(
                        f"{paths.RUN.format(experiment=experiment, lr=lr, seed=seed)}/checkpoints"
                    ),
                )
                for lr in entry["learning_rates"]
                for seed in entry["seeds"]
            }
        return self._runs[experiment]

    def parts(self, experiment: str) -> list[tuple[str, int, str]]:
        """(learning rate, seed, segment) of every segment of an experiment."""
        runs = self.segments(experiment).items()
        return [(lr, seed, segment) for (lr, seed), chain in runs for segment in chain]

    def reference_parts(self, experiment: str) -> list[tuple[str, int, str]]:
        """The parts of the reference learning rate."""
        rate = self.settings["experiments"][experiment]["reference_learning_rate"]
        return [part for part in self.parts(experiment) if part[0] == rate]

    def runs(self, wildcards: Wildcards) -> list[list[Any]]:
        """``parts``, as a parameter."""
        return [list(part) for part in self.parts(wildcards.experiment)]

    def segment_files(self, pattern: str) -> Function:
        """A file of all segments of an experiment, run by run."""
        return lambda wildcards: [
            paths.fill(pattern, **dict(wildcards.items()), lr=lr, seed=seed, segment=segment)
            for lr, seed, segment in self.parts(wildcards.experiment)
        ]

    def previous(self, wildcards: Wildcards) -> list[str]:
        """The state that a segment goes on from; nothing for the first.

        Raises:
            StiffnessError: the training has no such segment.
        """
        runs = self.segments(wildcards.experiment)
        chain = runs.get((wildcards.lr, int(wildcards.seed)), [])
        if wildcards.segment not in chain:
            raise StiffnessError(
                f"{wildcards.segment} is not a part of this training; its parts are "
                f"{', '.join(chain) or 'none: the experiment has no such run'}"
            )
        position = chain.index(wildcards.segment)
        before = dict(wildcards.items()) | {"segment": chain[position - 1]}
        return [paths.STATE.format(**before)] if position else []

    def imported(self, attribute: str) -> Function:
        """The paths or the points of a run's checkpoints that were made elsewhere."""

        def get(wildcards: Wildcards) -> list[Any]:
            pattern = self.settings["experiments"][wildcards.experiment]["checkpoints"]
            key = f"experiments.{wildcards.experiment}.checkpoints"
            found = of_run(find_checkpoints(pattern, key), wildcards.lr, int(wildcards.seed))
            return [getattr(one, attribute) for one in found]

        return get

    def arrays(self, wildcards: Wildcards) -> str:
        """The data set of an experiment."""
        return paths.ARRAYS.format(**self._names(wildcards.experiment))

    def evaluation(self, wildcards: Wildcards) -> str:
        """The evaluation subset, drawn once for all experiments that ask for the same one."""
        return paths.EVALUATION.format(**self._names(wildcards.experiment))

    def hierarchy(self, wildcards: Wildcards) -> list[str]:
        """The hierarchy of an experiment's classes; nothing where it has none."""
        names = self._names(wildcards.experiment)
        found = self.settings["datasets"][names["dataset"]].get("hierarchy")
        return [paths.HIERARCHY.format(**names)] if found else []

    def gradients(self, name: str) -> Function:
        """A file or folder of a segment's gradients; one for each tile where there are shards."""

        def get(wildcards: Wildcards) -> list[str]:
            shards = self.settings["experiments"][wildcards.experiment]["evaluation"]["shards"]
            own = dict(wildcards.items())
            if shards == 1:
                return [f"{paths.GRADIENTS.format(**own)}/{name}"]
            tiles = tile_names(shards)
            return [f"{paths.TILE.format(**own, tile=tile)}/{name}" for tile in tiles]

        return get

    def inner_layers(self, wildcards: Wildcards) -> list[str]:
        """Layers of the network in which distances are measured."""
        layers = self.settings["experiments"][wildcards.experiment]["distance_layers"]
        return [layer for layer in layers if layer != "input"]

    def representations(self, wildcards: Wildcards) -> list[str]:
        """What those layers make of the evaluation subset; nothing where only the input counts."""
        inner = self.inner_layers(wildcards)
        return [paths.REPRESENTATIONS.format(**dict(wildcards.items()))] if inner else []

    def stages(self, *keys: str) -> Function:
        """The stages at which something is measured, by its setting; [] for every checkpoint."""
        get, stages = self.setting(*keys), self.setting("stages")
        return lambda wildcards: stages(wildcards) if get(wildcards) == "stages" else []

    def histories(self, *keys: str) -> Function:
        """Histories of all segments of a run, which decide what checkpoints are its stages."""
        stages = self.stages(*keys)

        def get(wildcards: Wildcards) -> list[str]:
            runs = self.segments(wildcards.experiment)
            chain = runs.get((wildcards.lr, int(wildcards.seed)), [])
            own = dict(wildcards.items())
            files = [paths.HISTORY.format(**own | {"segment": segment}) for segment in chain]
            return files if stages(wildcards) else []

        return get

    def own_code(self, *keys: str) -> Function:
        """The user's own files that settings of an experiment name by import paths.

        Args:
            keys: of settings that have a ``name``.
        """

        def get(wildcards: Wildcards) -> list[str]:
            entry = self.settings["experiments"][wildcards.experiment]
            return sorted({file for key in keys for file in source_files(entry[key]["name"])})

        return get

    def pretrained(self, wildcards: Wildcards) -> str:
        """A digest of a pretrained network's own folder."""
        path = self.settings["experiments"][wildcards.experiment]["model"]["path"]
        folder = local_or_hub(path, self.settings["data_dir"]) if path else ""
        return content_fingerprint(folder, ("config.json", "*.safetensors")) if path else ""

    def dataset(self, wildcards: Wildcards) -> dict[str, Any]:
        """The options of an experiment's data set, and its name."""
        name = self.settings["experiments"][wildcards.experiment]["dataset"]
        return {"name": name, **self.settings["datasets"][name]}

    def summary(self, wildcards: Wildcards) -> str:
        """An experiment's summary, in the first of its arithmetics."""
        return paths.TABLE.format(name="summary", **self._names(wildcards.experiment))

    # Figures.

    def figure(self, wildcards: Wildcards) -> dict[str, str | list[str]]:
        """What a figure of an experiment reads, by name.

        Raises:
            StiffnessError: the experiment can have no such figure; see ``check_figure``.
        """
        stage = dict(wildcards.items()).get("stage")
        stage = int(stage) if stage and stage != "last" else stage
        kind = KINDS[wildcards.kind]
        check_figure("the command", self.settings, wildcards.experiment, kind.name, stage)
        return self._figure_files(kind, wildcards.experiment)

    def figure_settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """The settings that a kind shows, and the one stage of a kind that shows one."""
        kind, experiment = KINDS[wildcards.kind], wildcards.experiment
        found = self._figure_settings(kind, experiment)
        if kind.by_stage and wildcards.stage == "last":
            found["stages"] = ["last"]
        elif kind.by_stage:
            found["stages"] = [found["stages"][int(wildcards.stage) - 1]]
        return found

    def figure_parts(self, wildcards: Wildcards) -> list[int]:
        """The seed of each of the files that a kind reads of segments."""
        parts = self.reference_parts(wildcards.experiment) if KINDS[wildcards.kind].parts else []
        return [seed for _, seed, _ in parts]

    def study(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """What a figure of several experiments reads, by name."""
        kind, experiments = self._study(wildcards)
        found: dict[str, list[str]] = {}
        for experiment in experiments:
            for name, files in self._figure_files(kind, experiment).items():
                found.setdefault(name, []).extend([files] if isinstance(files, str) else files)
        return found

    def study_settings(self, wildcards: Wildcards) -> dict[str, Any]:
        """What a figure of several experiments shows of each; the space is one for all."""
        kind, experiments = self._study(wildcards)
        columns = [
            {"experiment": experiment, **self._figure_settings(kind, experiment)}
            for experiment in experiments
        ]
        shared = [{"space": column.pop("space")} for column in columns if "space" in column]
        return {kind.across: columns, **(shared[0] if shared else {})}

    def study_parts(self, wildcards: Wildcards) -> list[list[Any]]:
        """The experiment and the seed of each of the files of segments."""
        kind, experiments = self._study(wildcards)
        return [
            [experiment, seed]
            for experiment in experiments
            for _, seed, _ in (self.reference_parts(experiment) if kind.parts else [])
        ]

    # What jobs ask of a scheduler.

    def training_threads(self, wildcards: Wildcards) -> int:
        """Threads of a training: the machine's cores, shared by the runs of the experiment."""
        entry = self.settings["experiments"][wildcards.experiment]
        runs = len(entry["learning_rates"]) * len(entry["seeds"])
        return requests.training_threads(self.cores, runs, self.gpu)

    def training_request(self, name: str) -> Callable[[Wildcards, Any, int], int]:
        """The memory or the time that a segment of a training asks for."""

        def get(wildcards: Wildcards, input: Any, attempt: int) -> int:
            epochs = self._checkpoints(wildcards)  # an import takes less for each
            if wildcards.segment != IMPORTED:
                start, end = map(int, re.findall(r"\d+", wildcards.segment))
                epochs = end - start
            return requests.training_request(
                self.settings["experiments"][wildcards.experiment]["model"]["name"],
                os.path.getsize(input.arrays) / 1e6,
                epochs,
                self.gpu,
                attempt,
            )[name]

        return get

    def gradients_request(self, name: str) -> Callable[[Wildcards, int], int]:
        """The memory or the time that the gradients of a segment ask for, or a tile of them."""

        def get(wildcards: Wildcards, attempt: int) -> int:
            entry = self.settings["experiments"][wildcards.experiment]
            return requests.gradients_request(
                entry["model"]["name"],
                entry["evaluation"]["train"] + entry["evaluation"]["validation"],
                entry["evaluation"]["shards"],
                self._checkpoints(wildcards),
                self.memory_budget,
                self.gpu,
                attempt,
            )[name]

        return get

    def measures_request(self, name: str) -> Callable[[Wildcards, int], int]:
        """The memory or the time that the tables of a segment ask for."""

        def get(wildcards: Wildcards, attempt: int) -> int:
            entry = self.settings["experiments"][wildcards.experiment]
            return requests.measures_request(
                entry["evaluation"]["train"] + entry["evaluation"]["validation"],
                entry["evaluation"]["shards"],
                self._checkpoints(wildcards),
                entry["bootstrap"]["resamples"],
                attempt,
            )[name]

        return get

    # Details.

    def _checkpoints(self, wildcards: Wildcards) -> int:
        """How many checkpoints a segment has, at most."""
        if wildcards.segment == IMPORTED:
            return len(self.imported("path")(wildcards))
        entry = self.settings["experiments"][wildcards.experiment]
        return requests.checkpoints(entry, wildcards.segment)

    def _names(self, experiment: str) -> dict[str, Any]:
        """Wildcards that an experiment decides."""
        entry = self.settings["experiments"][experiment]
        subset = entry["evaluation"]
        return {
            "experiment": experiment,
            "dataset": entry["dataset"],
            "train": subset["train"],
            "validation": subset["validation"],
            "subset_seed": subset["seed"],
            "arithmetic": entry["arithmetic"][0],
        }

    def _figure_files(self, kind: Kind, experiment: str) -> dict[str, str | list[str]]:
        names = self._names(experiment)
        found: dict[str, str | list[str]] = {
            name: paths.TABLE.format(name=name, **names) for name in kind.tables
        }
        for argument, name in kind.by_arithmetic.items():
            found[argument] = [
                paths.TABLE.format(**names | {"name": name, "arithmetic": arithmetic})
                for arithmetic in self.settings["experiments"][experiment]["arithmetic"]
            ]
        found |= {name: pattern.format(**names) for name, pattern in kind.files.items()}
        parts = self.reference_parts(experiment) if kind.parts else []
        for name, pattern in kind.parts.items():
            found[name] = [
                pattern.format(lr=lr, seed=seed, segment=segment, **names)
                for lr, seed, segment in parts
            ]
        return found

    def _figure_settings(self, kind: Kind, experiment: str) -> dict[str, Any]:
        entry = self.settings["experiments"][experiment]
        noise = self.settings["datasets"][entry["dataset"]].get("label_noise") or {}
        known = {
            **entry,
            "distance_layer": entry["distance_layers"][0],
            "label_noise": noise.get("share", 0),
        }
        return {argument: known[key] for argument, key in kind.settings.items()}

    def _study(self, wildcards: Wildcards) -> tuple[Kind, Sequence[str]]:
        entry = self.settings["studies"][wildcards.study]
        return KINDS[entry["kind"]], entry["experiments"]
