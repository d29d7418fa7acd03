"""What a user can ask for: pictures, tables, studies and claims, and what the claims read."""

import os
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from stiffness.errors import StiffnessError
from stiffness.plan import paths
from stiffness.plan.kinds import KINDS, lacking
from stiffness.plan.needs import Needs, Settings

CLAIMS_TABLES = ("runs", "history", "summary", "distance", "critical_length", "order")
CLAIMS_KEYS = (
    "dataset",
    "model",
    "reference_learning_rate",
    "arithmetic",
    "distance_layers",
    "bootstrap",
)
"""Settings that decide what an experiment can say; others do not judge it again."""


def kinds_of_runs(page: bool) -> list[str]:
    """The kinds that show one experiment in one figure, those with a page or those without."""
    return [
        name
        for name, kind in KINDS.items()
        if kind.page == page and not (kind.by_stage or kind.across)
    ]


def figure_path(kind: str) -> str:
    """The path of a kind's figures, with wildcards."""
    return paths.fill(paths.STAGE_FIGURE if KINDS[kind].by_stage else paths.FIGURE, kind=kind)


def figures_of(
    settings: Settings, experiments: Iterable[str], kinds: Iterable[str], stage: Any = "last"
) -> list[str]:
    """Every picture of these kinds for these experiments, as far as they can have them.

    Args:
        stage: that kinds that show one stage show.
    """
    return [
        paths.fill(figure_path(kind), experiment=experiment, stage=stage, suffix=suffix)
        for experiment in experiments
        for kind in kinds
        if not KINDS[kind].across and not lacking(settings, experiment, kind)
        for suffix in ("pdf", "png", *["html"] * KINDS[kind].page)
    ]


def provenance_of(experiments: Iterable[str]) -> list[str]:
    """What the tables of these experiments were made with."""
    return [paths.PROVENANCE.format(experiment=experiment) for experiment in experiments]


def tables_of(settings: Settings, experiments: Iterable[str]) -> list[str]:
    """A table of every arithmetic, also of those that no figure shows, and what made them."""
    tables = [
        paths.TABLE.format(experiment=experiment, arithmetic=arithmetic, name="summary")
        for experiment in experiments
        for arithmetic in settings["experiments"][experiment]["arithmetic"]
    ]
    return [*provenance_of(experiments), *tables]


def paper_files(settings: Settings, figure: str) -> list[str]:
    """The pictures of one figure of the paper, and what their tables were made with."""
    entry = settings["paper"][figure]
    stage = entry.get("stage") or "last"
    pictures = figures_of(settings, entry["experiments"], [entry["kind"]], stage)
    return [*pictures, *provenance_of(entry["experiments"])]


def study_files(settings: Settings, study: str) -> list[str]:
    """What a study makes: one figure of all its experiments, or one of each."""
    entry = settings["studies"][study]
    if not KINDS[entry["kind"]].across:
        return figures_of(settings, entry["experiments"], [entry["kind"]])
    return [paths.STUDY.format(study=study, suffix=suffix) for suffix in ("pdf", "png", "csv")]


def studies_across(settings: Settings) -> list[str]:
    """The studies that make one figure of all their experiments."""
    return [name for name, entry in settings["studies"].items() if KINDS[entry["kind"]].across]


def unknown_figure(settings: Settings, name: str) -> None:
    """Refuse a figure that the paper does not have.

    Raises:
        StiffnessError: always.
    """
    raise StiffnessError(f"unknown figure {name}; known: {', '.join(settings['paper'])}")


def figure_label(settings: Settings, kind: str, stage: str = "", page: bool = False) -> str:
    """The name of a figure, or of its page, in the report; it sorts as the paper does."""
    numbers = [
        int(name.removeprefix("fig"))
        for name, entry in settings["paper"].items()
        if entry["kind"] == kind and name.removeprefix("fig").isdigit()
    ]
    number = f"fig. {min(numbers):02d}" if numbers else "new"
    about = f", stage {stage}" if stage else ", cell by cell" if page else ""
    return f"{number}: {kind.replace('_', ' ')}{about}"


def caption(settings: Settings, kind: str, experiment: str = "", stage: str = "") -> str:
    """The caption of a figure in the report."""
    options = settings["figures"][kind]
    return KINDS[kind].caption.format(experiment=experiment, stage=stage, options=options)


def as_it_is(path: str) -> str:
    """A result so spelled that no rule makes it: it is read as it is found."""
    return f"results/../{path}"


