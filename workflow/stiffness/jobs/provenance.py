"""Where a result came from, according to the records that jobs leave beside their logs.

python -m stiffness.jobs.provenance results/digits_fc/figures/distance.png
"""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from stiffness.errors import StiffnessError
from stiffness.files import write_text
from stiffness.jobs.record import output_digest

Record = dict[str, Any]
_SHOWN = 3  # files of a rule that are listed unless all are asked for


def results_folder(path: str | Path) -> Path:
    """Find the folder of results that a file belongs to, whatever its name is now.

    Raises:
        StiffnessError: there is no such file, or no folder around it holds jobs' records.
    """
    path = Path(path).absolute()
    if not path.exists():
        raise StiffnessError(f"{path}: no such file")
    for folder in path.parents:
        if (folder / "logs").is_dir() and folder.name != "logs":
            return folder
    raise StiffnessError(
        f"{path}: none of the folders around it has logs/, where jobs leave their records; keep "
        "results/ together when you copy it"
    )


def read_records(results: str | Path) -> dict[str, Record]:
    """Read the records of all jobs.

    Returns:
        The record of every file or folder that a job made, by its path within ``results``.

    Raises:
        StiffnessError: a record is not readable.
    """
    found: dict[str, Record] = {}
    for path in sorted((Path(results) / "logs").rglob("*.json")):
        try:
            record = json.loads(path.read_text())
            found |= dict.fromkeys(map(_path_in_results, record["outputs"]), record)
        except (ValueError, KeyError, TypeError) as error:
            raise StiffnessError(
                f"{path}: not a readable record ({error}); delete it: its job leaves a new one "
                "when it runs again"
            ) from None
    return found


def ancestry(records: Mapping[str, Record], files: Iterable[str]) -> tuple[list[Record], list[str]]:
    """Follow files back to the jobs that they depend on.

    Args:
        files: paths within the folder of results.

    Returns:
        The records of the jobs, the last job first, and the files whose job left no record.
    """
    jobs: list[Record] = []
    unrecorded: list[str] = []
    queue, seen = list(files), set(files)
    while queue:
        name = queue.pop(0)
        record = _find_record(records, name)
        if record is None:
            unrecorded.append(name)
        elif record not in jobs:
            jobs.append(record)
            own = [file for group in record["inputs"].values() for file in group]
            new = [_path_in_results(file) for file in own if _is_result(file)]
            queue += [name for name in dict.fromkeys(new) if name not in seen]
            seen |= set(new)
    return jobs, unrecorded


def summarise(
    experiment: str,
    configuration: Mapping[str, Any],
    dataset: Mapping[str, Any],
    tables: Sequence[str],
) -> dict[str, Any]:
    """The content of results/<experiment>/provenance.yaml.

    It holds no times, so that the same jobs give the same file.

    Args:
        configuration: of the experiment, with all defaults.
        dataset: the options of its data set.
        tables: the files whose jobs are summarised.
    """
    jobs, unrecorded = ancestry(
        read_records(results_folder(tables[0])), [_path_in_results(table) for table in tables]
    )
    summary = {
        "experiment": experiment,
        "configuration": dict(configuration),
        "dataset": dict(dataset),
        "seeds": configuration["seeds"],
        "jobs": _environments(jobs),
    }
    summary |= {"unrecorded": unrecorded} if unrecorded else {}
    copied: dict[str, Any] = json.loads(json.dumps(summary))  # YAML would refer from one to another
    return copied | ({"unrecorded": unrecorded} if unrecorded else {})


def _environments(jobs: Sequence[Record]) -> list[dict[str, Any]]:
    """Group jobs by code, device, processor, threads, Python and packages."""
    keys = ("revision", "device", "processor", "threads", "python")
    found: dict[tuple[str, ...], list[Record]] = {}
    for job in jobs:
        found.setdefault(tuple(str(job.get(key, "unknown")) for key in keys), []).append(job)
    environments = []
    for values, group in sorted(found.items()):
        packages: dict[str, set[str]] = {}
        for job in group:
            for name, version in job["packages"].items():
                packages.setdefault(name, set()).add(version)
        environments.append(
            {
                **dict(zip(keys, values, strict=True)),
                "packages": {name: ", ".join(sorted(packages[name])) for name in sorted(packages)},
                "rules": dict(sorted(Counter(job["rule"] for job in group).items())),
            }
        )
    return environments


