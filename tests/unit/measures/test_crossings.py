"""The critical length: where a line or a falling curve reaches 0 (sections 4.4 and 4.5)."""

import numpy as np
import pytest
from distance_cases import (
    MODES,
    STRATA,
    complete,
    critical_length,
    literal_resamples,
    random_pairs,
    sort,
)
from sklearn.isotonic import IsotonicRegression

from stiffness.measures.bootstrap import draw_weights, percentile_interval
from stiffness.measures.distance import (
    BEYOND,
    ESTIMATORS,
    EXTRAPOLATED,
    MEASURED,
    NONE,
    ClassPairs,
)


def test_a_crossing_within_the_data_is_measured():
    pairs = complete(6)
    fit = critical_length(pairs, 0.6 - 0.5 * pairs.distances)
    assert fit.crossing == MEASURED
    assert fit.value == pytest.approx(1.2, rel=1e-12)
    assert (fit.low, fit.high) == (pytest.approx(1.2, rel=1e-5), pytest.approx(1.2, rel=1e-5))
    assert (fit.slope, fit.intercept) == (pytest.approx(-0.5), pytest.approx(0.6))
    assert fit.max_distance == pairs.distances.max() > 1.2
    assert fit.num_pairs == 15


def test_a_crossing_at_the_farthest_pair_is_measured():
    pairs = complete(7, np.arange(12, 33) / 32)
    fit = critical_length(pairs, 1 - pairs.distances)
    assert fit.value == 1.0
    assert fit.crossing == MEASURED


def test_a_crossing_beyond_the_data_is_extrapolated():
    pairs = complete(6)
    fit = critical_length(pairs, 0.9 - 0.5 * pairs.distances)
    assert fit.crossing == EXTRAPOLATED
    assert fit.value == pytest.approx(1.8, rel=1e-12)
    assert fit.max_distance < 1.8


def test_a_crossing_nearer_than_the_nearest_pair_is_not_measured():
    # Every pair is below 0: no distance at which stiffness reaches 0 was seen.
    pairs = complete(6, np.linspace(0.3, 1.4, 15))
    fit = critical_length(pairs, 0.1 - pairs.distances)
    assert fit.crossing != MEASURED


NO_CROSSING = {
    "rising": lambda x: 0.1 + 0.5 * x,
    "rising from below": lambda x: -0.5 + 0.5 * x,
    "flat": lambda x: np.full_like(x, 0.3),
    "flat at 0": np.zeros_like,
    "flat at 1": np.ones_like,
    "flat to 1e-16": lambda x: 0.3 - 1e-16 * np.arange(len(x)),
    "1e-16 throughout": lambda x: 1e-16 * (1 - x),
    "flat to float32": lambda x: 0.3 - 3e-8 * x,
    "negative and falling": lambda x: -0.2 - 0.3 * x,
    "negative and flat": lambda x: np.full_like(x, -0.2),
    "noise": lambda x: 0.5 + np.random.default_rng(0).normal(scale=0.3, size=len(x)),
}


@pytest.mark.parametrize("name", NO_CROSSING)
def test_no_crossing_is_undefined(name):
    pairs = complete(7)
    fit = critical_length(pairs, NO_CROSSING[name](pairs.distances))
    assert fit.crossing == NONE
    assert np.isnan([fit.value, fit.low, fit.high]).all()
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert fit.num_pairs == 21
    # The monotone fit never invents one either.
    assert critical_length(pairs, NO_CROSSING[name](pairs.distances), "monotone").crossing in (
        {BEYOND, MEASURED} if name == "noise" else {BEYOND, NONE}
    )


def test_a_fit_flat_to_rounding_has_no_crossing_at_2e15():
    # As the sign metric gave it on real data: 1 everywhere, and a slope of -5e-16.
    pairs = complete(30)
    values = 1 - 5e-16 * np.arange(len(pairs.distances))
    slope, intercept = np.polyfit(pairs.distances, values, 1)
    assert slope == 0 or abs(intercept / slope) > 1e10
    line = critical_length(pairs, values)
    assert line.crossing == NONE
    assert not np.isfinite(line.replicates).any()
    monotone = critical_length(pairs, values, "monotone")
    assert monotone.crossing == BEYOND
    assert np.isnan(monotone.value)


def test_resamples_flat_to_rounding_have_no_crossing_either():
    # All is 1 but the pairs of example 0: without it a line is flat, and float32 must not tilt it.
    pairs = complete(12, seed=1)
    values = np.where((pairs.first == 0) & (pairs.distances > 1), 0.9, 1)
    line = critical_length(pairs, values)
    without = draw_weights(np.zeros(12, int), 60, 0)[0] == 0
    assert without.sum() > 10
    assert np.isinf(line.replicates[without]).all()


