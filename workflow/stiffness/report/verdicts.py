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
        counts: whether the experiment is one of the paper's, or of a study of this very question:
            their verdicts settle the claim.
        effects: empty where the experiment cannot speak to the claim, for the ``reason``.
    """

    claim: Claim
    experiment: str
    counts: bool
    effects: list[Effect] = field(default_factory=list)
    reason: str = ""

    @property
    def verdict(self) -> str:
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
    """Every claim on every experiment.

    Args:
        paper: names of the experiments whose verdicts count for every claim.
        studies: by kind of figure, names of those whose verdicts also count for its claims.

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


def overall(of_claim: Sequence[Judged]) -> tuple[str, str]:
    """The verdict on a claim, and why: from the experiments that count.

    Supported or contradicted where all of them are of one mind, undecided ones apart; else not
    decided.
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


def by_claim(judged: Sequence[Judged]) -> dict[str, list[Judged]]:
    groups: dict[str, list[Judged]] = {}
    for one in judged:
        groups.setdefault(one.claim.name, []).append(one)
    return groups


def table(judged: Sequence[Judged]) -> pd.DataFrame:
    """One row an effect; one without numbers for an experiment that cannot speak to a claim."""
    rows: list[dict[str, Any]] = []
    for of_claim in by_claim(judged).values():
        verdict, _ = overall(of_claim)
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


def page(judged: Sequence[Judged], figures: Mapping[str, Mapping[str, str]]) -> str:
    """Markdown: the verdicts in one table, then each claim with its rule and its numbers.

    Args:
        figures: by experiment and kind, the path of a picture, relative to the page.
    """
    groups = by_claim(judged)
    lines = [
        "# The paper's claims",
        "",
        "Effects are given with 95 % intervals over examples and seeds. The rules, the same for",
        "every experiment, are in `workflow/stiffness/report/claims.py`.",
        "",
        "| claim | verdict | why |",
        "|---|---|---|",
    ]
    for name, of_claim in groups.items():
        verdict, why = overall(of_claim)
        lines.append(
            f"| [{name}](#{_anchor(name)}) {of_claim[0].claim.text} | **{verdict}** | {why} |"
        )
    for name, of_claim in groups.items():
        claim = of_claim[0].claim
        verdict, why = overall(of_claim)
        lines += ["", f'<a id="{_anchor(name)}"></a>', "", f"## {name}: {verdict}", ""]
        lines += [f"*{claim.text}*", "", f"Rule: {claim.rule}", ""]
        silent = []
        shown = [one for one in of_claim if one.effects]
        if shown:
            lines += [
                "| experiment | effect | value | interval | holds in | |",
                "|---|---|---|---|---|---|",
            ]
        for one in of_claim:
            if not one.effects:
                silent.append(f"{one.experiment} ({one.reason})")
                continue
            named = one.experiment if one.counts else f"{one.experiment} (does not count)"
            picture = figures.get(one.experiment, {}).get(claim.figure)
            named = f"[{named}]({picture})" if picture else named
            for effect in one.effects:
                lines.append(
                    f"| {named} | {effect.what} | {_number(effect.value)} | "
                    f"{_number(effect.low)} to {_number(effect.high)} | {_range(effect.holds)} | "
                    f"{effect.verdict} |"
                )
        if silent:
            lines += ["", "Cannot speak to it: " + "; ".join(silent) + "."]
    return "\n".join(lines) + "\n"


def _anchor(name: str) -> str:
    return name.lower().replace("'", "-rounding")


def _number(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else {True: "∞", False: "–"}[bool(value > 0)]


def _range(holds: tuple[float, float] | None) -> str:
    if holds is None:
        return "(reported)"
    least, most = holds
    if np.isinf(least):
        return f"below {max(most, 0):g}"
    if np.isinf(most):
        return f"above {0 if least < 1e-6 else least:g}"
    return f"{least:g} to {most:g}"
