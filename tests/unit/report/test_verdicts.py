"""From effects to verdicts, and from verdicts to the page and the table."""

from dataclasses import replace

import numpy as np
import pytest
from invented import Invented

from stiffness.errors import StiffnessError
from stiffness.report.effects import CLAIMS, CONTRADICTED, SUPPORTED, UNDECIDED, Effect
from stiffness.report.evidence import NotTestable, TooShort
from stiffness.report.verdicts import (
    COLUMNS,
    NOT_RUN,
    TALLY,
    TOO_FEW,
    TOO_SHORT,
    Judged,
    claims_page,
    claims_table,
    judge,
    overall_verdict,
    tally,
)

NAMES = [claim.name for claim in CLAIMS]
ENDS = {SUPPORTED: (1, 2), CONTRADICTED: (-2, -1), UNDECIDED: (-1, 1)}


def one(experiment: str, *verdicts: str, counts: bool = True, seeds: int = 3, **rest) -> Judged:
    """C1 on an experiment, whose effects say this; C1 needs 3 seeds."""
    effects = [Effect("x", 0.0, *ENDS[verdict], (0.0, np.inf)) for verdict in verdicts]
    reason = "" if effects else "no reason"
    return Judged(CLAIMS[0], experiment, counts, effects, reason, seeds, **rest)


def short(experiment: str, **rest) -> Judged:
    return one(experiment, too_short=True, **rest)


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ((SUPPORTED, SUPPORTED), SUPPORTED),
        ((SUPPORTED, CONTRADICTED), CONTRADICTED),
        ((UNDECIDED, CONTRADICTED), CONTRADICTED),
        ((SUPPORTED, UNDECIDED), UNDECIDED),
        ((), ""),
    ],
)
def test_all_effects_must_support_and_one_contradicts(verdicts, expected):
    assert one("a", *verdicts).verdict == expected


def test_effects_that_are_only_reported_decide_nothing():
    reported = Effect("y", 0.0, -2, -1)
    judged = Judged(CLAIMS[0], "a", True, [reported], seeds=3)
    assert judged.verdict == ""
    both = Judged(CLAIMS[0], "a", True, [*one("a", SUPPORTED).effects, reported], seeds=3)
    assert both.verdict == SUPPORTED


S, C, U = SUPPORTED, CONTRADICTED, UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([S], S),
        ([C], C),
        ([U], U),
        ([S, C], U),
        ([S, S, S, C], U),
        ([C, C, C, S], U),
        ([S, U], U),  # no more than half
        ([S, S, U], S),
        ([S, U, U], U),
        ([C, U], U),
        ([C, C, U], C),
        ([S, S], S),
    ],
)
def test_more_than_half_must_agree_and_none_disagree(verdicts, expected):
    verdict, why = overall_verdict([one(str(n), v) for n, v in enumerate(verdicts)])
    assert verdict == expected
    if S in verdicts:
        assert f"{verdicts.count(S)} agree" in why
    if C in verdicts:
        assert f"{verdicts.count(C)} disagree" in why
    if U in verdicts:
        assert f"{verdicts.count(U)} undecided" in why


@pytest.mark.parametrize(
    ("judged", "expected"),
    [
        ([one("a", S, seeds=2)], TOO_FEW),
        ([one("a", C, seeds=2), one("b", S)], S),
        ([one("a", S, seeds=2), one("b", U)], U),
        ([short("a")], TOO_SHORT),
        ([short("a"), one("b", S)], S),
        ([short("a"), short("b"), one("c", C)], C),
        ([short("a"), one("b", S, seeds=1)], TOO_FEW),
        ([one("a", S, counts=False), one("b")], NOT_RUN),
        ([short("a", counts=False)], NOT_RUN),
        ([one("a", C, counts=False), one("b", S)], S),
    ],
)
def test_what_cannot_settle_a_claim_does_not(judged, expected):
    verdict, why = overall_verdict(judged)
    assert verdict == expected
    assert ("are needed" in why) == (expected == TOO_FEW)