def test_a_slope_that_may_be_zero_has_no_crossing():
    # It falls, but its interval reaches 0.
    pairs, _ = random_pairs("train-val")
    noise = np.random.default_rng(4).normal(size=len(pairs.distances))
    fit = critical_length(pairs, 0.5 - 0.1 * pairs.distances + noise)
    assert fit.slope < 0 < fit.slope_high
    assert fit.crossing == NONE
    assert np.isnan(fit.value)


FEW = {
    "no pair": complete(1),
    "one pair": complete(2, np.array([0.5])),
    "two pairs": ClassPairs(np.array([0, 0]), np.array([1, 2]), np.array([0.5, 0.8])),
    "one distance": complete(4, np.full(6, 0.7)),
}


@pytest.mark.parametrize("name", FEW)
def test_too_few_pairs_have_no_line(name):
    pairs = FEW[name]
    number = len(pairs.distances)
    fit = critical_length(pairs, np.linspace(0.9, 0.1, number))
    assert fit.crossing == NONE
    assert np.isnan([fit.value, fit.low, fit.high, fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high]).all()
    assert np.isnan(fit.replicates).all()
    assert fit.num_pairs == number
    farthest = pairs.distances.max() if number else np.nan
    assert fit.max_distance == pytest.approx(farthest, nan_ok=True)


@pytest.mark.parametrize("seed", [1, 6, 9, 17])
def test_three_pairs_have_a_line_without_an_interval(seed):
    # Two of three examples are one pair, and one pair has no slope.
    pairs = complete(3, seed=seed)
    values = 0.8 - pairs.distances + np.random.default_rng(seed).normal(scale=0.01, size=3)
    fit = critical_length(pairs, values)
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high, fit.low, fit.high]).all()


def test_resamples_at_one_distance_have_no_line():
    # Only the pairs of example 0 are at other distances: without it there is no slope.
    pairs = complete(5)
    distances = np.where(pairs.first == 0, pairs.distances, 0.7)
    pairs = sort(pairs.first, pairs.second, distances)
    values = 0.8 - pairs.distances + np.random.default_rng(0).normal(scale=0.01, size=10)
    fit = critical_length(pairs, values)
    without = draw_weights(np.zeros(5, int), 60, 0)[0] == 0
    assert without.any()
    assert np.isnan(fit.replicates[without]).all()
    assert np.isfinite([fit.slope, fit.intercept]).all()
    assert np.isnan([fit.slope_low, fit.slope_high, fit.low, fit.high]).all()


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_the_line_is_that_of_polyfit(mode, seed):
    pairs, values = random_pairs(mode, seed)
    fit = critical_length(pairs, values)
    slope, intercept = np.polyfit(pairs.distances, values, 1)
    assert fit.slope == pytest.approx(slope, rel=1e-9)
    assert fit.intercept == pytest.approx(intercept, rel=1e-9)
    assert fit.value == pytest.approx(-intercept / slope, rel=1e-9)


def antitonic_zero(distances: np.ndarray, values: np.ndarray) -> float:
    """Where scikit-learn's fit stops being above 0: half-way between two distances, 0 or inf."""
    if len(distances) == 0:
        return np.nan
    fit = IsotonicRegression(increasing=False).fit(distances, values)
    levels = np.unique(distances)
    above = fit.predict(levels) > 1e-9
    if not above.any():
        return 0.0
    last = int(above.sum()) - 1
    return np.inf if above.all() else float(levels[last : last + 2].mean())


@MODES
@pytest.mark.parametrize("seed", range(3))
def test_replicates_of_crossings_are_those_of_literal_resamples(mode, seed):
    pairs, values = random_pairs(mode, seed)
    slopes, crossings, zeros = [], [], []
    for distances, found in literal_resamples(pairs, values):
        if len(np.unique(distances)) < 2:
            slopes.append(np.nan)
            crossings.append(np.nan)
        else:
            slope, intercept = np.polyfit(distances, found, 1)
            slopes.append(slope)
            crossings.append(max(-intercept / slope, 0) if slope < 0 else np.inf)
        zeros.append(antitonic_zero(distances, found))
    line = critical_length(pairs, values, strata=STRATA)
    ends = percentile_interval(np.array(slopes))
    assert np.isfinite(ends).all()
    np.testing.assert_allclose([line.slope_low, line.slope_high], ends, rtol=1e-4)
    np.testing.assert_allclose(line.replicates, crossings, rtol=1e-4)
    np.testing.assert_allclose(
        [line.low, line.high], percentile_interval(np.array(crossings)), rtol=1e-4
    )
    monotone = critical_length(pairs, values, "monotone", strata=STRATA)
    np.testing.assert_allclose(monotone.replicates, zeros, rtol=1e-6)
    assert {0 < zero < np.inf for zero in zeros} >= {True}


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_the_monotone_crossing_is_that_of_an_antitonic_fit(seed, rounded):
    generator = np.random.default_rng(seed)
    pairs = complete(12, generator.uniform(0.1, 1.4, 66))
    if rounded:  # many pairs at one distance
        pairs = sort(pairs.first, pairs.second, np.round(pairs.distances, 1))
    values = 0.5 - generator.uniform(0, 1) * pairs.distances + generator.normal(0, 0.5, 66)
    fit = critical_length(pairs, values, "monotone")
    expected = antitonic_zero(pairs.distances, values)
    if np.isinf(expected):
        assert fit.crossing == BEYOND
        assert np.isnan(fit.value)
    else:
        assert fit.crossing == MEASURED
        assert fit.value == pytest.approx(expected, rel=1e-12)


