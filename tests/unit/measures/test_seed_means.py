"""Means over seeds and their intervals."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.seeds import seed_means, seed_weights


def seeds(values: list[float], halves: list[float], epoch: float = 1.0) -> pd.DataFrame:
    value, half = np.array(values), np.array(halves)
    return pd.DataFrame(
        {"epoch": epoch, "seed": range(len(value)), "value": value}
        | {"low": value - half, "high": value + half}
    )


def test_the_interval_over_seeds_combines_examples_and_seeds():
    (mean,) = seed_means(seeds([0.4, 0.6, 0.8], [0.1, 0.2, 0.3]), ["epoch"]).to_dict("records")
    of_seeds = stats.t.ppf(0.975, 2) * np.std([0.4, 0.6, 0.8], ddof=1) / np.sqrt(3)
    of_examples = np.sqrt(np.mean([0.01, 0.04, 0.09]))
    half = np.hypot(of_seeds, of_examples)
    assert mean["value"] == pytest.approx(0.6)
    assert mean["low"] == pytest.approx(0.6 - half)
    assert mean["high"] == pytest.approx(0.6 + half)


def test_seeds_that_agree_do_not_shrink_the_interval_over_examples():
    (mean,) = seed_means(seeds([0.5] * 4, [0.1] * 4), ["epoch"]).to_dict("records")
    assert (mean["low"], mean["high"]) == (pytest.approx(0.4), pytest.approx(0.6))


@pytest.mark.parametrize(("low", "high"), [(0.4, 0.6), (0.2, 0.55), (0.4, np.inf)])
def test_one_seed_keeps_its_interval(low, high):
    table = seeds([0.5], [0.1]).assign(low=low, high=high)
    (mean,) = seed_means(table, ["epoch"]).to_dict("records")
    assert (mean["value"], mean["low"], mean["high"]) == pytest.approx((0.5, low, high))


def test_an_undefined_interval_stays_undefined():
    (mean,) = seed_means(seeds([0.4, 0.6], [np.nan] * 2), ["epoch"]).to_dict("records")
    assert mean["value"] == pytest.approx(0.5)
    assert np.isnan([mean["low"], mean["high"]]).all()


def test_groups_are_kept_apart_and_sorted():
    table = pd.concat([seeds([0.1, 0.3], [0, 0], epoch=2.0), seeds([0.9], [0], epoch=0.5)])
    mean = seed_means(table, ["epoch"])
    assert mean["epoch"].tolist() == [0.5, 2.0]
    assert mean["value"].tolist() == pytest.approx([0.9, 0.2])


@pytest.mark.parametrize("number", [2, 3, 5])
def test_weighted_means_of_seeds_vary_as_students_t(number):
    values = np.random.default_rng(1).standard_normal(number)
    weights = seed_weights(number, 200_000, seed=0)
    np.testing.assert_allclose(weights.sum(0), 1)
    scale = values.std(ddof=1) / np.sqrt(number)
    found = (values @ weights - values.mean()) / scale
    for share in (0.025, 0.25, 0.75, 0.975):
        expected = stats.t.ppf(share, number - 1)
        assert np.quantile(found, share) == pytest.approx(expected, rel=0.04)


def test_one_seed_has_all_the_weight():
    np.testing.assert_array_equal(seed_weights(1, 7, seed=3), np.ones((1, 7)))


def test_weights_are_drawn_from_the_seed():
    np.testing.assert_array_equal(seed_weights(3, 9, 1), seed_weights(3, 9, 1))
    assert (seed_weights(3, 9, 1) != seed_weights(3, 9, 2)).any()


@pytest.mark.parametrize("number", [3, 6])
def test_intervals_over_examples_and_seeds_cover(number):
    """The truth is 0; examples are shared by the seeds, whose own errors are as large."""
    generator = np.random.default_rng(0)
    trials, resamples = 1500, 400
    weights = seed_weights(number, resamples, seed=0)
    values = generator.normal(0, 0.05, (trials, 1)) + generator.normal(0, 0.05, (trials, number))
    halves = [1.96 * 0.05] * number
    tables = [seeds(list(value), halves).assign(trial=trial) for trial, value in enumerate(values)]
    mean = seed_means(pd.concat(tables), ["trial"])
    by_table = ((mean["low"] < 0) & (mean["high"] > 0)).mean()
    of_examples = generator.normal(0, 0.05, (trials, resamples))
    low, high = percentile_interval(values @ weights + of_examples)
    by_weights = ((low < 0) & (high > 0)).mean()
    # One standard error of a share of 0.95 in 1,500 trials is 0.006.
    assert 0.935 < by_weights < 0.985
    assert 0.935 < by_table < 0.985
