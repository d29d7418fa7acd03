"""The claims judged on every experiment that has been run: a table, a page and a picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pandas as pd

from stiffness.errors import StiffnessError
from stiffness.report.claims import CLAIMS
from stiffness.report.effects import CONTRADICTED, SUPPORTED, UNDECIDED, Claim, Effect, Range
from stiffness.report.evidence import Evidence, NotTestable, TooShort

NOT_RUN, TOO_SHORT, TOO_FEW = "not run", "too short", "too few seeds"
TALLY = ("agree", "disagree", "undecided", "too_short", "too_few_seeds")
"""Columns that count the experiments which could settle a claim, by what they say."""
COLUMNS = [
    "claim",
    "verdict",
    *TALLY,
    "experiment",
    "counts",
    "settles",
    "seeds",
    "seeds_needed",
    "experiment_verdict",
    "effect",
    "value",
    "low",
    "high",
    "holds_from",
    "holds_to",
    "fails_from",
    "fails_to",
    "p_holds",
    "p_fails",
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
        reason: why the experiment cannot speak to the claim, or why it is too short.
        seeds: the number of living seeds that speak.
        too_short: whether its runs ended too early to decide.
    """

    claim: Claim
    experiment: str
    counts: bool
    effects: list[Effect] = field(default_factory=list)
    reason: str = ""
    seeds: int = 0
    too_short: bool = False

    @property
    def settles(self) -> bool:
        """Whether the experiment's verdict settles the claim: it counts and has enough seeds."""
        return self.counts and self.seeds >= self.claim.seeds

    @property
    def verdict(self) -> str:
        """What the experiment says of the claim; "" if nothing."""
        if self.too_short:
            return TOO_SHORT
        verdicts = [effect.verdict for effect in self.effects if effect.holds is not None]
        if not verdicts:
            return ""
        if CONTRADICTED in verdicts:
            return CONTRADICTED
        return SUPPORTED if set(verdicts) == {SUPPORTED} else UNDECIDED


class Said(Protocol):
    """What an experiment says of a claim: as ``Judged`` has it, or as it was kept in a table."""

    @property
    def claim(self) -> Claim: ...
    @property
    def experiment(self) -> str: ...
    @property
    def counts(self) -> bool: ...
    @property
    def settles(self) -> bool: ...
    @property
    def verdict(self) -> str: ...


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
            effects, reason, too_short = [], "", False
            try:
                effects = claim.measure(one)
            except NotTestable as error:
                reason = str(error)
            except TooShort as error:
                effects, reason, too_short = error.effects, str(error), True
            except StiffnessError as error:
                raise StiffnessError(f"claim {claim.name}, {one.name}: {error}") from None
            counts = one.name in {*paper, *(studies or {}).get(claim.figure, ())}
            seeds = one.seeds(claim.all_rates) if effects else 0
            judged.append(Judged(claim, one.name, counts, effects, reason, seeds, too_short))
    return judged


def tally(of_claim: Sequence[Said]) -> dict[str, list[str]]:
    """Sort the experiments that count by what they say of a claim.

    Args:
        of_claim: one claim on every experiment.

    Returns:
        Names of experiments by the words in ``TALLY``. One that is too short is listed as that,
        however many seeds it has.
    """
    words = {SUPPORTED: "agree", CONTRADICTED: "disagree", UNDECIDED: "undecided"}
    found: dict[str, list[str]] = {word: [] for word in TALLY}
    for one in of_claim:
        if one.counts and one.verdict:
            enough = words.get(one.verdict, "too_short")
            few = enough != "too_short" and not one.settles
            found["too_few_seeds" if few else enough].append(one.experiment)
    return found


