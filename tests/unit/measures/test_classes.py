"""The class stiffness matrix, its summaries and their intervals, against the obvious loops."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from scipy.stats import binomtest

from stiffness.data.hierarchy import Hierarchy
from stiffness.measures.bootstrap import draw_weights, percentile_interval, unanimity_bound
from stiffness.measures.classes import ClassStiffness, class_stiffness
from stiffness.measures.pairs import PAIR_MODES, Pairs, select_pairs

SIZES_TRAIN, SIZES_VALIDATION = (3, 5, 4), (4, 3, 6)
RESAMPLES = 40


def groups_of(num_classes: int) -> dict[str, np.ndarray]:
    """Classes 0 and 1 are one super-class, 2 another of the same half, 3 and 4 the other half."""
    tree = {"ab": ["0", "1"], "c": ["2"], "de": ["3", "4"]}
    names = [str(number) for number in range(num_classes)]
    tree = {group: [name for name in members if name in names] for group, members in tree.items()}
    return Hierarchy(tree, {"left": ["ab", "c"], "right": ["de"]}).cells(names)


@dataclass
class Sample:
    """What the gradient room hands over, and the pairs that count, by loops."""

    cosines: np.ndarray
    log_norms: np.ndarray
    classes: np.ndarray
    num_train: int
    num_classes: int
    known: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    def weights(self, resamples: int = RESAMPLES) -> np.ndarray:
        strata = 2 * self.classes + (np.arange(len(self.classes)) < self.num_train)
        return draw_weights(strata, resamples, 0)

    def stiffness(
        self, mode: str, metric: str = "cosine", weights: np.ndarray | None = None
    ) -> ClassStiffness:
        pairs = select_pairs(
            self.cosines, self.log_norms, self.classes, self.num_train, mode, metric
        )
        weights = self.weights() if weights is None else weights
        sides = {"train": weights[: self.num_train], "val": weights[self.num_train :]}
        row, column = mode.split("-")
        groups = groups_of(self.num_classes)
        return class_stiffness(pairs, self.num_classes, sides[row], sides[column], groups)

    def examples(self, mode: str) -> tuple[list[int], list[int]]:
        train = list(range(self.num_train))
        validation = list(range(self.num_train, len(self.classes)))
        return {
            "train-train": (train, train),
            "train-val": (train, validation),
            "val-val": (validation, validation),
        }[mode]

    def cells(self, mode: str, metric: str, drawn: np.ndarray | None = None) -> dict:
        """The values of the pairs of every two classes.

        Of a resample, each example stands in the lists as often as it was ``drawn``.
        """
        cells = {(a, b): [] for a in range(self.num_classes) for b in range(self.num_classes)}
        rows, columns = self.examples(mode)
        if drawn is not None:
            rows, columns = np.repeat(rows, drawn[rows]), np.repeat(columns, drawn[columns])
        for i in rows:
            for j in columns:
                if i == j:
                    continue
                value, zero = self.cosines[i, j], -np.inf in self.log_norms[[i, j]]
                if metric == "sign":
                    value = 0.0 if zero else np.sign(value)
                elif zero:
                    continue
                cells[self.classes[i], self.classes[j]].append(float(value))
        return cells

    def matrix(self, mode: str, metric: str, drawn: np.ndarray | None = None) -> np.ndarray:
        matrix = np.full((self.num_classes, self.num_classes), np.nan)
        for cell, values in self.cells(mode, metric, drawn).items():
            if values:
                matrix[cell] = sum(values) / len(values)
        return matrix

    def resampled(self, mode: str, metric: str) -> np.ndarray:
        """[C, C, R]: the matrix of every resample, with its examples written out."""
        if (mode, metric) not in self.known:
            drawn = self.weights().astype(int).T
            matrices = [self.matrix(mode, metric, one) for one in drawn]
            self.known[mode, metric] = np.stack(matrices, axis=-1)
        return self.known[mode, metric].copy()


def make_sample(
    seed: int,
    sizes_train: tuple[int, ...] = SIZES_TRAIN,
    sizes_validation: tuple[int, ...] = SIZES_VALIDATION,
    zero: tuple[int, ...] = (),
) -> Sample:
    generator = np.random.default_rng(seed)
    train = np.repeat(np.arange(len(sizes_train)), sizes_train)
    validation = np.repeat(np.arange(len(sizes_validation)), sizes_validation)
    classes = np.concatenate([train, validation])
    gradients = generator.normal(size=(len(classes), 4)) + generator.normal(size=(9, 4))[classes]
    gradients /= np.linalg.norm(gradients, axis=1, keepdims=True)
    cosines, log_norms = gradients @ gradients.T, generator.normal(size=len(classes))
    for example in zero:
        cosines[example] = cosines[:, example] = np.nan
        log_norms[example] = -np.inf
    return Sample(cosines, log_norms, classes, len(train), len(sizes_train))


SAMPLES = {
    "seed 0": lambda: make_sample(0),
    "seed 1": lambda: make_sample(1),
    "seed 2": lambda: make_sample(2),
    # One example of class 0 (three left in validation), one of class 1 in training.
    "zero gradients": lambda: make_sample(3, (4, 5, 4), zero=(5, 13)),
    "a class with one example": lambda: make_sample(4, (4, 1, 5), (3, 1, 4)),
    "an empty class": lambda: make_sample(5, (4, 0, 5), (3, 0, 4)),
    "a class in one set only": lambda: make_sample(6, (4, 0, 5), (3, 4, 4)),
    "a class with two examples": lambda: make_sample(7, (4, 2, 5), (3, 2, 4)),
    "five classes": lambda: make_sample(8, (2, 3, 3, 2, 3), (3, 2, 3, 3, 2)),
}


@pytest.fixture(params=SAMPLES, scope="module")
def sample(request) -> Sample:
    return SAMPLES[request.param]()


def mean_over(matrix: np.ndarray, resampled: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """[R]: of the ``cells`` of each resample; NaN where one of the sample's is in no resample."""
    never = np.isnan(resampled).all(axis=-1) & np.isfinite(matrix)
    if never[cells].any():
        return np.full(resampled.shape[-1], np.nan)
    return np.array(
        [
            one[np.isfinite(one)].mean() if np.isfinite(one).any() else np.nan
            for one in resampled[cells].T
        ]
    )


