"""What docs/data holds, and the settings under which it was made.

The folder mirrors ``results``: a table is found under the same path in both. Beside it stand, for
each experiment, ``<experiment>.yaml``, what its configuration has otherwise than config.yaml, and
in its folder ``provenance.yaml`` and ``claims.parquet``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import yaml

from stiffness.errors import StiffnessError
from stiffness.figures.load import Files, load_arguments
from stiffness.files import read_table
from stiffness.plan import paths
from stiffness.plan.config import lay_over, read_settings
from stiffness.plan.kinds import KINDS
from stiffness.plan.needs import Needs, Settings
from stiffness.plan.segments import IMPORTED, segment_name

DATA, FIGURES, PAGES = "docs/data", "docs/figures", "docs"
CLAIMS = "claims.parquet"
ALWAYS = ("runs", "history", "summary")
"""Tables that are kept of every experiment, whatever its figures read."""


class Wildcards(dict[str, Any]):
    """Wildcards as Snakemake gives them to the functions of ``plan``."""

    __getattr__ = dict.__getitem__


class OneSegment(Needs):
    """Needs of tables whose segments have been joined: one segment per run."""

    def segments(self, experiment: str) -> dict[tuple[str, int], list[str]]:
        """The one segment of each run, which need not be on the disk."""
        entry = self.settings["experiments"][experiment]
        whole = IMPORTED if "checkpoints" in entry else segment_name(0, entry["epochs"])
        return {(lr, seed): [whole] for lr in entry["learning_rates"] for seed in entry["seeds"]}


@dataclass(frozen=True)
class Picture:
    """A figure of one experiment, or of the experiments of a study.

    Attributes:
        kind: its kind of figure.
        experiment: the experiment; "" for one figure of several.
        stage: the stage that it shows, where its kind shows one.
        study: the study that it is of, where it shows several experiments.
    """

    kind: str
    experiment: str = ""
    stage: str = ""
    study: str = ""

    @property
    def name(self) -> str:
        """The name of its file, without the suffix."""
        stage = f"_{self.stage}" if self.stage else ""
        return self.study or f"{self.experiment}_{self.kind}{stage}"

    @property
    def module(self) -> ModuleType:
        """The module that draws it."""
        return import_module(f"stiffness.figures.{KINDS[self.kind].module or self.kind}")


class Committed:
    """The experiments of docs/data, with their settings.

    Args:
        root: the folder of the repository.
        further: overlays of experiments by name, which take the place of those in docs/data.

    Raises:
        StiffnessError: an overlay is no valid configuration, or two contradict each other.
    """

    def __init__(self, root: str | Path, further: Mapping[str, Any] | None = None) -> None:
        self.root = Path(root)
        self.data = self.root / DATA
        found = {path.stem: read_yaml(path) for path in sorted(self.data.glob("*.yaml"))}
        self._arguments: dict[Picture, dict[str, Any]] = {}
        self.overlays: dict[str, Any] = found | dict(further or {})
        config = read_yaml(self.root / "config.yaml")
        self.plain: Settings = read_settings(config)
        for name, overlay in self.overlays.items():
            check_overlay(name, overlay, self.overlays)
            config = lay_over(config, overlay)
        self.settings: Settings = read_settings(config)
        known = self.settings["experiments"]
        self.experiments = [name for name in known if name in self.overlays]
        self.needs = OneSegment(self.settings)
        # A figure of several experiments shows those that are there.
        studies = {
            study: {
                **entry,
                "experiments": [
                    name
                    for name in entry["experiments"]
                    if self.is_there(Picture(entry["kind"], name))
                ],
            }
            for study, entry in self.settings["studies"].items()
        }
        self.needs = OneSegment({**self.settings, "studies": studies})

    def files(self, picture: Picture) -> dict[str, Files]:
        """What a picture reads, by name, in docs/data."""
        wildcards = self._wildcards(picture)
        found = self.needs.study(wildcards) if picture.study else self.needs.figure(wildcards)
        return {
            name: self.path(given) if isinstance(given, str) else [*map(self.path, given)]
            for name, given in found.items()
        }

    def path(self, result: str) -> str:
        """Where docs/data has a file of ``results``."""
        return str(self.data / Path(result).relative_to("results"))

    def is_there(self, picture: Picture) -> bool:
        """Whether docs/data has every file that a picture reads."""
        if picture.study:
            return bool(self.experiments_of(picture))
        return picture.experiment in self.experiments and all(
            Path(file).is_file() for file in flat(self.files(picture))
        )

    def experiments_of(self, picture: Picture) -> list[str]:
        """The experiments that a picture shows."""
        if not picture.study:
            return [picture.experiment]
        return list(self.needs.settings["studies"][picture.study]["experiments"])

    def shows(self, picture: Picture) -> dict[str, Any]:
        """The settings, the parts and the options of a picture."""
        wildcards, study = self._wildcards(picture), bool(picture.study)
        return {
            "settings": (self.needs.study_settings if study else self.needs.figure_settings)(
                wildcards
            ),
            "parts": (self.needs.study_parts if study else self.needs.figure_parts)(wildcards),
            "options": self.settings["figures"][picture.kind],
        }

    def arguments(self, picture: Picture) -> dict[str, Any]:
        """The arguments of the functions of a picture's module."""
        if picture not in self._arguments:
            shows = self.shows(picture)
            self._arguments[picture] = load_arguments(
                picture.module,
                self.files(picture),
                shows["settings"],
                shows["options"],
                shows["parts"],
            )
        return self._arguments[picture]

    def table(self, experiment: str, name: str) -> pd.DataFrame:
        """A table of an experiment in its first arithmetic."""
        arithmetic = self.settings["experiments"][experiment]["arithmetic"][0]
        pattern = paths.fill(paths.TABLE, experiment=experiment, arithmetic=arithmetic, name=name)
        return read_table(self.path(pattern))

    def provenance(self, experiment: str) -> dict[str, Any]:
        """Code, packages, machine, and time and memory per room of an experiment's jobs."""
        found: dict[str, Any] = read_yaml(self.data / experiment / "provenance.yaml")
        return found

    @cached_property
    def claims(self) -> pd.DataFrame:
        """The verdicts of all experiments that were judged."""
        found = [self.data / name / CLAIMS for name in self.experiments]
        tables = [read_table(path) for path in found if path.is_file()]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def _wildcards(self, picture: Picture) -> Wildcards:
        stage = {"stage": picture.stage} if picture.stage else {}
        if picture.study:
            return Wildcards(study=picture.study)
        return Wildcards(kind=picture.kind, experiment=picture.experiment, **stage)


def flat(files: Mapping[str, Files]) -> list[str]:
    """All paths of a mapping of paths and lists of paths."""
    groups = ([given] if isinstance(given, str) else given for given in files.values())
    return [path for group in groups for path in group]


def read_yaml(path: Path) -> Any:
    """Read a YAML file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def check_overlay(experiment: str, overlay: Any, overlays: Mapping[str, Any]) -> None:
    """Whether an overlay is about its experiment, and no other one changes its data set.

    Raises:
        StiffnessError: it is not.
    """
    about = f"{DATA}/{experiment}.yaml"
    if not isinstance(overlay, Mapping) or set(overlay) - {"experiments", "datasets"}:
        raise StiffnessError(f"{about}: only experiments and datasets may stand here")
    if list(overlay.get("experiments", {})) != [experiment]:
        raise StiffnessError(f"{about}: it must be about experiments.{experiment} and no other one")
    for other, one in overlays.items():
        for name, entry in overlay.get("datasets", {}).items():
            if one.get("datasets", {}).get(name, entry) != entry:
                raise StiffnessError(
                    f"{about}: datasets.{name} is another one in {DATA}/{other}.yaml; "
                    "give it a name of its own"
                )