def describe(path: str | Path, everything: bool = False) -> str:
    """Describe in lines of text where one result came from.

    Args:
        everything: whether to list every file of the chain, not only some of each rule.

    Raises:
        StiffnessError: there is no such file, or its job left no record.
    """
    results = results_folder(path)
    name = Path(path).absolute().relative_to(results).as_posix()
    records = read_records(results)
    own = _find_record(records, name)
    if own is None:
        raise StiffnessError(
            f"{path}: no job left a record of it; it is older than records are, or was not made by "
            "the workflow. Delete it and make it again"
        )
    jobs, unrecorded = ancestry(records, [name])
    lines = [
        str(path),
        *_table(
            {
                "experiment": own["wildcards"].get("experiment", "none: shared by experiments"),
                "made by": f"{own['rule']}, {own['finished']}, {own['seconds']} s",
                "now": _state(results / name, own, name),
            }
        ),
        "",
        f"{len(jobs)} jobs, {sum(job['seconds'] for job in jobs):.0f} s, "
        f"from {min(job['started'] for job in jobs)} to {max(job['finished'] for job in jobs)}",
    ]
    for rule in dict.fromkeys(job["rule"] for job in jobs):
        lines += _rule_lines([job for job in jobs if job["rule"] == rule], everything)
    for one in _environments(jobs):
        rules = one.pop("rules")
        one["packages"] = ", ".join(
            f"{name} {version}" for name, version in one["packages"].items()
        )
        lines += ["", "with, for " + ", ".join(rules), *_table(one)]
    if unrecorded:
        lines += ["", "without a record", *(f"  {file}" for file in unrecorded)]
    return "\n".join(lines)


def _rule_lines(jobs: Sequence[Record], everything: bool) -> list[str]:
    """The jobs of a rule: their number, wildcards, settings and outputs."""
    seconds = sum(job["seconds"] for job in jobs)
    number = "1 job" if len(jobs) == 1 else f"{len(jobs)} jobs"
    lines = ["", f"{jobs[0]['rule']}: {number}, {seconds:.1f} s"]
    lines += _table({name: _values(jobs, "wildcards", name) for name in jobs[0]["wildcards"]})
    lines += _table({name: _values(jobs, "params", name) for name in jobs[0]["params"]})
    files = [file for job in jobs for file in job["outputs"]]
    shown = files if everything or len(files) <= _SHOWN + 1 else files[:_SHOWN]
    lines += [f"  -> {file}" for file in shown]
    if len(shown) < len(files):
        lines.append(f"  -> {len(files) - len(shown)} more files (--all lists them)")
    return lines


def _values(jobs: Sequence[Record], part: str, name: str) -> str:
    """The values that the jobs of a rule had for one setting; usually there is one."""
    values = dict.fromkeys(json.dumps(job[part].get(name)) for job in jobs)
    return "; ".join(value.strip('"') for value in values)


def _table(entries: Mapping[str, Any]) -> list[str]:
    return [f"  {name + ':':<24} {value}" for name, value in entries.items()]


def _state(path: Path, record: Record, name: str) -> str:
    digests = {_path_in_results(file): digest for file, digest in record["outputs"].items()}
    digest = digests.get(name)
    if digest is None:
        return "as it is found; too large for a checksum in its record"
    return "as it was made" if digest == output_digest(path) else "CHANGED since it was made"


def _find_record(records: Mapping[str, Record], name: str) -> Record | None:
    """The record of the job that made a file, or the folder around it."""
    path = Path(name)
    names = [name, *(parent.as_posix() for parent in path.parents)]
    return next((records[one] for one in names if one in records), None)


def _is_result(file: str) -> bool:
    return Path(file).parts[:1] == ("results",)


def _path_in_results(file: str) -> str:
    """A file's path within the folder of results."""
    return Path(os.path.normpath(file)).relative_to("results").as_posix()


def write_summary(path: str | Path, summary: Mapping[str, Any]) -> None:
    """Write the result of ``summarise`` as YAML."""
    write_text(path, yaml.safe_dump(dict(summary), sort_keys=False, allow_unicode=True))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m stiffness.jobs.provenance",
        description="Where a file of results/ came from: its jobs, settings, code and times.",
    )
    parser.add_argument("file", help="a figure, a table, or any other result")
    parser.add_argument("--all", action="store_true", help="list every file of the chain")
    given = parser.parse_args(arguments)
    try:
        print(describe(given.file, given.all))
    except StiffnessError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