class Claims:
    """What the claims read: experiments of a plain `snakemake`, and all that have been run.

    The latter are read as they are: judging claims trains nothing.
    """

    def __init__(self, needs: Needs) -> None:
        self.needs, self.settings = needs, needs.settings

    @cached_property
    def experiments(self) -> list[str]:
        """Experiments that speak to the claims."""
        tables = {
            name: [
                paths.TABLE.format(experiment=name, arithmetic="exact", name=table)
                for table in CLAIMS_TABLES
            ]
            for name, entry in self.settings["experiments"].items()
            if "exact" in entry["arithmetic"]
        }
        run = self.settings["run"]
        return [name for name in tables if name in run or all(map(os.path.exists, tables[name]))]

    def evidence_files(self, experiment: str) -> dict[str, Any]:
        """Every file that is read of an experiment.

        Returns:
            "tables": paths by arithmetic and name. "parts": for "replicates/<arithmetic>",
            "classes", "whole_set" and "layer_stiffness/<table>" a list of [learning rate, seed,
            path]; all but the replicates are of the reference learning rate. "arrays": the path of
            the data set, or None where it is not there.
        """
        entry = self.settings["experiments"][experiment]
        run = experiment in self.settings["run"]

        def read(pattern: str, **wildcards: Any) -> str | None:
            path = paths.fill(pattern, experiment=experiment, **wildcards)
            return path if run else as_it_is(path) if os.path.exists(path) else None

        def parts(pattern: str, arithmetic: str, all_rates: bool = False) -> list[list[Any]]:
            found = (
                self.needs.parts(experiment)
                if all_rates
                else self.needs.reference_parts(experiment)
            )
            files = (
                [lr, seed, read(pattern, lr=lr, seed=seed, segment=segment, arithmetic=arithmetic)]
                for lr, seed, segment in found
            )
            return [part for part in files if part[-1]]

        tables: dict[str, dict[str, str]] = {}
        for arithmetic in entry["arithmetic"]:
            names = CLAIMS_TABLES if arithmetic == "exact" else ("summary",)
            found = {name: read(paths.TABLE, arithmetic=arithmetic, name=name) for name in names}
            tables[arithmetic] = {name: path for name, path in found.items() if path}
        files = {
            f"replicates/{arithmetic}": parts(paths.REPLICATES, arithmetic, all_rates=True)
            for arithmetic in entry["arithmetic"]
        }
        files["classes"] = parts(paths.fill(paths.MEASURE, name="classes"), "exact")
        if not run or entry["evaluation"]["all"] != "none":
            files["whole_set"] = parts(paths.WHOLE_SET, "exact")
        if not run or entry["layer_stiffness"] != "none":
            for name, pattern in paths.each(paths.LAYER_MEASURE, paths.LAYER_MEASURES).items():
                files[f"layer_stiffness/{name}"] = parts(pattern, "exact")
        return {
            "tables": tables,
            "parts": files,
            "arrays": read(paths.ARRAYS, dataset=entry["dataset"]),
        }

    def files(self, wildcards: Any = None) -> list[str]:
        """Every file that is read, of all experiments."""
        found: dict[str, None] = {}
        for experiment in self.experiments:
            files = self.evidence_files(experiment)
            for tables in files["tables"].values():
                found |= dict.fromkeys(tables.values())
            for parts in files["parts"].values():
                found |= dict.fromkeys(part[-1] for part in parts)
            found |= dict.fromkeys([files["arrays"]] if files["arrays"] else [])
        return list(found)

    def about(self, wildcards: Any) -> dict[str, Any]:
        """What the claims have to know about each experiment."""
        settings = self.settings
        return {
            name: {
                "settings": {key: settings["experiments"][name][key] for key in CLAIMS_KEYS},
                "files": self.evidence_files(name),
                "source": dataset["source"],
                "has_hierarchy": bool(dataset.get("hierarchy")),
                "pictures": self._pictures(name),
            }
            for name in self.experiments
            for dataset in [settings["datasets"][settings["experiments"][name]["dataset"]]]
        }

    def studies(self, wildcards: Any) -> dict[str, list[str]]:
        """Experiments of the studies by the kind of figure that they are for."""
        found: dict[str, set[str]] = {}
        for entry in self.settings["studies"].values():
            found.setdefault(entry["kind"], set()).update(entry["experiments"])
        return {kind: sorted(found[kind]) for kind in sorted(found)}

    def pictures(self, wildcards: Any) -> list[str]:
        """The pictures to wait for: the page links to them."""
        run = [name for name in self.experiments if name in self.settings["run"]]
        return [path for name in run for path in self._pictures(name).values()]

    def _pictures(self, experiment: str) -> dict[str, str]:
        """An experiment's pictures by kind, as far as there will be any when claims are judged."""
        run = experiment in self.settings["run"]
        pictures = {
            name: paths.FIGURE.format(experiment=experiment, kind=name, suffix="png")
            for name, kind in KINDS.items()
            if not (kind.by_stage or kind.across or lacking(self.settings, experiment, name))
        }
        return {kind: path for kind, path in pictures.items() if run or os.path.exists(path)}