both_metrics = pytest.mark.parametrize("metric", ["sign", "cosine"])
all_modes = pytest.mark.parametrize("mode", PAIR_MODES)


@all_modes
@both_metrics
def test_means_over_pairs(sample, mode, metric):
    stiffness, matrix = sample.stiffness(mode, metric), sample.matrix(mode, metric)
    np.testing.assert_allclose(stiffness.matrix, matrix, rtol=1e-12, atol=1e-14)
    cells = sample.cells(mode, metric)
    # (i, j) and (j, i) are one pair of one class
    labels = range(sample.num_classes)
    counts = np.array([[len(cells[a, b]) for b in labels] for a in labels])
    if mode != "train-val":
        counts = np.where(np.eye(len(labels), dtype=bool), counts / 2, counts)
    np.testing.assert_array_equal(stiffness.num_pairs, counts)


@all_modes
@both_metrics
def test_within_and_between_are_means_over_cells(sample, mode, metric):
    stiffness, matrix = sample.stiffness(mode, metric), sample.matrix(mode, metric)
    labels = range(sample.num_classes)
    diagonal = [matrix[a, a] for a in labels]
    others = [matrix[a, b] for a in labels for b in labels if a != b]
    assert stiffness.within.value == pytest.approx(np.nanmean(diagonal), rel=1e-12)
    assert stiffness.between.value == pytest.approx(np.nanmean(others), rel=1e-12)
    cells = sample.cells(mode, metric)
    ordered = 1 if mode == "train-val" else 2
    assert stiffness.within.num_pairs * ordered == sum(len(cells[a, a]) for a in labels)
    between = sum(len(cells[c]) for c in cells if c[0] != c[1])
    assert stiffness.between.num_pairs * ordered == between