def test_every_experiment_that_counts_is_tallied_once():
    judged = [
        one("agrees", S),
        one("disagrees", C),
        one("open", U),
        short("brief", seeds=1),
        one("few", S, seeds=2),
        one("silent"),
        one("other", S, counts=False),
    ]
    assert tally(judged) == {
        "agree": ["agrees"],
        "disagree": ["disagrees"],
        "undecided": ["open"],
        "too_short": ["brief"],
        "too_few_seeds": ["few"],
    }
    table = claims_table(judged)
    assert table[list(TALLY)].drop_duplicates().to_numpy().tolist() == [[1, 1, 1, 1, 1]]
    settles = table.set_index("experiment")["settles"].to_dict()
    # One that is too short, or silent, has seeds enough but says nothing that could settle it.
    assert [name for name, value in settles.items() if value] == [
        "agrees",
        "disagrees",
        "open",
        "silent",
    ]


@pytest.mark.parametrize(("claim", "needed"), [("C1", 3), ("C12", 5)])
@pytest.mark.parametrize("more", [-1, 0, 1])
def test_claims_need_3_seeds_and_those_of_rates_5(claim, needed, more):
    (found,) = [one for one in CLAIMS if one.name == claim]
    (judged,) = judge([Invented({"seeds": needed + more})], ["some"], [found])
    assert judged.seeds == needed + more
    assert judged.settles == (more >= 0)


def test_claims_of_rates_count_the_seeds_of_the_rate_with_the_fewest():
    evidence = Invented()
    runs = evidence.runs
    runs.loc[(runs["lr"] == "1e-4") & (runs["seed"] > 1), "status"] = "diverged"
    assert evidence.seeds() == 5
    assert evidence.seeds(all_rates=True) == 2
    runs.loc[runs["lr"] == "1e-4", "status"] = "diverged"
    assert evidence.seeds(all_rates=True) == 0
    for claim in CLAIMS:
        assert claim.all_rates == (claim.name in {"C12", "C13", "C14", "C18"})
        assert claim.seeds == (5 if claim.all_rates else 3)


def test_a_study_of_the_question_counts_beside_the_papers_experiments():
    unmeasured = [replace(claim, measure=lambda evidence: []) for claim in CLAIMS]

    def counting(paper, studies):
        judged = judge([Invented()], paper, unmeasured, studies)
        return {one.claim.name for one in judged if one.counts}

    of_layers = counting(["other"], {"layers": ["some"], "arithmetic": ["other"]})
    assert of_layers == {"C17"}
    assert counting(["some"], {}) == set(NAMES)
    assert counting([], {}) == set()
    assert counting([], None) == set()


def test_what_a_rule_raises_is_told_apart():
    def raising(error):
        def measure(evidence):
            raise error

        return replace(CLAIMS[0], measure=measure)

    effects = [Effect("x", 1.0, 1.0, 1.0)]
    (silent,) = judge([Invented()], ["some"], [raising(NotTestable("cannot"))])
    assert (silent.verdict, silent.reason, silent.effects) == ("", "cannot", [])
    (brief,) = judge([Invented()], ["some"], [raising(TooShort("ends early", effects))])
    assert (brief.verdict, brief.reason, brief.effects) == (TOO_SHORT, "ends early", effects)
    with pytest.raises(StiffnessError, match="claim C1, some: no such file"):
        judge([Invented()], ["some"], [raising(StiffnessError("no such file"))])


# --- the table and the page ----------------------------------------------------------------------


def test_the_table_has_every_number():
    judged = judge([Invented()], ["some"])
    table = claims_table(judged)
    assert list(table.columns) == COLUMNS
    assert list(dict.fromkeys(table["claim"])) == NAMES
    decided = table[table["effect_verdict"] != ""]
    assert decided[["value", "holds_from", "holds_to"]].notna().all(axis=None)
    known = table.dropna(subset=["low", "high"])
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
    row = table[table["claim"] == "C3"].dropna(subset=["fails_to"]).iloc[0]
    assert (row["holds_from"], row["fails_to"]) == (0.5, 0.05)
    row = table[table["claim"] == "C12"].dropna(subset=["p_holds"]).iloc[0]
    assert row["p_holds"] < 0.001 < 0.9 < row["p_fails"]
    assert (row["seeds"], row["seeds_needed"], row["agree"]) == (5, 5, 1)
    silent = claims_table([one("a")]).iloc[0]
    assert (silent["reason"], silent["experiment_verdict"]) == ("no reason", "")


