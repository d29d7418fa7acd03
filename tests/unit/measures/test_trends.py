"""Page's trend test with seeds as blocks, and the numbers of one run that it takes."""

import math
from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from stiffness.measures.seeds import student_interval
from stiffness.measures.trends import kendall_tau, page_trend


def test_tau_is_kendalls():
    values = np.array([0.3, 0.1, 0.9, 0.7, 0.8])
    assert kendall_tau(values) == pytest.approx(stats.kendalltau(np.arange(5), values).statistic)
    assert kendall_tau(values[::-1]) == -kendall_tau(values)


def test_no_crossing_is_the_largest_and_equal_to_itself():
    assert kendall_tau(np.array([1.0, 2.0, np.inf])) == 1
    assert kendall_tau(np.array([np.inf, np.inf])) == 0
    assert kendall_tau(np.array([1.0, np.inf, np.inf])) == pytest.approx(2 / 3)
    assert math.isnan(kendall_tau(np.array([1.0])))


def literal_page(values: np.ndarray) -> float:
    """P(L >= that of the table) over all orders of the rows' ranks, for a rise."""
    ranks = stats.rankdata(values, axis=1)
    places = np.arange(1, values.shape[1] + 1)
    statistic = (ranks @ places).sum()
    of_row = [float(np.dot(one, places)) for one in permutations(places)]
    sums = np.array([0.0])
    for _ in values:
        sums = np.add.outer(sums, of_row).ravel()
    return float(np.mean(sums >= statistic - 1e-9))


@pytest.mark.parametrize("shape", [(2, 3), (3, 4)])
def test_p_values_are_those_of_all_orders(shape):
    values = np.random.default_rng(1).normal(size=shape) + 0.5 * np.arange(shape[1])
    trend = page_trend(values)
    assert trend.p_rises == pytest.approx(literal_page(values))
    assert trend.p_falls == pytest.approx(literal_page(-values))
    assert trend.p_rises < 0.5 < trend.p_falls


def test_only_the_order_within_a_row_counts():
    values = np.array([[3.0, 2.0, 1.0], [30.0, 20.0, 10.0], [0.3, 0.2, 0.1]])
    trend = page_trend(values)
    assert trend.tau == -1
    assert (trend.low, trend.high) == (-1, -1)
    assert trend.p_falls == pytest.approx((1 / 6) ** 3)
    assert trend.p_rises == 1
    infinite = values.copy()
    infinite[:, 0] = np.inf
    assert page_trend(infinite) == trend


def test_taus_interval_is_students_and_within_1():
    values = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]])
    trend = page_trend(values)
    taus = np.array([1, 1 / 3, 1])
    mean, low, _ = student_interval(taus)
    assert trend.tau == pytest.approx(mean)
    assert trend.low == pytest.approx(low)
    assert trend.high == 1
    assert page_trend(-values).low == -1


@pytest.mark.parametrize("shape", [(1, 4), (3, 2)])
def test_one_seed_or_two_columns_have_no_test(shape):
    trend = page_trend(np.arange(shape[0] * shape[1], dtype=float).reshape(shape))
    assert trend.tau == 1
    assert math.isnan(trend.p_falls)
    assert math.isnan(trend.p_rises)
    assert math.isnan(trend.low) == (shape[0] == 1)


def test_an_undefined_value_leaves_no_trend():
    values = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    assert np.isnan(list(vars(page_trend(values)).values())).all()


def test_the_students_interval_is_scipys():
    values = np.array([1.0, 2.0, 4.0, 4.5])
    mean, low, high = student_interval(values)
    expected = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean())
    np.testing.assert_allclose([low, high], expected)
    wide = student_interval(values, 0.99)
    np.testing.assert_allclose(
        wide[1:], stats.t.interval(0.99, 3, values.mean(), stats.sem(values))
    )


@pytest.mark.parametrize("values", [[2.0], [1.0, np.inf], [np.inf, np.inf]])
def test_one_run_or_an_infinite_one_has_no_interval(values):
    mean, low, high = student_interval(np.array(values))
    assert mean == values[-1]
    assert math.isnan(low)
    assert math.isnan(high)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "least_power"), [(3, 0.50), (5, 0.76)])
def test_size_and_power_of_the_test_over_learning_rates(seeds, least_power):
    """Five rates; a trend of half a standard deviation per step. The size is below 5 % because
    exact p-values are discrete; bounds leave three standard errors of 1,000 tables."""
    generator = np.random.default_rng(0)
    steps = -0.5 * np.arange(5)
    errors, found = 0, 0
    for _ in range(1000):
        noise = generator.normal(size=(seeds, 5)) + generator.normal(size=(seeds, 1))
        errors += page_trend(noise).p_falls <= 0.05
        found += page_trend(noise + steps).p_falls <= 0.05
    assert errors / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
    assert found / 1000 >= least_power
