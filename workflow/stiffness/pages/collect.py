"""From a folder of results to docs/data: the tables that pages show, made small."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import chdir
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from stiffness.digests import table_digest
from stiffness.errors import StiffnessError
from stiffness.figures.load import Files
from stiffness.files import (
    DIGESTS_KEY,
    atomic_directory,
    atomic_write,
    read_table,
    rows,
    write_text,
)
from stiffness.jobs.provenance import ancestry, read_records, summarise
from stiffness.measures.siblings import COLUMNS as SIBLINGS
from stiffness.pages.blocks import all_pictures, pages_with_blocks
from stiffness.pages.committed import (
    ALWAYS,
    CLAIMS,
    DATA,
    Committed,
    Picture,
    Wildcards,
    read_yaml,
)
from stiffness.plan import paths
from stiffness.plan.config import RULES, lay_over
from stiffness.plan.kinds import KINDS
from stiffness.plan.needs import Needs
from stiffness.report.verdicts import COLUMNS, TALLY
from stiffness.training.runs import concatenate_tables
from stiffness.training.stages import reference_run, reference_stages

_OF_THE_MACHINE = {"data_dir", "device", "memory_budget", "jobs_per_gpu"}
_OTHER_ARITHMETICS = "train-train"
"""The pair mode that is kept of all arithmetics but the first."""
_OF_LENGTHS = ("critical_length", "distance", "critical_lengths")
_ESTIMATORS = ("line", "area", "monotone")
_TEXTS = (
    *("claim", "experiment", "experiment_verdict", "effect", "effect_verdict"),
    *("figure", "reason"),
)
"""Columns of the claims that hold words, and may be empty."""
_OVERALL = ("verdict", *TALLY)
"""Columns of the claims that rest on all experiments, and are made anew of those in docs/data."""


def collect(
    root: str | Path,
    results: str | Path,
    experiments: Sequence[str],
    configurations: Sequence[str | Path] = (),
) -> Iterator[str]:
    """Copy what the pages show of experiments into docs/data, in place of what is there of them.

    Args:
        root: the folder of the repository.
        results: the folder of results, called "results".
        experiments: their names; all that have tables if there are none.
        configurations: the files that were laid over config.yaml.

    Yields:
        A line for each experiment, and for each figure of it that the results cannot make. An
        experiment that no page shows is left out.

    Raises:
        StiffnessError: a file is missing or unreadable, or the tables have other learning rates,
            seeds or epochs than the configuration.
    """
    root, results = Path(root).resolve(), Path(results).resolve()
    if results.name != "results" or not results.is_dir():
        raise StiffnessError(f"{results}: give a folder of results that is called results")
    if not experiments:
        experiments = sorted(path.parent.name for path in results.glob("*/tables"))
    given: Any = {}
    for path in configurations:
        given = lay_over(given, read_yaml(Path(path)))
    for experiment in experiments:
        overlay = own_overlay(root, given, experiment)
        committed = Committed(root, {experiment: overlay})
        with chdir(results.parent):
            yield from _Collection(committed, experiment, overlay).write()


def own_overlay(root: Path, given: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """What a configuration says of one experiment and its data set; not of the machine.

    Raises:
        StiffnessError: the experiment is in neither configuration, or the configuration has
            ``defaults``, which would have to be written under the experiment.
    """
    if given.get("defaults"):
        raise StiffnessError(f"defaults: write them under experiments.{experiment} instead")
    own = (given.get("experiments") or {}).get(experiment, {})
    overlay: dict[str, Any] = {"experiments": {experiment: own}}
    whole = lay_over(read_yaml(root / "config.yaml"), overlay)["experiments"].get(experiment)
    if not whole or "dataset" not in whole:
        raise StiffnessError(f"experiments.{experiment}: there is no such experiment")
    dataset = (given.get("datasets") or {}).get(whole["dataset"])
    if dataset is not None:
        overlay["datasets"] = {whole["dataset"]: dataset}
    return overlay


class _Collection:
    """The files of one experiment; the working directory is that around ``results``."""

    def __init__(self, committed: Committed, experiment: str, overlay: Any) -> None:
        self.committed, self.experiment, self.overlay = committed, experiment, overlay
        self.settings = committed.settings["experiments"][experiment]
        self.needs = Needs(committed.settings)
        self.read: set[str] = set()  # paths in results
        self.tables: dict[str, pd.DataFrame] = {}  # by path in results, as docs/data has it
        self.texts: dict[str, str] = {}
        self.kinds: set[str] = set()  # that pages show of it

    def write(self) -> Iterator[str]:
        """Read what pages show, make it small, and put it in the place of what was there."""
        texts = pages_with_blocks(self.committed.root).values()
        for picture in all_pictures(texts, self.committed.settings):
            of_study = self.committed.settings["studies"].get(picture.study, {})
            if self.experiment in (picture.experiment, *of_study.get("experiments", ())):
                self.kinds.add(picture.kind)
        if not self.kinds:
            yield f"{self.experiment}: left out, for no page shows it"
            return
        for name in ALWAYS:
            path = paths.fill(
                paths.TABLE,
                experiment=self.experiment,
                arithmetic=self.settings["arithmetic"][0],
                name=name,
            )
            self._add(name, [path], path)
        self._check_runs()
        found = []
        for kind in sorted(self.kinds):
            missing = self._add_kind(kind)
            if missing:
                yield f"{self.experiment}: no {kind}: {missing} is not there"
            else:
                found.append(kind)
        self._add_claims()
        if self._claims_path() not in self.tables:
            yield f"{self.experiment}: no verdicts: results/claims.csv does not have it"
        own, folder = f"results/{self.experiment}/", self.committed.data / self.experiment
        with atomic_directory(folder) as temporary:
            for path, table in self.tables.items():
                write_small_table(temporary / path.removeprefix(own), table)
            write_text(temporary / "provenance.yaml", self._provenance())
        for path, text in self.texts.items():
            write_text(self.committed.path(path), text)
        text = yaml.safe_dump(self.overlay, sort_keys=False, allow_unicode=True)
        write_text(self.committed.data / f"{self.experiment}.yaml", text)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        yield (
            f"{self.experiment}: {len(self.tables)} tables, {size / 1e6:.2f} MB, of "
            f"{', '.join(found)}"
        )

    def _add_kind(self, name: str) -> str:
        """Add what a kind of figure reads; returns a file that is missing, or "" if none is."""
        kind = KINDS[name]
        wildcards = Wildcards(kind=name, experiment=self.experiment)
        sources = self.needs.figure(wildcards)
        targets = self.committed.needs.figure(wildcards)
        for given in sources.values():
            for path in _listed(given):
                if not Path(path).is_file():
                    return path
                if Path(path).suffix not in (".parquet", ".yaml"):
                    raise StiffnessError(f"{name} reads {path}, which is too large for {DATA}")
        for argument, given in sources.items():
            pairs = _listed(given), _listed(targets[argument])
            if argument in kind.files:
                self.texts |= {path: Path(path).read_text() for path in _listed(given)}
                self.read |= set(_listed(given))
            elif argument in kind.parts:
                self._add_parts(argument, *pairs)
            else:
                table = kind.by_arithmetic.get(argument, argument)
                for source, target in zip(*pairs, strict=True):
                    self._add(table, [source], target)
        return ""

    def _add_parts(self, name: str, sources: Sequence[str], targets: Sequence[str]) -> None:
        """Add tables of segments, those of a run as one."""
        runs = [seed for _, seed, _ in self.needs.reference_parts(self.experiment)]
        order = list(dict.fromkeys(runs))
        for seed, target in zip(order, targets, strict=True):
            own = [path for path, of in zip(sources, runs, strict=True) if of == seed]
            self._add(name, own, target, seed)

    def _add(self, name: str, sources: Sequence[str], target: str, seed: int | None = None) -> None:
        """Add a table at the path ``target``; several sources are the segments of a seed's run."""
        self.read |= set(sources)
        if target not in self.tables:
            table = concatenate_tables([read_table(path) for path in sources])
            thin = self._thin(name, target, table) if seed is None else self._thin_part(name, table)
            if (
                seed is not None
                and not self._shows_all_seeds(name)
                and seed != self._reference_run()
            ):
                thin = thin.iloc[:0]  # figures that read segments show one run
            self.tables[target] = shrink(thin)

    def _thin(self, name: str, target: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that figures show of an experiment's table."""
        looks = self.committed.settings["figures"]
        if name == "critical_length":
            modes = [one["pair_mode"] for kind, one in looks.items() if kind in _OF_LENGTHS]
            return rows(table, pair_mode=modes, estimator=_ESTIMATORS)
        if name == "distance":
            return rows(table, pair_mode=looks["distance"]["pair_mode"], step=self._stage_steps())
        first = f"/tables/{self.settings['arithmetic'][0]}/"
        if "pair_mode" in table and first not in target:
            return rows(table, pair_mode=_OTHER_ARITHMETICS)
        return table

    def _thin_part(self, name: str, table: pd.DataFrame) -> pd.DataFrame:
        """The rows that figures show of a table of segments."""
        if name == "extremes":
            return rows(table, step=self._stage_steps())
        if name != "classes":
            return table
        metrics: set[str] = set()
        modes: set[str] = set()
        for kind in self.kinds:
            if name in KINDS[kind].parts:
                looks, module = self.committed.settings["figures"][kind], Picture(kind).module
                metrics |= set(looks.get("metrics") or [looks.get("metric") or module.METRIC])
                modes |= set(
                    looks.get("pair_modes") or [looks.get("pair_mode") or module.PAIR_MODE]
                )
        return rows(table, step=self._stage_steps(), metric=metrics, pair_mode=modes)

    def _shows_all_seeds(self, name: str) -> bool:
        """Whether a figure shows all seeds of a table of segments."""
        return any(name in KINDS[kind].parts and KINDS[kind].across for kind in self.kinds)

    def _reference_run(self) -> int:
        return reference_run(self._table("runs"), self.settings["reference_learning_rate"])[0]

    def _stage_steps(self) -> list[int]:
        history, runs = self._table("history"), self._table("runs")
        rate = self.settings["reference_learning_rate"]
        found = reference_stages(runs, history, rate, [*self.settings["stages"], "last"])
        return sorted({stage.step for stage in found})

    def _table(self, name: str) -> pd.DataFrame:
        suffix = f"/{name}.parquet"
        return next(table for path, table in self.tables.items() if path.endswith(suffix))

    def _check_runs(self) -> None:
        runs = self._table("runs")
        about = f"experiments.{self.experiment}"
        for key, column in (("learning_rates", "lr"), ("seeds", "seed")):
            found = list(dict.fromkeys(runs[column].tolist()))
            if set(found) != set(self.settings[key]):
                raise StiffnessError(
                    f"{about}.{key}: the tables have {found}, the configuration "
                    f"{self.settings[key]}; give the configuration with which they were made"
                )
        epochs = float(runs["epochs"].max())
        if epochs != self.settings["epochs"]:
            raise StiffnessError(
                f"{about}.epochs: the tables have {epochs:g}, the configuration "
                f"{self.settings['epochs']}; give the configuration with which they were made"
            )

    def _claims_path(self) -> str:
        return f"results/{self.experiment}/{CLAIMS}"

    def _add_claims(self) -> None:
        path = Path(paths.CLAIMS.format(suffix="csv"))
        if not path.is_file():
            return
        table = pd.read_csv(path, dtype=dict.fromkeys(_TEXTS, str))
        missing = set(COLUMNS) - set(table)
        if missing:
            raise StiffnessError(f"{path}: it lacks {min(missing)}; make it again")
        own = rows(table, experiment=self.experiment)
        own = own[[name for name in COLUMNS if name not in _OVERALL]]
        own = own.fillna(dict.fromkeys(_TEXTS, ""))
        if len(own):
            self.tables[self._claims_path()] = shrink(own)

    def _provenance(self) -> str:
        """The text of provenance.yaml: code, packages, machine, and time and memory per room."""
        files = sorted(self.read)
        about: dict[str, Any] = {"experiment": self.experiment}
        if not Path("results/logs").is_dir():
            about["unrecorded"] = "all: results/logs is not there"
        else:
            inside = [path.removeprefix("results/") for path in files]
            jobs, unrecorded = ancestry(read_records("results"), inside)
            about["rooms"] = spent(jobs)
            if unrecorded:
                about["files_without_a_record"] = len(unrecorded)
            summary = summarise(self.experiment, self.settings, {}, files)
            about["jobs"] = summary["jobs"]
        return yaml.safe_dump(about, sort_keys=False, allow_unicode=True)


def spent(jobs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """The number of jobs, their seconds and CPU seconds, and the largest memory, room by room."""
    rooms = {
        line.split()[-1].rstrip(":"): path.stem
        for path in sorted(RULES.glob("*.smk"))
        for line in path.read_text().splitlines()
        if line.startswith("rule ")
    }
    found: dict[str, dict[str, int]] = {}
    for job in jobs:
        room = found.setdefault(
            rooms.get(job["rule"], job["rule"]),
            {"jobs": 0, "seconds": 0, "cpu_seconds": 0, "peak_mib": 0},
        )
        room["jobs"] += 1
        room["seconds"] += round(job.get("process_seconds", job["seconds"]))
        room["cpu_seconds"] += round(job.get("cpu_seconds", 0))
        room["peak_mib"] = max(room["peak_mib"], int(job.get("peak_mib", 0)))
    order = [name for name in ("data", "training", "gradients", "measures") if name in found]
    return {name: found[name] for name in (*order, *sorted(set(found) - set(order)))}


def shrink(table: pd.DataFrame) -> pd.DataFrame:
    """A table with numbers in 32 bits, but for epochs, by which rows are found.

    The table siblings keeps its own: arithmetics are told apart by less than 32 bits resolve.
    """
    if set(SIBLINGS["siblings"]) <= set(table):
        return table.reset_index(drop=True)
    wide = [
        name
        for name in table.columns
        if table[name].dtype == np.float64 and name not in ("epoch", "epochs", "onset_epoch")
    ]
    return table.astype(dict.fromkeys(wide, np.float32)).reset_index(drop=True)


def write_small_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet in as few bytes as it takes, with the digest of its content."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    content = pa.Table.from_pandas(table, preserve_index=False)
    metadata = {**(content.schema.metadata or {}), DIGESTS_KEY: table_digest(table)}
    content = content.replace_schema_metadata(metadata)
    measured = [name for name in table.columns if table[name].dtype == np.float32]
    with atomic_write(path) as temporary:
        pq.write_table(
            content,
            temporary,
            compression="zstd",
            compression_level=19,
            use_dictionary=[name for name in table.columns if name not in measured],
            use_byte_stream_split=measured,
            write_statistics=False,
            write_page_checksum=True,
            store_schema=False,  # pandas's own says the same
        )


def _listed(files: Files) -> list[str]:
    return [files] if isinstance(files, str) else list(files)
