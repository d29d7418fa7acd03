"""Draws of examples and percentile intervals."""

import numpy as np
import pytest

from stiffness.measures.bootstrap import draw_weights, lone_examples, percentile_interval

STRATA = np.array([3, 3, 3, 0, 7, 7, 0, 0, 3, 5])


def test_every_resample_has_one_example_fewer_of_each_stratum_than_there_are():
    weights = draw_weights(STRATA, 200, 0)
    assert weights.shape == (10, 200)
    assert weights.dtype == np.float32
    assert (weights == np.round(weights)).all()
    for stratum in np.unique(STRATA):
        members = stratum == STRATA
        assert (weights[members].sum(0) == members.sum() - 1).all()


def test_examples_are_drawn_evenly_and_with_replacement():
    weights = draw_weights(np.zeros(5, int), 20_000, 1)
    # Binomial(4, 1/5): variance 0.64; four standard errors of 20,000 resamples.
    np.testing.assert_allclose(weights.mean(1), 0.8, atol=4 * (0.64 / 20_000) ** 0.5)
    np.testing.assert_allclose((weights == 0).mean(1), 0.8**4, atol=0.015)
    # Two of them: covariance -4/25.
    assert np.cov(weights[0], weights[1])[0, 1] == pytest.approx(-0.16, abs=0.02)


def test_the_mean_of_few_examples_varies_as_its_standard_error_says():
    values = np.array([0.1, 0.9, 0.3, 0.8])
    weights = draw_weights(np.zeros(4, int), 20_000, 2)
    means = values @ weights / weights.sum(0)
    assert means.std() == pytest.approx(values.std(ddof=1) / 2, rel=0.02)


def test_draws_follow_from_the_seed_and_the_strata_alone():
    weights = draw_weights(STRATA, 50, 7)
    np.testing.assert_array_equal(draw_weights(STRATA, 50, 7), weights)
    assert (draw_weights(STRATA, 50, 8) != weights).any()


def test_an_example_alone_in_its_stratum_is_known():
    found = lone_examples(draw_weights(STRATA, 60, 0))
    assert np.flatnonzero(found).tolist() == [9]


def test_the_interval_is_numpys_percentiles():
    replicates = np.random.default_rng(0).normal(size=(4, 3, 205))
    low, high = percentile_interval(replicates)
    expected = np.quantile(replicates, [0.025, 0.975], axis=-1)
    np.testing.assert_allclose([low, high], expected, rtol=1e-12)
    assert low.shape == (4, 3)


def test_the_order_of_resamples_does_not_matter_and_they_stay_as_they_were():
    replicates = np.random.default_rng(0).normal(size=50)
    before = replicates.copy()
    expected = percentile_interval(replicates)
    assert percentile_interval(replicates[::-1]) == expected
    np.testing.assert_array_equal(replicates, before)


@pytest.mark.parametrize(
    ("undefined", "defined"), [(0, True), (9, True), (10, False), (100, False)]
)
def test_an_interval_needs_more_than_nine_tenths_of_the_resamples(undefined, defined):
    replicates = np.arange(100.0)
    replicates[:undefined] = np.nan
    low, high = percentile_interval(replicates)
    if defined:
        expected = np.quantile(replicates[undefined:], [0.025, 0.975])
        np.testing.assert_allclose([low, high], expected, rtol=1e-12)
    else:
        assert np.isnan([low, high]).all()


@pytest.mark.parametrize(("infinite", "open_end"), [(2, False), (3, True), (50, True)])
def test_an_interval_is_open_where_more_than_a_fortieth_is_infinite(infinite, open_end):
    replicates = np.arange(101.0)  # the ends lie at the places 2.5 and 97.5
    replicates[-infinite:] = np.inf
    low, high = percentile_interval(replicates)
    assert low == pytest.approx(2.5)
    assert high == pytest.approx(np.inf if open_end else 97.5)
    low, high = percentile_interval(-replicates)
    assert low == pytest.approx(-np.inf if open_end else -97.5)
    assert high == pytest.approx(-2.5)


def test_all_infinite_and_both_infinities():
    assert percentile_interval(np.full(40, np.inf)) == (np.inf, np.inf)
    assert percentile_interval(np.repeat([-np.inf, np.inf], 50)) == (-np.inf, np.inf)