def overall_verdict(of_claim: Sequence[Said]) -> tuple[str, str]:
    """Combine the verdicts of the experiments that count and have enough seeds.

    A claim is supported where more than half of these experiments agree and none disagrees, and
    contradicted the other way round. Where none has decided, it is too short, has too few seeds, or
    is not run.

    Args:
        of_claim: one claim on every experiment.

    Returns:
        The verdict and the reason, which counts the experiments.
    """
    found = tally(of_claim)
    why = "; ".join(
        f"{len(names)} {word.replace('_', ' ')} ({', '.join(names)})"
        for word, names in found.items()
        if names
    )
    agree, disagree, undecided, short, few = (len(found[word]) for word in TALLY)
    if agree + disagree + undecided:
        half = (agree + disagree + undecided) / 2
        if agree > half and not disagree:
            return SUPPORTED, why
        return (CONTRADICTED if disagree > half and not agree else UNDECIDED), why
    if few:
        return TOO_FEW, f"{why}; {of_claim[0].claim.seeds} are needed"
    if short:
        return TOO_SHORT, why
    return NOT_RUN, "none of the experiments that can decide it has been run"


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
        counted = {word: len(names) for word, names in tally(of_claim).items()}
        for one in of_claim:
            key = {
                "claim": one.claim.name,
                "verdict": verdict,
                **counted,
                "experiment": one.experiment,
                "counts": one.counts,
                "settles": one.settles,
                "seeds": one.seeds,
                "seeds_needed": one.claim.seeds,
                "experiment_verdict": one.verdict,
                "figure": one.claim.figure,
                "reason": one.reason,
            }
            if not one.effects:
                rows.append(key)
            for effect in one.effects:
                least, most = effect.holds or (np.nan, np.nan)
                fails_from, fails_to = effect.fails or (np.nan, np.nan)
                rows.append(
                    key
                    | {"effect": effect.what, "value": effect.value}
                    | {"low": effect.low, "high": effect.high}
                    | {"holds_from": least, "holds_to": most}
                    | {"fails_from": fails_from, "fails_to": fails_to}
                    | {"p_holds": effect.p_holds, "p_fails": effect.p_fails}
                    | {"effect_verdict": effect.verdict}
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
        "every experiment, are in `workflow/stiffness/report/`. A verdict needs at least 3 seeds,",
        "and 5 seeds of every rate where learning rates are compared.",
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
        if not one.counts:
            named += " (no evidence)"
        elif not one.settles:
            named += f" ({one.seeds} of {claim.seeds} seeds)"
        for effect in one.effects:
            lines.append(
                f"| {named} | {effect.what} | {_number(effect.value)} | "
                f"{_number(effect.low)} to {_number(effect.high)} | {condition(effect)} | "
                f"{effect.verdict} |"
            )
    for what, some in (
        ("Too short", [one for one in of_claim if one.too_short]),
        ("Cannot speak to it", [one for one in of_claim if not one.effects and not one.too_short]),
    ):
        if some:
            names = "; ".join(f"{one.experiment} ({one.reason})" for one in some)
            lines += ["", f"{what}: {names}."]
    return lines


def _linked(claim: Claim) -> str:
    return f"[{claim.name}](#{_anchor(claim.name)}) {claim.text}"


def _anchor(name: str) -> str:
    """Name the place of a claim on the page."""
    return name.lower().replace("'", "-arithmetic").replace(" ", "-")


def _number(value: float) -> str:
    """Write a number with three digits; "–" where it is undefined."""
    return f"{value:.3g}" if np.isfinite(value) else {True: "∞", False: "–"}[bool(value > 0)]


def effect_of(row: Mapping[Any, Any]) -> Effect:
    """An effect as a row of ``claims_table`` has it."""

    def found(name: str) -> Range | None:
        least, most = row[f"{name}_from"], row[f"{name}_to"]
        return None if np.isnan(least) else (least, most)

    return Effect(
        what=row["effect"],
        value=row["value"],
        low=row["low"],
        high=row["high"],
        holds=found("holds"),
        fails=found("fails"),
        p_holds=row["p_holds"],
        p_fails=row["p_fails"],
    )


def condition(effect: Effect) -> str:
    """Write when an effect supports its claim."""
    if effect.holds is None:
        return "(reported)"
    if not np.isnan(effect.p_holds):
        return f"p = {_number(effect.p_holds)} for it, {_number(effect.p_fails)} against it"
    least, most = effect.holds
    if np.isinf(least) and np.isinf(most):
        return "(a test; too few seeds)"
    if np.isinf(least):
        return f"below {max(most, 0):g}"
    if np.isinf(most):
        text = f"above {0 if least < 1e-6 else least:g}"
    else:
        text = f"{least:g} to {most:g}"
    return text if effect.fails is None else f"{text}; not below {effect.fails[1]:g}"