@all_modes
@both_metrics
def test_replicates_are_the_means_of_literal_resamples(sample, mode, metric):
    stiffness, matrices = sample.stiffness(mode, metric), sample.resampled(mode, metric)
    matrix, diagonal = sample.matrix(mode, metric), np.eye(sample.num_classes, dtype=bool)
    for estimate, cells in ((stiffness.within, diagonal), (stiffness.between, ~diagonal)):
        expected = mean_over(matrix, matrices, cells)
        np.testing.assert_allclose(estimate.replicates, expected, rtol=1e-5, atol=1e-6)
        if abs(estimate.value) < 1:
            low, high = percentile_interval(expected)
            ends = np.minimum(low, estimate.value), np.maximum(high, estimate.value)
            np.testing.assert_allclose([estimate.low, estimate.high], ends, rtol=1e-5, atol=1e-6)
    for found, ends in zip(
        (stiffness.low, stiffness.high), percentile_interval(matrices), strict=True
    ):
        some = np.abs(matrix) < 1
        np.testing.assert_allclose(found[some], ends[some], rtol=1e-5, atol=1e-6)


# Cells (a, b) of two classes of one super-class, and of two super-classes of one half.
SUPER = {(0, 1), (1, 0), (3, 4), (4, 3)}
SUPER_SUPER = {(0, 2), (1, 2), (2, 0), (2, 1)}


@all_modes
@both_metrics
@pytest.mark.parametrize(
    ("name", "members"), [("super_class", SUPER), ("super_super_class", SUPER_SUPER)]
)
def test_groups_are_means_of_their_cells(sample, mode, metric, name, members):
    estimate, matrix = sample.stiffness(mode, metric).groups[name], sample.matrix(mode, metric)
    cells = np.zeros(matrix.shape, bool)
    for cell in members:
        if max(cell) < sample.num_classes:
            cells[cell] = np.isfinite(matrix[cell])
    expected = matrix[cells].mean() if cells.any() else np.nan
    assert estimate.value == pytest.approx(expected, rel=1e-12, nan_ok=True)
    resampled = mean_over(matrix, sample.resampled(mode, metric), cells)
    np.testing.assert_allclose(estimate.replicates, resampled, rtol=1e-5, atol=1e-6)
    pairs = sum(
        len(sample.cells(mode, metric)[cell]) for cell in zip(*np.nonzero(cells), strict=True)
    )
    assert estimate.num_pairs == (pairs if mode == "train-val" else pairs / 2)


@all_modes
def test_groups_of_five_classes_are_defined_and_differ(mode):
    groups = SAMPLES["five classes"]().stiffness(mode).groups
    assert set(groups) == {"super_class", "super_super_class"}
    values = [estimate.value for estimate in groups.values()]
    assert abs(values[0] - values[1]) > 1e-3
    for estimate in groups.values():
        assert np.isfinite(estimate.replicates).all()


@all_modes
def test_intervals_hold_their_values(mode):
    # Guards the comparisons above against NaN on both sides.
    stiffness = make_sample(0, (9, 8, 10), (8, 9, 9)).stiffness(mode)
    for one in (stiffness.within, stiffness.between, stiffness.groups["super_class"]):
        assert one.low < one.value < one.high
    assert (stiffness.low < stiffness.matrix).all()
    assert (stiffness.matrix < stiffness.high).all()


# --- means of exactly 1 and -1 -------------------------------------------------------------------


def unanimous(each: int, sign: float = 1.0) -> Sample:
    """Two classes of ``each`` examples in each set; pairs within a class have ``sign``."""
    classes = np.arange(4 * each) % 2
    cosines = np.where(classes[:, None] == classes, sign, -sign) * 0.5
    return Sample(cosines, np.zeros(4 * each), classes, 2 * each, 2)


