"""What a user sees of a run: one line per job, how far it is, how long still, and what failed.

Snakemake prints the names of all input files of a job, and the job that collects the results has
hundreds. Its own output stays in a file below `.snakemake/log`; ``--verbose`` shows it instead.
"""

import logging
import re
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from snakemake.logging import ColorizingTextHandler, logger

# What Snakemake says that tells nothing about the results: kinds of records, and messages.
_SILENT = {"workflow_started", "resources_info", "job_started", "group_info", "shellcmd"}
_DROPPED = re.compile(
    "Building DAG|Using shell|Select jobs|Group jobs: inactive|Conda env|Singularity cont|"
    "Removing temp|Reasons:|Some jobs were trig|Rules with prov|Complete log|Elapsed time"
)
_PATIENCE = 60.0  # seconds without a line about progress before the end of a job is worth one


def shorten_output(settings: Any) -> None:
    """Show a run by `ShortOutput`, unless ``--verbose`` asks for Snakemake's own output.

    Args:
        settings: The workflow's output settings, as Snakemake has parsed them.
    """
    for handler in list(logger.handlers):
        if type(handler) is ColorizingTextHandler and not settings.verbose:
            logger.removeHandler(handler)
            logger.addHandler(ShortOutput(handler, settings.dryrun))


class ShortOutput(ColorizingTextHandler):
    """A handler of Snakemake's log records that takes the place of its own.

    Args:
        replaced: Snakemake's handler; its stream, filters and formatter stay in use.
        dry_run: Whether jobs are only listed. Each is then followed by why it would run.
    """

    def __init__(self, replaced: ColorizingTextHandler, dry_run: bool) -> None:
        super().__init__(replaced.nocolor, replaced.stream, replaced.formatter)
        self.filters = replaced.filters
        self.dry_run = dry_run
        self.done = self.total = 0
        self.waiting: Counter[str] = Counter()  # how many jobs of each rule have not ended
        self.started: dict[int, tuple[str, str, float]] = {}  # name, rule and start of each job
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)  # of ended jobs, by rule
        self.made: set[Path] = set()
        self.began = self.spoke = time.monotonic()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a user should see of ``record``, once where it is repeated."""
        text = self._describe(record)
        if text and text != self.last:
            self.last = text
            self.stream.write(self.decorate(record, text) + "\n")
            self.flush()

    def seconds_left(self) -> float | None:
        """Return the seconds until all jobs have ended; None while too little is known.

        A job is taken to last as long as those of its rule did. At least a quarter of the jobs
        must have ended, and at least one of the rule of four in five of those that are left.
        """
        known = sum(count for rule, count in self.waiting.items() if self.seconds[rule])
        spent = [seconds for of_rule in self.seconds.values() for seconds in of_rule]
        if 4 * len(spent) < max(self.total, 1) or 5 * known < 4 * self.waiting.total():
            return None
        means = {rule: fmean(self.seconds[rule] or spent) for rule in self.waiting}
        work = sum(count * means[rule] for rule, count in self.waiting.items())
        return work * (time.monotonic() - self.began) / sum(spent)  # as many at once as until now

    def _describe(self, record: Any) -> str:
        event = getattr(record, "event", None)
        if event == "run_info":
            # A dry run counts its jobs before it lists them and again at its end.
            again, self.waiting = bool(self.waiting), Counter(record.stats)
            self.total = self.waiting.pop("total")
            return "" if again != self.dry_run else self.format(record)
        if event == "job_info":
            return self._start(record, record.rule_msg or f"rule {record.rule_name}")
        if event == "job_finished":
            _, rule, start = self.started[record.job_id]
            self.seconds[rule].append(time.monotonic() - start)
            self.waiting[rule] -= 1
            return ""
        if event == "progress":
            self.done, self.total = record.done, record.total
            silent = time.monotonic() - self.spoke < _PATIENCE
            return self._end() if self.done == self.total else "" if silent else self._progress()
        if event == "job_error":
            # The record has no name of the job; its message, if any, is what a scheduler says.
            name = self.started.get(record.jobid, [""])[0]
            text = ": ".join(filter(None, (name, record.rule_msg)))
            files: dict[str, Any] = {"input": [], "output": []}
            record = logging.makeLogRecord(vars(record) | {"msg": text, "rule_msg": text} | files)
        dropped = record.levelno < logging.WARNING and _DROPPED.match(str(record.msg))
        return "" if event in _SILENT or dropped else self.format(record)

    def _start(self, record: Any, name: str) -> str:
        self.started[record.jobid] = (name, record.rule_name, time.monotonic())
        self.made |= {Path(file) for file in record.output}
        if not record.output:  # the job that collects the others' results
            return ""
        why = shorten_reason(record.reason)
        return f"{name} ({why})" if self.dry_run else f"{self._progress()} {name}"

    def _progress(self) -> str:
        self.spoke, left = time.monotonic(), self.seconds_left()
        minutes = 0 if left is None else round(left / 60) or 1
        about = f"{minutes} min" if minutes < 90 else f"{round(minutes / 60)} h"
        return f"[{self.done} of {self.total}{f', about {about} left' if minutes else ''}]"

    def _end(self) -> str:
        verdicts = {file for file in self.made if file.stem == "claims"}
        folders = {file.parent for file in self.made - verdicts if file.suffix == ".png"}
        outer = [folder for folder in sorted(folders) if folders.isdisjoint(folder.parents)]
        lines = [f"{self.done} of {self.total} jobs done"]
        lines += [f"Pictures: {folder}" for folder in outer]
        lines += [f"Verdicts: {file}" for file in verdicts if file.suffix == ".md"]
        return "\n".join(
            [*lines, *["Report: snakemake --report results/report.zip"] * any(folders)]
        )


def shorten_reason(reason: str) -> str:
    """Return why a job would run: in few words, and without what other jobs of the run make.

    Args:
        reason: Snakemake's reasons, such as "Missing output files: a, b; Params have changed".
    """
    parts = [part for part in reason.split("; ") if not part.startswith("Input files updated by")]
    for place, part in enumerate(parts):
        kind, _, files = part.partition(": ")
        first, *more = sorted(files.split(", "))
        if kind == "Missing output files":
            parts[place] = "missing"
        elif more:
            parts[place] = f"{kind}: {first} and {len(more)} more"
    return "; ".join(parts) or "follows from the above"
