"""How often the intervals of bins, lines and crossings cover a known truth."""

from itertools import pairwise

import numpy as np
import pytest
from distance_cases import (
    agreeing,
    sort,
)

from stiffness.measures.bootstrap import draw_weights
from stiffness.measures.distance import (
    ClassPairs,
    ResampledPairs,
)
from stiffness.measures.lengths import distance_stiffness

DRAWS, RATE = 250, 0.95
# Three binomial standard deviations: 0.909 to 0.991.
TOLERANCE = 3 * (RATE * (1 - RATE) / DRAWS) ** 0.5
EXAMPLES = 40


@pytest.fixture(scope="module")
def coverage() -> dict[str, float]:
    """How often intervals cover the truth for stiffness 0.6 - 0.5 d with the noise of examples.

    Example i has a height a_i and a place u_i; the pair's distance is (u_i + u_j) / 2 + 0.2 and its
    stiffness 0.6 - 0.5 d + a_i + a_j + noise of its own, so that pairs which share an example are
    dependent. Least squares are unbiased for the line, whose zero is 1.2; the least-squares
    antitonic fit is of the same function.
    """
    generator = np.random.default_rng(0)
    weights = draw_weights(np.zeros(EXAMPLES, int), 200, 0)
    first, second = np.triu_indices(EXAMPLES, k=1)
    edges = np.linspace(0.2, 1.8, 5)
    covered = dict.fromkeys(("line", "slope", "monotone", *range(4)), 0)
    for _ in range(DRAWS):
        places = generator.uniform(0, 1.6, EXAMPLES)
        heights = generator.normal(0, 0.1, EXAMPLES)
        pairs = sort(first, second, (places[first] + places[second]) / 2 + 0.2)
        noise = heights[pairs.first] + heights[pairs.second]
        noise += generator.normal(0, 0.3, len(noise))
        made = distance_stiffness(
            ResampledPairs(pairs, edges, weights), 0.6 - 0.5 * pairs.distances + noise
        )
        for length in made.lengths[:2]:
            covered[length.estimator] += length.low <= 1.2 <= length.high
        covered["slope"] += made.lengths[0].slope_low <= -0.5 <= made.lengths[0].slope_high
        # A sum of two uniform numbers has a triangular density; a bin's mean follows from it.
        for number, (low, high) in enumerate(pairwise(edges)):
            grid = np.linspace(low, high, 2001)
            density = 0.8 - np.abs(grid - 1.0)
            true = 0.6 - 0.5 * np.average(grid, weights=density)
            covered[number] += made.bins.low[number] <= true <= made.bins.high[number]
    return {name: hits / DRAWS for name, hits in covered.items()}


@pytest.mark.parametrize("name", ["line", "slope", "monotone", *range(4)])
def test_intervals_cover_the_truth_in_95_percent_of_draws(coverage, name):
    assert abs(coverage[name] - RATE) <= TOLERANCE


def anti_stiff_coverage(
    each: int, share: float, rule: str, same_set: bool, draws: int
) -> tuple[float, float]:
    """How often intervals of bins, and of the area, cover the truth where few examples disagree.

    A pair is anti-stiff where one of its two examples is; two such are stiff (product), or not
    (any). Bins without an interval do not count.
    """
    generator = np.random.default_rng(each)
    truth = (1 - 2 * share) ** 2 if rule == "product" else 2 * (1 - share) ** 2 - 1
    whole, strata = agreeing(each, same_set)
    weights, edges, radius = draw_weights(strata, 200, 0), np.linspace(0, 1.8, 7), 1.4
    hits, known, areas = 0, 0, 0
    for _ in range(draws):
        places = generator.uniform(0, 1.6, len(strata))
        stiff = np.where(generator.random(len(strata)) < share, -1.0, 1.0)
        distances = (places[whole.first] + places[whole.second]) / 2 + 0.1
        order = np.argsort(distances)
        pairs = ClassPairs(
            whole.first[order], whole.second[order], distances[order], same_set=same_set
        )
        a, b = stiff[pairs.first], stiff[pairs.second]
        values = a * b if rule == "product" else np.minimum(a, b)
        made = distance_stiffness(ResampledPairs(pairs, edges, weights, radius), values)
        bins, area = made.bins, made.of("area")
        hits += int(((bins.low <= truth) & (truth <= bins.high)).sum())
        known += int(np.isfinite(bins.low).sum())
        # The curve falls from 1 at distance 0 to the first bin.
        true_area = truth + (1 - truth) * bins.distance[0] / 2 / radius
        areas += area.low <= true_area <= area.high
    return hits / known, areas / draws


def test_ten_draws_of_bins_cover_the_truth_where_few_examples_are_anti_stiff():
    # Percentiles alone cover it in about 0.3 of the bins: where all pairs agree they have no width.
    assert min(anti_stiff_coverage(10, 0.02, "product", False, 10)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("same_set", [True, False])
@pytest.mark.parametrize("rule", ["product", "any"])
@pytest.mark.parametrize("share", [0.02, 0.05])
@pytest.mark.parametrize("each", [10, 50])
def test_bins_cover_the_truth_where_a_few_examples_are_anti_stiff(each, share, rule, same_set):
    # In 200 draws an area's coverage of 0.95 shows as less than 0.90 once in 500 times.
    coverage = anti_stiff_coverage(each, share, rule, same_set, 200)
    assert min(coverage) >= 0.9, coverage