def test_the_page_has_every_claim_its_rule_and_its_pictures():
    text = claims_page(judge([Invented()], ["some"]), {"some": {"layers": "some/layers.png"}})
    for claim in CLAIMS:
        assert f"### {claim.name}: " in text
        assert claim.rule in text
    assert "[some](some/layers.png)" in text
    assert '<a id="c3-arithmetic"></a>' in text
    assert '<a id="c3-keras"></a>' in text


def condition(effect: Effect) -> str:
    line = claims_page([Judged(CLAIMS[0], "a", True, [effect], seeds=3)], {})
    (row,) = [line for line in line.splitlines() if line.startswith("| a | x")]
    return row.split(" | ")[4]


@pytest.mark.parametrize(
    ("effect", "expected"),
    [
        (Effect("x", 0, 0, 0), "(reported)"),
        (Effect("x", 0, 0, 0, (-np.inf, -1e-9)), "below 0"),
        (Effect("x", 0, 0, 0, (1e-9, np.inf)), "above 0"),
        (Effect("x", 0, 0, 0, (0.05, np.inf)), "above 0.05"),
        (Effect("x", 0, 0, 0, (-0.05, 0.05)), "-0.05 to 0.05"),
        (
            Effect("x", 0, 0, 0, (0.5, np.inf), (-np.inf, 0.05)),
            "above 0.5; not below 0.05",
        ),
        (
            Effect("x", 0, 0, 0, (-np.inf, np.inf), (np.inf, np.inf), 0.0123, 0.987),
            "p = 0.0123 for it, 0.987 against it",
        ),
        (
            Effect("x", 0, 0, 0, (-np.inf, np.inf), (np.inf, np.inf)),
            "(a test; too few seeds)",
        ),
    ],
)
def test_the_page_says_when_an_effect_supports(effect, expected):
    assert condition(effect) == expected


def test_undefined_and_infinite_numbers_are_written_as_signs():
    effect = Effect("x", 1.2345, np.nan, np.inf)
    text = claims_page([Judged(CLAIMS[0], "a", True, [effect], seeds=3)], {})
    assert "| a | x | 1.23 | – to ∞ | (reported) |  |" in text


def test_where_nothing_of_the_paper_has_run_the_page_says_so_once():
    judged = [one("small_net", SUPPORTED, counts=False), one("other", counts=False)]
    text = claims_page(judged, {})
    assert "not run" not in text
    assert text.count("None of the paper's experiments has been run") == 1
    first, second = text.split("## What other experiments show: no evidence for the paper")
    assert "small_net" not in first
    assert "| small_net |\n" in second  # "other" cannot speak to any claim
    assert "| supported |\n" in second
    assert "What the paper's experiments show" not in text


def test_the_papers_experiments_come_first_and_the_others_are_told_apart():
    judged = [one("small_net", CONTRADICTED, counts=False), one("big_net", SUPPORTED)]
    text = claims_page(judged, {})
    places = [
        text.index("## What the paper's experiments show"),
        text.index("| **supported** | 1 agree (big_net) |"),
        text.index("no evidence for the paper"),
        text.index("| small_net |\n"),
        text.index("Verdict: **supported** (1 agree (big_net))"),
        text.index("| big_net | x"),
        text.index("| small_net (no evidence) | x"),
    ]
    assert places == sorted(places)


def test_the_page_says_what_is_too_short_and_has_too_few_seeds():
    effects = [Effect("x", 1.0, 1.0, 1.0)]
    brief = Judged(CLAIMS[0], "a", True, effects, "ends early", 3, too_short=True)
    silent = Judged(CLAIMS[0], "b", True, [], "no reason")
    text = claims_page([brief, silent, one("c", SUPPORTED, seeds=2)], {})
    assert "Too short: a (ends early)." in text
    assert "Cannot speak to it: b (no reason)." in text
    assert "| c (2 of 3 seeds) | x" in text
    assert "| **too few seeds** |" in text


def test_a_claim_without_an_experiment_that_counts_is_listed_beside_the_decided_ones():
    undecidable = Judged(CLAIMS[1], "a", True, [], "no reason")
    text = claims_page([one("a", SUPPORTED), undecidable], {})
    assert f"has been run: [{CLAIMS[1].name}](#" in text


def test_a_claim_of_several_experiments_is_written_once():
    text = claims_page([one("a", SUPPORTED), one("b", SUPPORTED), one("c", counts=False)], {})
    assert text.count("### C1: ") == 1
    assert "2 agree (a, b)" in text