@all_modes
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_pairs_that_all_agree_have_an_interval_of_wilsons_type(mode, sign):
    stiffness = unanimous(10, sign).stiffness(mode, "sign")
    # The share q of examples that may disagree although none of 10 does: Wilson's upper end.
    upper = binomtest(0, 10).proportion_ci(method="wilson").high
    for matrix, diagonal, others in (
        (stiffness.matrix, sign, -sign),
        (stiffness.low, min(sign * (1 - 2 * upper) ** 2, sign), None),
        (stiffness.high, max(sign * (1 - 2 * upper) ** 2, sign), None),
    ):
        np.testing.assert_allclose(np.diag(matrix), diagonal, rtol=1e-12)
        if others is not None:
            assert matrix[0, 1] == others
    upper = binomtest(0, 20).proportion_ci(method="wilson").high
    ends = sorted([sign, sign * (1 - 2 * upper) ** 2])
    within = stiffness.within
    assert within.value == sign
    np.testing.assert_allclose([within.low, within.high], ends, rtol=1e-12)
    ends = sorted([-sign, -sign * (1 - 2 * upper) ** 2])
    between = stiffness.between
    np.testing.assert_allclose([between.low, between.high], ends, rtol=1e-12)


@all_modes
def test_three_examples_that_agree_say_too_little(mode):
    stiffness = unanimous(3).stiffness(mode, "sign")
    assert np.isnan(stiffness.low).all()
    assert np.isnan(stiffness.high).all()
    assert (stiffness.matrix == [[1, -1], [-1, 1]]).all()
    assert np.isfinite(unanimous(4).stiffness(mode, "sign").low).all()


def test_the_bound_is_that_of_wilson_for_any_number_of_examples():
    numbers = np.array([1, 3, 4, 10, 500])
    uppers = [binomtest(0, int(n)).proportion_ci(method="wilson").high for n in numbers]
    expected = 1 - 2 * np.array(uppers)
    found = unanimity_bound(numbers)
    assert np.isnan(found).tolist() == [True, True, False, False, False]
    np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-12)


@all_modes
def test_the_share_of_positive_cells_counts_pairs_of_classes(mode):
    classes = np.arange(24) % 3
    signs = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]])  # a 0 is not positive
    sample = Sample(signs[classes][:, classes] * 0.5, np.zeros(24), classes, 12, 3)
    positive = sample.stiffness(mode, "sign").positive
    assert positive.value == pytest.approx(1 / 3)
    assert (positive.low, positive.high) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    between = sample.stiffness(mode, "sign").between
    assert positive.num_pairs == between.num_pairs
    np.testing.assert_allclose(positive.replicates, 1 / 3)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["product", "any"])
@pytest.mark.parametrize("share", [0.02, 0.05])
@pytest.mark.parametrize("each", [10, 50])
def test_cells_cover_the_truth_where_a_few_examples_are_anti_stiff(each, share, rule):
    """A pair is anti-stiff where one of its two examples is; two such are stiff, or not.

    In 400 draws a coverage of 0.95 shows as less than 0.90 once in 10^5 times.
    """
    generator = np.random.default_rng(each)
    both = (1 - share) ** 2
    truth = (1 - 2 * share) ** 2 if rule == "product" else 2 * both - 1
    classes = np.repeat([0, 1], each)
    weights = draw_weights(classes, 200, 0)
    covered = np.zeros((2, 2))
    for _ in range(400):
        stiff = np.where(generator.random(2 * each) < share, -1.0, 1.0)
        least = np.minimum.outer(stiff, stiff)
        values = np.outer(stiff, stiff) if rule == "product" else least
        np.fill_diagonal(values, 0)
        whole = np.ones(2 * each, bool)
        pairs = Pairs(classes, classes, whole, whole, True, values)
        found = class_stiffness(pairs, 2, weights, weights)
        covered += (found.low <= truth) & (truth <= found.high)
    assert (covered / 400).min() >= 0.9, covered / 400