def test_pairs_at_one_distance_are_one_in_any_order():
    distances = np.repeat([0.2, 0.6, 1.0], [5, 5, 5])
    values = np.concatenate([np.full(5, 0.5), [-1, -1, 1, 1, 1], np.full(5, -0.5)])
    pairs = complete(6, distances)
    expected = critical_length(pairs, values, "monotone")
    assert expected.value == 0.8
    turned = values.copy()
    turned[5:10] = turned[5:10][::-1]
    assert critical_length(pairs, turned, "monotone").value == 0.8


def test_four_kinds_of_crossing_are_kept_apart():
    pairs = complete(20)
    x = pairs.distances
    found = {
        name: tuple(critical_length(pairs, values, one).crossing for one in ESTIMATORS[:2])
        for name, values in {
            "inside": 0.5 - 0.5 * x,
            "outside": 0.9 - 0.5 * x,
            "flat": np.ones_like(x),
            "below": -0.2 - 0.5 * x,
        }.items()
    }
    assert found == {
        "inside": (MEASURED, MEASURED),
        "outside": (EXTRAPOLATED, BEYOND),
        "flat": (NONE, BEYOND),
        "below": (NONE, NONE),
    }


def test_beyond_the_data_xi_has_a_lower_bound_and_no_upper_one():
    pairs = complete(25)
    noise = np.random.default_rng(0).normal(scale=0.3, size=len(pairs.distances))
    fit = critical_length(pairs, 0.85 - 0.5 * pairs.distances + noise, "monotone", resamples=200)
    assert fit.crossing == BEYOND
    assert np.isnan(fit.value)
    assert 0.5 < fit.low <= fit.max_distance
    assert fit.high == np.inf


def test_a_monotone_crossing_before_the_last_pair_lies_in_its_interval():
    # The last pair alone is below 0, by less than one of the others of its run of ten is above it:
    # few resamples cross within the data.
    pairs = complete(100)
    values = np.ones(len(pairs.distances))
    values[-1] = -0.1
    fit = critical_length(pairs, values, "monotone")
    assert fit.crossing == MEASURED
    assert fit.value == pytest.approx(pairs.distances[-2:].mean())
    assert np.isinf(fit.replicates).mean() > 0.975
    assert fit.low <= fit.value < fit.high


def test_where_no_resample_crosses_the_farthest_pair_is_the_lower_bound():
    pairs = complete(9)
    fit = critical_length(pairs, np.ones_like(pairs.distances), "monotone")
    assert np.isinf(fit.replicates).all()
    assert (fit.low, fit.high) == (fit.max_distance, np.inf)


def test_stiffness_below_0_has_replicates_at_0():
    pairs = complete(8)
    for estimator in ("line", "monotone"):
        fit = critical_length(pairs, -0.2 - 0.5 * pairs.distances, estimator)
        assert fit.crossing == NONE
        assert (fit.replicates == 0).all()


@pytest.mark.parametrize("scale", [0.5, 0.01, 1000.0])
def test_the_crossing_does_not_depend_on_the_scale_of_stiffness(scale):
    pairs, values = random_pairs("train-train")
    fit, scaled = critical_length(pairs, values), critical_length(pairs, scale * values)
    assert scaled.crossing == fit.crossing == MEASURED
    for name in ("value", "low", "high"):
        assert getattr(scaled, name) == pytest.approx(getattr(fit, name), rel=1e-4)
    for name in ("slope", "slope_low", "slope_high", "intercept"):
        assert getattr(scaled, name) == pytest.approx(scale * getattr(fit, name), rel=1e-4)


def test_the_crossing_scales_with_distance():
    pairs, values = random_pairs("train-train")
    half = ClassPairs(pairs.first, pairs.second, pairs.distances / 2)
    fit, scaled = critical_length(pairs, values), critical_length(half, values)
    assert scaled.value == pytest.approx(fit.value / 2, rel=1e-9)
    assert scaled.high == pytest.approx(fit.high / 2, rel=1e-4)
