"""The texts of the generated blocks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stiffness.errors import StiffnessError
from stiffness.files import rows
from stiffness.pages.blocks import pictures_of, split_figure
from stiffness.pages.committed import FIGURES, Committed, Picture
from stiffness.pages.costs import costs
from stiffness.pages.numbers import (
    epochs_of,
    key_numbers,
    predictions_of,
    shows_one_seed,
    table,
    with_interval,
)
from stiffness.plan import targets
from stiffness.plan.kinds import KINDS
from stiffness.report.claims import CLAIMS as RULES
from stiffness.report.effects import Claim
from stiffness.report.verdicts import NOT_RUN, condition, effect_of, overall_verdict
from stiffness.training.runs import OK
from stiffness.training.stages import reference_run

_NOTHING = "*`docs/data` has no tables for this yet.*"
_UNTOLD = "no experiment that counts"
"""In place of a verdict: what was run may have left no tables."""


def render(committed: Committed, name: str) -> str:
    """The text of a block.

    Raises:
        StiffnessError: there is no such block, or it names something that there is not.
    """
    if name == "runs":
        return _runs(committed)
    if name == "costs":
        return costs(committed) if committed.experiments else _NOTHING
    if name == "verdicts":
        return _verdicts(committed)
    if name.startswith("claim "):
        return _claim(committed, name.removeprefix("claim "))
    if name.startswith("figure "):
        return _figure(committed, name)
    if name.startswith(("epochs ", "predictions ")):
        (picture,) = pictures_of(name, committed.settings)
        make = epochs_of if name.startswith("epochs ") else predictions_of
        return make(committed, picture) if committed.is_there(picture) else _NOTHING
    raise StiffnessError(
        f"unknown block {name!r}; take runs, costs, verdicts, claim ..., figure ..., "
        "epochs ... or predictions ..."
    )


# Runs.


def _runs(committed: Committed) -> str:
    lines = []
    for name in committed.experiments:
        entry, runs = committed.settings["experiments"][name], committed.table(name, "runs")
        subset, dead = entry["evaluation"], runs[runs["status"] != OK]
        lines.append(
            [
                f"`{name}`",
                f"{_network(entry)} on `{entry['dataset']}`, "
                f"{subset['train']} + {subset['validation']} evaluated",
                ", ".join(entry["learning_rates"]),
                ", ".join(str(seed) for seed in entry["seeds"]),
                f"{runs['epochs'].max():g}",
                _departures(committed, name),
                "; ".join(f"{n} {status}" for status, n in dead["status"].value_counts().items())
                or "none",
            ]
        )
    if not lines:
        return _NOTHING
    header = ["experiment", "network and data", "learning rates", "seeds", "epochs"]
    header += ["other than `config.yaml`", "runs that died"]
    return table(header, lines)


def _network(entry: Mapping[str, Any]) -> str:
    model = entry["model"]
    return f"`{model['path'] or model['name']}`"


def _departures(committed: Committed, name: str) -> str:
    """What the experiment's settings have otherwise than config.yaml."""
    if name not in committed.plain["experiments"]:
        return "all: it is not there"
    plain, own = (
        _flat_settings(settings["experiments"][name])
        for settings in (committed.plain, committed.settings)
    )
    found = [
        f"`{key}`: {_inline(own.get(key))} instead of {_inline(plain.get(key))}"
        for key in dict.fromkeys([*own, *plain])
        if own.get(key) != plain.get(key)
    ]
    return "; ".join(found) or "nothing"