@pytest.mark.slow
@pytest.mark.parametrize("strength", [0.6, 2.0])
def test_the_share_of_positive_cells_covers_a_truth_near_one_half(strength):
    """An interval that reaches to its estimate covers what the percentiles do, and one that is
    centred on it covers less.

    Class means are ``strength`` long in 30 dimensions; the noise of an example is 1 in each. By
    symmetry a cell's sign stiffness has the sign of the product of the two means.
    """
    generator = np.random.default_rng(1)
    classes, whole = np.repeat(np.arange(10), 25), np.ones(250, bool)
    weights, different = draw_weights(classes, 200, 0), ~np.eye(10, dtype=bool)
    covered, outside, draws = np.zeros(3), 0, 150
    for _ in range(draws):
        means = strength * generator.normal(size=(10, 30)) / 30**0.5
        truth = float(((means @ means.T)[different] > 0).mean())
        examples = means[classes] + generator.normal(size=(250, 30))
        values = np.sign(examples @ examples.T)
        np.fill_diagonal(values, 0)
        pairs = Pairs(classes, classes, whole, whole, True, values)
        found = class_stiffness(pairs, 10, weights, weights).positive
        low, high = percentile_interval(found.replicates)
        shift = found.value - np.median(found.replicates)
        outside += not low <= found.value <= high
        ends = np.array([[low, found.low, low + shift], [high, found.high, high + shift]])
        covered += (ends[0] <= truth + 1e-9) & (truth - 1e-9 <= ends[1])
    percentiles, widened, centred = covered / draws
    assert outside / draws < 0.03
    assert 0.9 <= widened <= percentiles + 0.02
    assert centred < widened


@pytest.mark.parametrize("mode", ["train-train", "val-val"])
def test_one_example_has_no_within_class_stiffness(mode):
    stiffness = SAMPLES["a class with one example"]().stiffness(mode)
    assert np.isnan(stiffness.matrix[1, 1])
    assert stiffness.num_pairs[1, 1] == 0
    assert np.isfinite(stiffness.matrix).sum() == 8
    assert stiffness.within.value == pytest.approx(
        (stiffness.matrix[0, 0] + stiffness.matrix[2, 2]) / 2, rel=1e-12
    )
    assert np.isfinite([stiffness.within.low, stiffness.within.high]).all()


def test_what_rests_on_one_example_of_a_class_has_no_interval():
    stiffness = SAMPLES["a class with one example"]().stiffness("train-val")
    assert np.isfinite(stiffness.matrix).all()
    rests = np.zeros((3, 3), bool)
    rests[1] = rests[:, 1] = True
    np.testing.assert_array_equal(np.isnan(stiffness.low), rests)
    np.testing.assert_array_equal(np.isnan(stiffness.high), rests)
    for estimate in (stiffness.within, stiffness.between):
        assert np.isfinite(estimate.value)
        assert np.isnan([estimate.low, estimate.high]).all()


@all_modes
def test_an_empty_class_is_undefined_and_left_out(mode):
    stiffness = SAMPLES["an empty class"]().stiffness(mode)
    undefined = np.zeros((3, 3), bool)
    undefined[1] = undefined[:, 1] = True
    np.testing.assert_array_equal(np.isnan(stiffness.matrix), undefined)
    np.testing.assert_array_equal(stiffness.num_pairs == 0, undefined)
    matrix = stiffness.matrix
    assert stiffness.within.value == pytest.approx((matrix[0, 0] + matrix[2, 2]) / 2, rel=1e-12)
    assert stiffness.between.value == pytest.approx((matrix[0, 2] + matrix[2, 0]) / 2, rel=1e-12)
    for estimate in (stiffness.within, stiffness.between):
        assert np.isfinite([estimate.low, estimate.high]).all()


