"""The claims judged on every experiment that has been run: a table, a page and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from stiffness.errors import StiffnessError
from stiffness.report.claims import (
    CLAIMS,
    CONTRADICTED,
    SUPPORTED,
    UNDECIDED,
    Claim,
    Effect,
)
from stiffness.report.evidence import Evidence, NotTestable

NOT_RUN = "not run"
COLUMNS = [
    "claim",
    "verdict",
    "experiment",
    "counts",
    "experiment_verdict",
    "effect",
    "value",
    "low",
    "high",
    "holds_from",
    "holds_to",
    "effect_verdict",
    "figure",
    "reason",
]


@dataclass(frozen=True)
class Judged:
    """One claim on one experiment.

    Attributes:
        claim: the claim.
        experiment: the experiment's name.
        counts: whether the experiment is one of the paper's, or of a study of this very question:
            their verdicts settle the claim. The others are no evidence for the paper.
        effects: what was measured; empty where the experiment cannot speak to the claim.
        reason: why the experiment cannot speak to the claim.
    """

    claim: Claim
    experiment: str
    counts: bool
    effects: list[Effect] = field(default_factory=list)
    reason: str = ""

    @property
    def verdict(self) -> str:
        """What the experiment says of the claim; "" if nothing."""
        verdicts = [effect.verdict for effect in self.effects if effect.holds is not None]
        if not verdicts:
            return ""
        if CONTRADICTED in verdicts:
            return CONTRADICTED
        return SUPPORTED if set(verdicts) == {SUPPORTED} else UNDECIDED


def judge(
    evidence: Sequence[Evidence],
    paper: Sequence[str],
    claims: Sequence[Claim] = tuple(CLAIMS),
    studies: Mapping[str, Sequence[str]] | None = None,
) -> list[Judged]:
    """Judge every claim on every experiment.

    Args:
        evidence: the experiments.
        paper: names of the experiments whose verdicts count for every claim.
        claims: the claims.
        studies: by kind of figure, names of the experiments whose verdicts also count for the
            claims of that kind.

    Returns:
        One entry per claim and experiment, claims first.

    Raises:
        StiffnessError: a file is missing or unreadable.
    """
    judged = []
    for claim in claims:
        for one in evidence:
            try:
                effects, reason = claim.measure(one), ""
            except NotTestable as error:
                effects, reason = [], str(error)
            except StiffnessError as error:
                raise StiffnessError(f"claim {claim.name}, {one.name}: {error}") from None
            counts = one.name in {*paper, *(studies or {}).get(claim.figure, ())}
            judged.append(Judged(claim, one.name, counts, effects, reason))
    return judged


def overall_verdict(of_claim: Sequence[Judged]) -> tuple[str, str]:
    """Combine the verdicts of the experiments that count.

    A claim is supported or contradicted where all experiments that decide agree; it is not decided
    otherwise, and not run where no experiment that counts can speak to it.

    Args:
        of_claim: one claim on every experiment.

    Returns:
        The verdict and the reason.
    """
    found: dict[str, list[str]] = {}
    for one in of_claim:
        if one.counts and one.verdict:
            found.setdefault(one.verdict, []).append(one.experiment)
    named = "; ".join(f"{verdict} by {', '.join(names)}" for verdict, names in found.items())
    if not found:
        return NOT_RUN, "none of the experiments that can decide it has been run"
    if SUPPORTED in found and CONTRADICTED in found:
        return UNDECIDED, f"experiments disagree: {named}"
    for verdict in (CONTRADICTED, SUPPORTED):
        if verdict in found:
            return verdict, named
    return UNDECIDED, named


def group_by_claim(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    """Group what was judged by the name of the claim, in the order of claims."""
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.claim.name, []).append(one)
    return groups


def claims_table(judged: Sequence[Judged]) -> pd.DataFrame:
    """Tabulate the verdicts: one row per claim, experiment and effect, with ``COLUMNS``.

    An experiment that cannot speak to a claim has one row without numbers.
    """
    rows: list[dict[str, Any]] = []
    for of_claim in group_by_claim(judged).values():
        verdict, _ = overall_verdict(of_claim)
        for one in of_claim:
            key = {
                "claim": one.claim.name,
                "verdict": verdict,
                "experiment": one.experiment,
                "counts": one.counts,
                "experiment_verdict": one.verdict,
                "figure": one.claim.figure,
                "reason": one.reason,
            }
            if not one.effects:
                rows.append(key)
            for effect in one.effects:
                least, most = effect.holds or (np.nan, np.nan)
                rows.append(
                    key
                    | {"effect": effect.what, "value": effect.value}
                    | {"low": effect.low, "high": effect.high}
                    | {"holds_from": least, "holds_to": most, "effect_verdict": effect.verdict}
                )
    return pd.DataFrame(rows, columns=COLUMNS)


def claims_page(judged: Sequence[Judged], figures: Mapping[str, Mapping[str, str]]) -> str:
    """Write the verdicts as Markdown.

    The page says first what the paper's experiments show, then what the others show, which is no
    evidence for the paper, and last each claim with its rule and its numbers.

    Args:
        judged: every claim on every experiment.
        figures: by experiment and kind, the path of a picture, relative to the page.
    """
    groups = group_by_claim(judged)
    overall = {name: overall_verdict(of_claim) for name, of_claim in groups.items()}
    decided = [name for name, (verdict, _) in overall.items() if verdict != NOT_RUN]
    open_claims = [f"[{name}](#{_anchor(name)})" for name in groups if name not in decided]
    lines = ["# The paper's claims", ""]
    if decided:
        lines += ["## What the paper's experiments show", ""]
        lines += ["| claim | verdict | why |", "|---|---|---|"]
        for name in decided:
            verdict, why = overall[name]
            lines.append(f"| {_linked(groups[name][0].claim)} | **{verdict}** | {why} |")
        if open_claims:
            lines += ["", "No experiment that can decide these claims has been run: "]
            lines[-1] += f"{', '.join(open_claims)}."
    else:
        lines += [
            "**None of the paper's experiments has been run, so no claim is decided.** "
            "`snakemake --cores all paper`",
            "runs them, and `snakemake --cores all claims` judges them.",
        ]
    others = list(dict.fromkeys(one.experiment for one in judged if not one.counts and one.effects))
    if others:
        lines += ["", "## What other experiments show: no evidence for the paper", ""]
        lines += [
            "These experiments are not the paper's, or were made for another question. They show",
            "what the rules say of them; their verdicts settle no claim. A dash means that the",
            "experiment cannot speak to the claim.",
            "",
            f"| claim | {' | '.join(others)} |",
            f"|---|{'---|' * len(others)}",
        ]
        for of_claim in groups.values():
            found = {
                one.experiment: "counts, above" if one.counts and one.verdict else one.verdict
                for one in of_claim
            }
            cells = " | ".join(found[name] or "–" for name in others)
            lines.append(f"| {_linked(of_claim[0].claim)} | {cells} |")
    lines += [
        "",
        "## The claims one by one",
        "",
        "Effects are given with 95 % intervals over examples and seeds. The rules, the same for",
        "every experiment, are in `workflow/stiffness/report/claims.py`. A dagger (†) marks an",
        "estimate outside its own interval: resampling shifts such a quantity.",
    ]
    for name, of_claim in groups.items():
        lines += _details(of_claim, overall[name], figures)
    return "\n".join(lines) + "\n"


def _details(
    of_claim: Sequence[Judged],
    overall: tuple[str, str],
    figures: Mapping[str, Mapping[str, str]],
) -> list[str]:
    """Write the lines of one claim: its rule and its numbers on every experiment."""
    claim = of_claim[0].claim
    lines = ["", f'<a id="{_anchor(claim.name)}"></a>', "", f"### {claim.name}: {claim.text}", ""]
    verdict, why = overall
    if verdict != NOT_RUN:
        lines += [f"Verdict: **{verdict}** ({why}).", ""]
    lines += [f"Rule: {claim.rule}", ""]
    if any(one.effects for one in of_claim):
        lines += [
            "| experiment | effect | value | interval | holds in | |",
            "|---|---|---|---|---|---|",
        ]
    for one in sorted(of_claim, key=lambda one: not one.counts):
        picture = figures.get(one.experiment, {}).get(claim.figure)
        named = f"[{one.experiment}]({picture})" if picture else one.experiment
        named += "" if one.counts else " (no evidence)"
        for effect in one.effects:
            outside = effect.value < effect.low or effect.value > effect.high
            lines.append(
                f"| {named} | {effect.what} | {_number(effect.value)}{' †' if outside else ''} | "
                f"{_number(effect.low)} to {_number(effect.high)} | {_range(effect.holds)} | "
                f"{effect.verdict} |"
            )
    silent = [f"{one.experiment} ({one.reason})" for one in of_claim if not one.effects]
    return lines + (["", "Cannot speak to it: " + "; ".join(silent) + "."] if silent else [])


def _linked(claim: Claim) -> str:
    return f"[{claim.name}](#{_anchor(claim.name)}) {claim.text}"


def _anchor(name: str) -> str:
    """Name the place of a claim on the page."""
    return name.lower().replace("'", "-rounding")


def _number(value: float) -> str:
    """Write a number with three digits; "–" where it is undefined."""
    return f"{value:.3g}" if np.isfinite(value) else {True: "∞", False: "–"}[bool(value > 0)]


def _range(holds: tuple[float, float] | None) -> str:
    """Write the range in which a claim holds."""
    if holds is None:
        return "(reported)"
    least, most = holds
    if np.isinf(least):
        return f"below {max(most, 0):g}"
    if np.isinf(most):
        return f"above {0 if least < 1e-6 else least:g}"
    return f"{least:g} to {most:g}"