def _flat_settings(entry: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entry.items():
        inner = isinstance(value, Mapping)
        found |= _flat_settings(value, f"{above}{key}.") if inner else {f"{above}{key}": value}
    return found


def _inline(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


# Figures.


def _figure(committed: Committed, name: str) -> str:
    """Picture, caption and key numbers of each experiment; a line for those not run."""
    asked = pictures_of(name, committed.settings)
    what, further = split_figure(name)
    there = [picture for picture in asked if committed.is_there(picture)]
    parts = [_shown(committed, picture, picture.experiment in further) for picture in there]
    missing = [p.experiment for p in asked if p not in there and p.experiment not in further]
    if asked and asked[0].study:
        wanted = committed.settings["studies"][asked[0].study]["experiments"]
        there_of_study = committed.experiments_of(asked[0])
        missing = [one for one in wanted if one not in there_of_study]
    if missing:
        named = ", ".join(f"`{one}`" for one in missing)
        made = what in committed.settings["paper"] or what in committed.settings["studies"]
        command = f" `snakemake --cores 8 {what}` makes them." if made else ""
        parts.append(f"*`docs/data` has no tables of {named} yet.*{command}")
    if there:
        parts.append(_reading(committed, there[0]))
    return "\n\n".join(filter(None, parts)) or _NOTHING


def _shown(committed: Committed, picture: Picture, further: bool) -> str:
    names = ", ".join(f"`{name}`" for name in committed.experiments_of(picture))
    alternative = f"{picture.kind.replace('_', ' ')} of {names.replace('`', '')}"
    image = f"![{alternative}]({Path(FIGURES).name}/{picture.name}.png)"
    about = "; ".join(_extent(committed, picture, one) for one in committed.experiments_of(picture))
    note = " `config.yaml` has another experiment for this figure." if further else ""
    return "\n\n".join(filter(None, [image, f"*{about}.*{note}", key_numbers(committed, picture)]))


def _extent(committed: Committed, picture: Picture, experiment: str) -> str:
    """What a picture shows of an experiment: network, data, rates, seeds and epochs of the runs."""
    entry, runs = committed.settings["experiments"][experiment], committed.table(experiment, "runs")
    if "learning_rates" not in KINDS[picture.kind].settings.values():
        runs = rows(runs, lr=entry["reference_learning_rate"])
    rates = sorted(runs["lr"].unique(), key=float)
    seeds = sorted(int(seed) for seed in runs["seed"].unique())
    if shows_one_seed(picture) and len(seeds) > 1:
        seed, _ = reference_run(runs, rates[0])
        named = f"seed {seed} (of {', '.join(map(str, seeds))})"
    else:
        named = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    epochs = float(runs["epochs"].max())
    return (
        f"`{experiment}`: {_network(entry)} on `{entry['dataset']}`, "
        f"learning rate{'s' * (len(rates) > 1)} {', '.join(rates)}, "
        f"{named}, {epochs:g} epoch{'s' * (epochs != 1)}"
    )


def _reading(committed: Committed, picture: Picture) -> str:
    text = targets.caption(
        committed.settings, picture.kind, "the experiment", picture.stage or "last"
    )
    return f"<details><summary>How to read it</summary>\n{text}\n</details>"


# Claims.


@dataclass(frozen=True)
class _Said:
    """What a kept table says of one claim and experiment."""

    claim: Claim
    experiment: str
    counts: bool
    settles: bool
    verdict: str


def _said(committed: Committed, claim: Claim) -> tuple[list[_Said], pd.DataFrame]:
    found = committed.claims
    own = rows(found, claim=claim.name) if len(found) else found
    said = [
        _Said(
            claim,
            str(name),
            bool(one["counts"].iloc[0]),
            bool(one["settles"].iloc[0]),
            str(one["experiment_verdict"].iloc[0]),
        )
        for name, one in (own.groupby("experiment", sort=False) if len(own) else ())
    ]
    return said, own


def _overall(said: list[_Said]) -> tuple[str, str]:
    verdict, why = overall_verdict(said) if said else (NOT_RUN, "")
    return (_UNTOLD, "") if verdict == NOT_RUN else (verdict, why)


def _verdicts(committed: Committed) -> str:
    lines = []
    for claim in RULES:
        said, _ = _said(committed, claim)
        verdict, _ = _overall(said)
        each = [
            f"`{one.experiment}` {one.verdict}{'' if one.counts else ' (does not count)'}"
            for one in said
            if one.verdict
        ]
        lines.append([f"{claim.name} {claim.text}", f"**{verdict}**", "; ".join(each) or "–"])
    return table(["claim", "verdict", "experiment by experiment"], lines)


def _claim(committed: Committed, name: str) -> str:
    """One claim: its verdict, why, and its numbers on every experiment that speaks to it."""
    claim = next((one for one in RULES if one.name == name), None)
    if claim is None:
        raise StiffnessError(f"block 'claim {name}': there is no such claim")
    said, own = _said(committed, claim)
    verdict, why = _overall(said)
    text = f"{claim.name}: {claim.text} **{verdict.capitalize()}**"
    lines = []
    for row in own.to_dict("records"):
        if row["effect"]:
            lines.append(
                [
                    f"`{row['experiment']}`{'' if row['counts'] else ' (does not count)'}",
                    row["effect"],
                    with_interval(row["value"], row["low"], row["high"]),
                    condition(effect_of(row)),
                    row["effect_verdict"],
                ]
            )
    header = ["experiment", "effect", "value (95 %)", "holds in", "verdict"]
    silent = (
        [
            f"`{row['experiment']}` ({row['reason']})"
            for row in own.drop_duplicates("experiment").to_dict("records")
            if row["reason"]
        ]
        if len(own)
        else []
    )
    parts = [f"{text}{f': {why}' if why else ''}.", table(header, lines) if lines else ""]
    parts.append(f"It cannot be answered by {'; '.join(silent)}." if silent else "")
    return "\n\n".join(filter(None, parts))