def test_within_weighs_classes_not_pairs():
    # Ten examples that agree and two that are opposed: 90 pairs against 2.
    cosines = np.zeros((12, 12))
    cosines[:10, :10] = 1
    cosines[10, 11] = cosines[11, 10] = -1
    sample = Sample(cosines, np.zeros(12), np.repeat([0, 1], [10, 2]), 12, 2)
    assert sample.stiffness("train-train").within.value == 0


@pytest.mark.parametrize("mode", ["train-train", "train-val"])
def test_a_class_without_any_gradient_is_undefined(mode):
    sample = make_sample(0, (2, 5, 4), zero=(0, 1))
    stiffness = sample.stiffness(mode)
    assert np.isnan(stiffness.matrix[0]).all()
    assert np.isfinite(stiffness.within.value)
    assert np.isfinite(sample.stiffness(mode, "sign").matrix).all()


def test_no_pair_at_all_is_undefined():
    stiffness = make_sample(0, zero=tuple(range(25))).stiffness("train-val")
    for estimate in (stiffness.within, stiffness.between):
        assert np.isnan([estimate.value, estimate.low, estimate.high]).all()
        assert estimate.num_pairs == 0


def test_one_class_has_no_between():
    stiffness = make_sample(0, (5,), (4,)).stiffness("train-train")
    assert np.isnan(stiffness.between.value)
    assert np.isnan([stiffness.between.low, stiffness.between.high]).all()
    assert np.isfinite([stiffness.within.value, stiffness.within.low]).all()


def test_the_values_do_not_depend_on_the_draws():
    sample = make_sample(0)
    few, many = (
        sample.stiffness("train-val"),
        sample.stiffness("train-val", weights=sample.weights(90)),
    )
    np.testing.assert_array_equal(few.matrix, many.matrix)
    assert few.within.value == many.within.value
    assert few.within.low != many.within.low


DRAWS, RATE = 300, 0.95
# Three binomial standard deviations: 0.912 to 0.988.
TOLERANCE = 3 * (RATE * (1 - RATE) / DRAWS) ** 0.5


@pytest.fixture(scope="module")
def coverage() -> dict[tuple[str, str], float]:
    """How often the intervals cover the truth.

    Gradients are unit vectors in the plane with angles N(mu_class, s^2): independent examples of
    classes a and b have E cos = exp(-s^2) cos(mu_a - mu_b).
    """
    generator = np.random.default_rng(0)
    centers, spread, share = np.array([0.0, 0.7, 1.9, 3.0]), 0.8, 25
    classes = np.tile(np.repeat(np.arange(4), share), 2)
    expected = np.exp(-(spread**2)) * np.cos(centers[:, None] - centers)
    truth = {
        "within": np.diagonal(expected).mean(),
        "between": expected[~np.eye(4, dtype=bool)].mean(),
        "super_class": expected[0, 1],
        "super_super_class": expected[[0, 1], 2].mean(),
    }
    covered = {(mode, name): 0 for mode in PAIR_MODES for name in truth}
    weights = None
    for _ in range(DRAWS):
        angles = generator.normal(centers[classes], spread)
        cosines = np.cos(angles[:, None] - angles)
        sample = Sample(cosines, np.zeros(len(classes)), classes, 4 * share, 4)
        weights = sample.weights(200) if weights is None else weights
        for mode in PAIR_MODES:
            stiffness = sample.stiffness(mode, weights=weights)
            estimates = {"within": stiffness.within, "between": stiffness.between}
            for name, estimate in (estimates | stiffness.groups).items():
                covered[mode, name] += estimate.low <= truth[name] <= estimate.high
    return {key: hits / DRAWS for key, hits in covered.items()}


@all_modes
@pytest.mark.parametrize("name", ["within", "between", "super_class", "super_super_class"])
def test_the_interval_covers_the_truth_in_95_percent_of_draws(coverage, mode, name):
    assert abs(coverage[mode, name] - RATE) <= TOLERANCE
