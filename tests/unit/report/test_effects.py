"""What a number decides, and what regresses to 0."""

import numpy as np
import pytest

from stiffness.report.effects import (
    CONTRADICTED,
    INF,
    SUPPORTED,
    UNDECIDED,
    Effect,
    change,
    effect,
    regress,
)
from stiffness.report.evidence import Curve


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.1, 0.2, SUPPORTED),
        (0.0, 1.0, SUPPORTED),  # a closed range
        (-0.2, -0.1, CONTRADICTED),
        (1.1, 1.2, CONTRADICTED),
        (-0.1, 0.1, UNDECIDED),
        (0.9, 1.1, UNDECIDED),
        (-0.1, 0.0, UNDECIDED),
        (-1.0, 2.0, UNDECIDED),
        (np.nan, np.nan, UNDECIDED),
    ],
)
def test_the_whole_interval_decides(low, high, expected):
    assert Effect("x", 0.0, low, high, (0.0, 1.0)).verdict == expected
    assert Effect("x", 0.0, low, high).verdict == ""


def test_an_interval_stays_in_the_bounds_of_its_quantity():
    one = effect("x", 0.99, 0.99 + np.linspace(-0.1, 0.1, 41), bounds=(0.9, 1.0))
    assert (one.low, one.value, one.high) == (0.9, 0.99, 1.0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.5, 0.9, SUPPORTED),
        (0.4, 0.9, UNDECIDED),
        (0.1, 0.4, UNDECIDED),
        (0.0, 0.05, CONTRADICTED),
        (-3.0, 0.05, CONTRADICTED),
        (0.0, 0.06, UNDECIDED),
        (-4.0, 0.0, UNDECIDED),
    ],
)
def test_between_two_ranges_nothing_is_decided(low, high, expected):
    assert Effect("x", 0.0, low, high, (0.5, 1.0), (-3.0, 0.05)).verdict == expected


@pytest.mark.parametrize(
    ("p_holds", "p_fails", "expected"),
    [
        (0.05, 0.9, SUPPORTED),
        (0.051, 0.9, UNDECIDED),
        (0.9, 0.05, CONTRADICTED),
        (0.9, 0.051, UNDECIDED),
        (np.nan, np.nan, UNDECIDED),
    ],
)
def test_a_test_decides_by_its_p_values(p_holds, p_fails, expected):
    # Whatever the interval says.
    for low, high in ((1.0, 2.0), (-2.0, -1.0)):
        one = Effect("x", 0.0, low, high, (-INF, INF), (INF, INF), p_holds, p_fails)
        if not np.isnan(p_holds):
            assert one.verdict == expected
    unknown = Effect("x", 0.0, np.nan, np.nan, (-INF, INF), (INF, INF), p_holds, p_fails)
    assert unknown.verdict == expected
    assert Effect("x", 0.0, 0, 0, None, None, p_holds, p_fails).verdict == ""


def test_an_interval_reaches_as_far_as_the_estimate():
    drawn = np.linspace(1, 2, 401)
    inside = effect("x", 1.5, drawn)
    assert (inside.low, inside.high) == (pytest.approx(1.025), pytest.approx(1.975))
    assert effect("x", 0.5, drawn).low == 0.5
    assert effect("x", 0.5, drawn).high == pytest.approx(1.975)
    assert effect("x", 3.0, drawn).high == 3.0
    assert np.isnan(effect("x", 1.0, np.full(10, np.nan)).low)


def curve(*values: float, noise: float = 0.0) -> Curve:
    """Checkpoints at epochs 0, 1, 2 and so on."""
    generator = np.random.default_rng(0)
    estimates = np.array(values)
    drawn = estimates[:, None] + noise * generator.standard_normal((len(values), 400))
    return Curve(np.arange(len(values), dtype=float), estimates, estimates, drawn)


def test_a_change_is_that_of_the_same_resamples():
    one = curve(1.0, 0.5, 0.2, noise=0.01)
    found = change("x", one, 0, 2, (-1.0, 0.0))
    assert found.value == pytest.approx(-0.8)
    drawn = one.replicates[2] - one.replicates[0]
    assert found.low == pytest.approx(np.quantile(drawn, 0.025))
    assert found.verdict == SUPPORTED


@pytest.mark.parametrize(
    ("start", "end", "expected", "lost"),
    [
        (1.0, 0.5, SUPPORTED, 0.5),
        (1.0, 0.51, UNDECIDED, 0.49),
        (1.0, 0.951, CONTRADICTED, 0.049),
        (1.0, 0.949, UNDECIDED, 0.051),
        (1.0, 1.2, CONTRADICTED, -0.2),
        (-1.0, -0.4, SUPPORTED, 0.6),
        (-0.6, 0.6, CONTRADICTED, 0.0),
        (0.12, 0.09, SUPPORTED, 0.25),
        (0.12, -0.09, SUPPORTED, 0.25),
        (0.12, 0.11, UNDECIDED, 1 / 12),
        (0.1, 0.5, "", -4.0),
        (-0.1, 0.5, "", -4.0),
        (0.0, 0.5, "", -INF),
    ],
)
def test_what_regresses_to_0(start, end, expected, lost):
    left, share = regress("S", curve(9.0, start, 0.7, end), 1)
    assert left.what == "S at the end"
    assert left.value == end
    assert share.what.startswith("share of S lost since epoch 1")
    assert share.value == pytest.approx(lost)
    verdicts = {left.verdict, share.verdict} - {""}
    assert verdicts == ({expected} if expected else set())


def test_a_start_whose_interval_leaves_the_margin_has_something_to_lose():
    _, share = regress("S", curve(0.09, 0.3, noise=0.02), 0)
    assert share.verdict == CONTRADICTED
    _, share = regress("S", curve(0.03, 0.3, noise=0.02), 0)
    assert share.verdict == ""


def test_what_is_left_of_stiffness_is_at_most_1():
    drawn = np.stack([np.full(41, 1.0), 0.99 + np.linspace(-0.1, 0.1, 41)])
    end, _ = regress("x", Curve(np.arange(2.0), np.ones(2), drawn.mean(1), drawn), 0)
    assert end.high == 1
    assert end.low < 0.95
