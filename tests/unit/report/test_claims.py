"""Every rule on invented experiments, on both sides of every bound that it has."""

import doctest
from typing import Any

import numpy as np
import pytest
from invented import AS_CLAIMED, EPOCHS, FALLING, TIME, Invented

from stiffness.report import claims
from stiffness.report.accuracy_claims import still_improving
from stiffness.report.class_claims import OTHERS, departure, epoch_weights, signal_to_noise
from stiffness.report.effects import CLAIMS, CONTRADICTED, SUPPORTED, UNDECIDED, Effect
from stiffness.report.evidence import NotTestable, TooShort
from stiffness.report.length_claims import deciding_estimator
from stiffness.report.verdicts import Judged, judge

NAMES = [one.name for one in CLAIMS]
ARITHMETIC = [f"{name} {arithmetic}" for name in ("C3", "C5") for arithmetic in OTHERS]
INF = np.inf


def judged(name: str, evidence: Invented) -> Judged:
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    (one,) = judge([evidence], ["some"], [claim])
    return one


def verdict(name: str, shape: dict[Any, Any] | None = None, **options: Any) -> str:
    return judged(name, Invented(shape, **options)).verdict


def effects(name: str, shape: dict[Any, Any] | None = None, **options: Any) -> list[Effect]:
    return judged(name, Invented(shape, **options)).effects


def level(key: Any, value: float, step: int) -> dict[Any, Any]:
    """A curve as claimed but for one checkpoint."""
    values = np.array(AS_CLAIMED[key], float)
    values[step] = value
    return {key: values}


SIGN, COSINE = ("within", "sign"), ("within", "cosine")


def ends_at(start: float, end: float, onset_step: int = 4) -> list[float]:
    """From epoch 3, the onset, on a straight way from one value to another."""
    rest = np.linspace(start, end, 10 - onset_step)
    return [start] * onset_step + rest.tolist()


def test_all_claims_of_the_paper_are_there():
    expected = ["C1", "C2", "C3", "C3'", *ARITHMETIC[:3], "C4", "C5", *ARITHMETIC[3:]]
    assert [*expected, *(f"C{number}" for number in range(6, 19))] == NAMES
    assert all(claim.rule and claim.text for claim in CLAIMS)


@pytest.fixture(scope="module")
def as_claimed() -> Invented:
    return Invented()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "C18"])
def test_a_claim_that_holds_is_supported(as_claimed, name):
    one = judged(name, as_claimed)
    assert one.verdict == SUPPORTED
    assert one.settles


@pytest.mark.parametrize("name", NAMES)
def test_estimates_lie_in_their_intervals(as_claimed, name):
    for one in judged(name, as_claimed).effects:
        assert np.isnan(one.low) or one.low <= one.value <= one.high, one


BOUNDS: list[tuple[str, dict[Any, Any], str]] = [
    ("C1", level(SIGN, 0.51, 0), SUPPORTED),
    ("C1", level(SIGN, 0.5, 0), UNDECIDED),
    ("C1", level(SIGN, 0.49, 0), CONTRADICTED),
    ("C1", level("positive_share", 0.26, 0), SUPPORTED),
    ("C1", level("positive_share", 0.25, 0), UNDECIDED),
    ("C1", level("positive_share", 0.24, 0), CONTRADICTED),
    ("C1", level("positive_share", 0.74, 0), SUPPORTED),
    ("C1", level("positive_share", 0.76, 0), CONTRADICTED),
    # Epoch 1 against initialisation, whatever comes between or after.
    ("C2", level("between", -0.39, 2), SUPPORTED),
    ("C2", level("between", -0.4, 2), UNDECIDED),
    ("C2", level("between", -0.41, 2), CONTRADICTED),
    ("C2", {("between", "sign"): -0.4 - TIME}, CONTRADICTED),
    ("C2", {("between", "cosine"): -0.4 - TIME}, CONTRADICTED),
    # Half lost; less than 5 % lost; less than 0.1 left. The onset is at 4.
    ("C3", {COSINE: ends_at(0.8, 0.38)}, SUPPORTED),
    ("C3", {COSINE: ends_at(0.8, 0.42)}, UNDECIDED),
    ("C3", {COSINE: ends_at(0.8, 0.75)}, UNDECIDED),
    ("C3", {COSINE: ends_at(0.8, 0.77)}, CONTRADICTED),
    ("C3", {COSINE: ends_at(0.8, 0.9)}, CONTRADICTED),
    ("C3", {COSINE: ends_at(0.15, 0.09)}, SUPPORTED),
    ("C3", {COSINE: ends_at(0.15, 0.11)}, UNDECIDED),
    ("C3", {COSINE: ends_at(-0.15, -0.09)}, SUPPORTED),
    ("C3", {COSINE: ends_at(-0.15, -0.11)}, UNDECIDED),
    ("C3", {COSINE: ends_at(0.5, -0.5)}, CONTRADICTED),
    ("C3", {COSINE: ends_at(0.09, 0.3)}, SUPPORTED),  # had nothing to lose: others decide
    ("C3", {COSINE: ends_at(-0.09, 0.3)}, SUPPORTED),
    ("C3", {COSINE: ends_at(0.11, 0.3)}, CONTRADICTED),
    ("C3", {"between": ends_at(-0.3, -0.3)}, CONTRADICTED),
    ("C3", {("between", "sign"): ends_at(-0.3, -0.16)}, UNDECIDED),
    ("C3", {SIGN: ends_at(1, 0.98)}, CONTRADICTED),
    ("C3 keras", {(*SIGN, "keras"): ends_at(1, 0.98)}, CONTRADICTED),
    ("C3 keras", {SIGN: ends_at(1, 0.98)}, SUPPORTED),
    ("C3 float32", {(*SIGN, "float32"): ends_at(1, 0.98)}, CONTRADICTED),
    ("C3 bfloat16", {(*COSINE, "bfloat16"): ends_at(1, 0.98)}, CONTRADICTED),
    # FALLING ends at 0.4.
    ("C3'", {(*SIGN, "float32"): [*FALLING[:-1], 0.32]}, SUPPORTED),
    ("C3'", {(*SIGN, "float32"): [*FALLING[:-1], 0.35]}, UNDECIDED),
    ("C3'", {(*SIGN, "float32"): [*FALLING[:-1], 0.38]}, CONTRADICTED),
    ("C3'", {(*SIGN, "keras"): [*FALLING[:-1], 0.38]}, CONTRADICTED),
    ("C3'", {(*SIGN, "bfloat16"): [*FALLING[:-1], 0.38]}, CONTRADICTED),
    ("C3'", {(*COSINE, "keras"): [0.9] * 10}, SUPPORTED),  # the cosine is reported
    # The ratio of two epochs; the onset is 3.
    ("C5", {SIGN: [1, 1, 1, 0.9, *[0.9] * 6]}, SUPPORTED),  # 2 / 3
    ("C5", {SIGN: [1, 1, 0.9, *[0.9] * 7]}, CONTRADICTED),  # 1 / 3
    ("C5", {SIGN: [1] * 6 + [0.9] * 4}, SUPPORTED),  # 5 / 3
    ("C5", {SIGN: [1] * 8 + [0.9] * 2}, CONTRADICTED),  # 7 / 3
    ("C5", {SIGN: [1] * 10}, CONTRADICTED),  # never: at least 8 / 3
    ("C5", {SIGN: [1] * 10, "onset": 5.0}, UNDECIDED),  # never: at least 8 / 5
    ("C5", {SIGN: [0.9] * 10}, CONTRADICTED),  # was never there
    ("C5", {SIGN: [1] * 4 + [0.985] * 6, "noise_of": {}}, SUPPORTED),
    ("C5", {SIGN: [1] * 4 + [0.995] * 6, "noise_of": {}}, CONTRADICTED),
    ("C5", {SIGN: [1, 0.5, 1, 0.5, 1, 0.5, *[0.5] * 4]}, SUPPORTED),  # stays below from 4 on
    ("C5 keras", {(*SIGN, "keras"): [1] * 10}, CONTRADICTED),
    ("C5 keras", {SIGN: [1] * 10}, SUPPORTED),
    ("C5 float32", {(*SIGN, "float32"): [1] * 10}, CONTRADICTED),
    ("C5 bfloat16", {(*SIGN, "bfloat16"): [1] * 10}, CONTRADICTED),
    # Nine tenths of 7.9 epochs: 0.79 may be out of order. A checkpoint stands for the epochs up to
    # half-way to its neighbours: that of epoch 0.1 for 0.45, that of 1 for 0.95.
    ("C7", {("super_class", "sign"): [0, -1, *[0.35] * 8]}, SUPPORTED),
    ("C7", {("super_class", "sign"): [0, 0.5, -1, *[0.5] * 5, 0.25, 0.2]}, CONTRADICTED),
    ("C7", {("super_class", "cosine"): [0, 0.5, -1, *[0.5] * 7]}, CONTRADICTED),
    ("C7", level("super_class", 0.5, 9) | {("within", "sign"): [1] * 9 + [0.2]}, SUPPORTED),
    ("C7", {"super_super_class": [0, *[0.6] * 9]}, CONTRADICTED),
    ("C7", {"between": [0, *[0.4] * 9]}, CONTRADICTED),
    # From the farthest value after initialisation.
    ("C8", level("super_class", 0.24, 9), SUPPORTED),
    ("C8", level("super_class", 0.26, 9), UNDECIDED),
    ("C8", level("super_class", 0.47, 9), UNDECIDED),
    ("C8", level("super_class", 0.49, 9), CONTRADICTED),
    ("C8", {"super_class": [0.9, *[0.5] * 9]}, CONTRADICTED),  # not from initialisation
    ("C8", {"super_class": [0.1, 0.9, *[0.3] * 8]}, SUPPORTED),  # from the farthest on
    ("C8", {"super_super_class": [0.0, 0.05, *[0.02] * 8]}, SUPPORTED),  # nothing to lose
    ("C8", {("within", "sign"): [1] * 10}, CONTRADICTED),
    ("C8", {"between": [-0.3] * 10}, CONTRADICTED),
    ("C8", {"super_super_class": [-0.3] * 10}, CONTRADICTED),
    ("C9", level(COSINE, 0.51, 0), SUPPORTED),
    ("C9", level(COSINE, 0.49, 0), CONTRADICTED),
    ("C9", level(COSINE, 0.44, 9), SUPPORTED),
    ("C9", level(COSINE, 0.46, 9), UNDECIDED),
    ("C9", {SIGN: [0.97] * 10}, CONTRADICTED),
    ("C9", level("between", 0.05, 0), CONTRADICTED),
    ("C9", {"between": [-0.4] * 10}, CONTRADICTED),
    ("C9", level("between", -0.19, 9), SUPPORTED),
    ("C9", level("between", -0.22, 9), UNDECIDED),
    # Slopes have intervals of +- 0.1.
    ("C10", {"slope": -0.11}, SUPPORTED),
    ("C10", {"slope": -0.09}, UNDECIDED),
    ("C10", {"slope": 0.09}, UNDECIDED),
    ("C10", {"slope": 0.11}, CONTRADICTED),
    ("C10", {("slope", 2): 0.5}, CONTRADICTED),  # after epoch 1
    ("C10", {("slope", 9): 0.5}, CONTRADICTED),  # at the end
    ("C10", {("slope", 0): 0.5, ("slope", 5): 0.5}, SUPPORTED),
    ("C10", {"own_slope": 0.5}, SUPPORTED),  # reported
    ("C11", {"length": 1 + TIME}, CONTRADICTED),
    ("C11", {"length": 1.5 - np.where(TIME > 0.1, TIME, 0)}, SUPPORTED),
    ("C11", {"length": [9, 0, *AS_CLAIMED["length"][2:]]}, SUPPORTED),  # before epoch 1
    # The line decides where it is measured, the area otherwise.
    ("C11", {"length area": 1 + TIME}, SUPPORTED),
    ("C11", {"length area": 1 + TIME, "crossing": "extrapolated"}, CONTRADICTED),
    ("C11", {"length area": 1 + TIME, "crossing": "misfit"}, CONTRADICTED),
    ("C11", {"length line": 1 + TIME, ("crossing", 5): "misfit"}, SUPPORTED),
    ("C11", {"length line": 1 + TIME, ("crossing", 0): "misfit"}, CONTRADICTED),
    ("C11", {"length line": [INF] * 10, "crossing": "none"}, SUPPORTED),
    ("C12", {"length_of_rate": [-0.2, 0.0, 0.2]}, CONTRADICTED),
    ("C12", {"length_of_rate": [0.2, -0.2, 0.0]}, UNDECIDED),
    ("C12", {"of_rate area": [-0.2, 0.0, 0.2]}, SUPPORTED),
    ("C12", {"of_rate area": [-0.2, 0.0, 0.2], "crossing": "misfit"}, CONTRADICTED),
    ("C13", {"length_of_rate": [-0.2, 0.0, 0.2]}, CONTRADICTED),
    ("C13", {"length_of_rate": [0.2, -0.2, 0.0]}, UNDECIDED),
    ("C13", {"of_rate area": [-0.2, 0.0, 0.2], ("crossing", 9): "none"}, CONTRADICTED),
    ("C18", {}, CONTRADICTED),  # what supports C12 and C13
    ("C18", {"length_of_rate": [-0.2, 0.0, 0.2]}, SUPPORTED),
    ("C18", {"length_of_rate": [0.2, -0.2, 0.0]}, UNDECIDED),
    # Seeds shift nothing: paired differences of accuracies are exact.
    ("C14", {"accuracy": [0.9, 0.901, 0.9095]}, SUPPORTED),
    ("C14", {"accuracy": [0.9, 0.901, 0.9105]}, CONTRADICTED),
    ("C14", {"accuracy": [0.9105, 0.901, 0.9]}, CONTRADICTED),
    ("C14", {"end_of_rate": [0.03, 0.01, -0.03]}, SUPPORTED),
    ("C14", {"end_of_rate": [0.02, 0.01, -0.02]}, CONTRADICTED),
    ("C14", {"end_of_rate": [-0.03, 0.01, 0.03]}, SUPPORTED),
    ("C15", {"half_interval": 0.049}, SUPPORTED),
    ("C15", {"half_interval": 0.051}, CONTRADICTED),
    ("C15", {"whole": 0.039}, SUPPORTED),
    ("C15", {"whole": 0.05}, UNDECIDED),
    ("C15", {"whole": 0.061}, CONTRADICTED),
    ("C15", {"whole": -0.039}, SUPPORTED),
    ("C15", {"whole": -0.061}, CONTRADICTED),
    # Wilson's interval of 10,000 examples is +- 0.0097.
    ("C16", {"accuracy": [0, 0.591, 0]}, SUPPORTED),
    ("C16", {"accuracy": [0, 0.58, 0]}, UNDECIDED),
    ("C16", {"accuracy": [0, 0.569, 0]}, CONTRADICTED),
    # Intervals of xi are +- 0.1; raw lengths decide.
    ("C17", {"layers": [1.5, 1.25, 1.0]}, SUPPORTED),
    ("C17", {"layers": [1.05, 1.0, 0.95]}, UNDECIDED),
    ("C17", {"layers": [1.0, 1.25, 1.5]}, CONTRADICTED),
    ("C17", {"layer_crossings": ["measured", "misfit", "extrapolated"]}, SUPPORTED),
    ("C17", {"layer_crossings": ["measured", "none", "measured"]}, CONTRADICTED),
    ("C17", {"medians": [1.5, 0.5, 0.1]}, SUPPORTED),
    ("C17", {"layers": [1.0, 1.25, 1.5], "medians": [0.1, 0.5, 1.5]}, CONTRADICTED),
]


@pytest.mark.parametrize(("name", "shape", "expected"), BOUNDS)
def test_both_sides_of_every_bound(name, shape, expected):
    assert verdict(name, shape) == expected


GAPS = [
    (mode, quantity, metric, gap)
    for mode in ("train-train", "train-val", "val-val")
    for quantity in ("within", "between")
    for metric in ("sign", "cosine")
    for gap in (0.04, -0.04, 0.06, -0.06)
]


@pytest.mark.parametrize(("mode", "quantity", "metric", "gap"), GAPS)
def test_c4_compares_every_two_modes(mode, quantity, metric, gap):
    usual = np.array(AS_CLAIMED.get((quantity, metric), AS_CLAIMED.get(quantity)), float)
    late = np.where(EPOCHS >= 1, gap, 5.0)  # what comes before epoch 1 does not count
    shape = {(quantity, metric, mode): usual + late, "noise_of": {}}
    assert verdict("C4", shape) == (SUPPORTED if abs(gap) < 0.05 else CONTRADICTED)


def test_c4_weighs_signed_gaps_by_epoch():
    gap = np.zeros(10)
    gap[2:] = [0.4, -0.4, 0, 0, 0, 0, 0, 0]
    usual = np.array(AS_CLAIMED[SIGN])
    found = effects("C4", {(*SIGN, "val-val"): usual + gap, "noise_of": {}})
    of_sign = {one.what: one.value for one in found if "within-class sign" in one.what}
    # Epoch 1 stands for half an epoch of 7, epoch 2 for a whole one.
    expected = -(0.4 * 0.5 - 0.4 * 1) / 7
    what = "within-class sign stiffness, train-train minus val-val"
    assert of_sign[what] == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(
    ("between", "within", "expected"),
    [
        # Noise of the sign and of the cosine; a curve's range over its noise decides.
        ((0.002, 0.02), (0.02, 0.002), SUPPORTED),
        ((0.02, 0.002), (0.02, 0.002), CONTRADICTED),
        ((0.002, 0.02), (0.002, 0.02), CONTRADICTED),
    ],
)
def test_c6_compares_signal_to_noise(between, within, expected):
    noise = dict(zip([("between", "sign"), ("between", "cosine")], between, strict=True))
    noise |= dict(zip([SIGN, COSINE], within, strict=True))
    assert verdict("C6", {"noise_of": noise}) == expected


def test_c6_depends_on_the_range_too():
    wide, narrow = -0.4 * (1 - TIME), -0.04 * (1 - TIME)
    for sign, cosine, expected in ((wide, narrow, SUPPORTED), (narrow, wide, CONTRADICTED)):
        shape = {("between", "sign"): sign, ("between", "cosine"): cosine}
        assert verdict("C6", shape | {"noise_of": {SIGN: 0.02}}) == expected


@pytest.mark.parametrize("flat", [(SIGN,), (COSINE,), (SIGN, COSINE)])
def test_c6_does_not_decide_by_a_curve_that_never_moves(flat):
    one = judged("C6", Invented({key: [1.0] * 10 for key in flat}))
    assert one.verdict == UNDECIDED
    within = next(found for found in one.effects if "within" in found.what)
    assert np.isnan([within.low, within.high]).all()


def test_c6_knows_nothing_of_one_seed():
    one = judged("C6", Invented({"seeds": 1}))
    assert one.verdict == UNDECIDED
    assert not one.settles


def test_the_noise_of_a_run_is_never_below_one_example_of_500():
    (run, *_) = Invented({SIGN: FALLING, "noise_of": {SIGN: 1e-6}}).runs_of(*SIGN)
    assert signal_to_noise(run) == pytest.approx(0.6 / 0.002, rel=1e-3)
    (run, *_) = Invented({SIGN: FALLING, "noise_of": {SIGN: 0.01}}).runs_of(*SIGN)
    assert signal_to_noise(run) == pytest.approx(0.6 / 0.01, rel=0.1)


def test_c1_reports_the_cosine_of_equal_outputs():
    found = effects("C1")[-1]
    assert "-1/5 = -0.200" in found.what
    assert found.value == pytest.approx(-0.4, abs=0.01)
    assert found.verdict == ""


def test_c10_reports_the_slope_with_class_fixed_effects():
    found = {one.what: one for one in effects("C10", {"own_slope": 0.3})}
    assert found["slope with class fixed effects at the end"].value == pytest.approx(0.3)
    assert found["slope with class fixed effects at the end"].verdict == ""


@pytest.mark.parametrize("name", ["C11", "C12", "C13", "C18"])
@pytest.mark.parametrize(("crossing", "decides"), [("measured", "xi (line)"), ("misfit", "L(r)")])
def test_both_lengths_are_shown_and_one_decides(name, crossing, decides):
    found = effects(name, {"crossing": crossing})
    assert {text for text in ("xi (line)", "L(r)") for one in found if text in one.what} == {
        "xi (line)",
        "L(r)",
    }
    assert {decides in one.what for one in found if one.holds is not None} == {True}
    assert {decides in one.what for one in found if one.holds is None} == {False}


def test_other_rates_and_dead_runs_do_not_choose_the_estimator():
    evidence = Invented()
    table = evidence.critical_length
    table.loc[(table["lr"] == "1e-4") & (table["step"] == 9), "crossing"] = "none"
    assert deciding_estimator(evidence) == "line"
    assert deciding_estimator(evidence, {"1e-4", "1e-3"}) == "area"
    table.loc[table["crossing"] == "none", "status"] = "collapsed"
    assert deciding_estimator(evidence, {"1e-4", "1e-3"}) == "line"


def test_c11_without_a_trend_is_not_decided():
    assert verdict("C11", {"length": 1 + 0 * TIME}) == UNDECIDED  # tau is 0 in every run


def test_c11_needs_four_checkpoints_from_epoch_1_on():
    evidence = Invented()
    lengths = evidence.lengths_of
    cut = {"epochs": 5, "estimates": 5, "losses": 5, "replicates": 5}

    def shorter(number):
        return lambda estimator: [
            type(run)(
                run.lr,
                run.seed,
                *(getattr(run, key)[:number] for key in ("epochs", "losses", "estimates")),
                run.replicates[:number],
            )
            for run in lengths(estimator)
        ]

    evidence.lengths_of = shorter(cut["epochs"])
    assert "fewer than 4" in judged("C11", evidence).reason
    evidence.lengths_of = shorter(6)
    assert judged("C11", evidence).verdict == SUPPORTED


# --- helpers -------------------------------------------------------------------------------------


def test_checkpoints_weigh_as_the_epochs_that_they_stand_for():
    np.testing.assert_allclose(
        epoch_weights(np.array([0.0, 1.0, 2.0, 4.0])), np.array([0.5, 1, 1.5, 1]) / 4
    )
    assert epoch_weights(np.array([3.0])).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 1, 0.5, 0.5], 2),
        ([1, 0.5, 1, 0.5], 4),  # from the last time on
        ([0.99, 0.99, 0.98, 0.98], 2),
        ([0.5] * 4, 0),
        ([1] * 4, INF),
    ],
)
def test_the_departure_is_the_first_epoch_below_for_good(values, expected):
    epochs = np.array([0.0, 1.0, 2.0, 4.0])
    assert departure(epochs, np.array(values, float)[:, None]).tolist() == [expected]


def test_c5_resamples_both_epochs_together():
    exact = effects("C5", {SIGN: [1] * 5 + [0.5] * 5})[0]
    assert exact.value == pytest.approx(4 / 3)
    wide = effects("C5", {SIGN: [1] * 5 + [0.5] * 5, "onset_noise": 0.5})[0]
    assert wide.value == pytest.approx(4 / 3)
    assert wide.low < 1.2 < 1.5 < wide.high
    assert exact.high - exact.low < 0.1 < wide.high - wide.low
    # Some resamples of three onsets that lie far apart are below 0, and tell nothing.
    onsets = {"onset_noise": 1.3, "seeds": 3}
    assert effects("C5", {SIGN: [1] * 5 + [0.5] * 5, **onsets})[0].low > 0


def test_c5_of_runs_that_never_leave_is_open():
    (found,) = effects("C5", {SIGN: [1] * 10})
    assert found.high == INF
    assert found.value == pytest.approx(8 / 3)
    assert "at least" in found.what
    (found,) = effects("C5")
    assert np.isfinite(found.high)
    assert "at least" not in found.what


def test_c5_is_open_where_resamples_never_leave():
    # Every run leaves at epoch 7, but a third of the resamples end above 0.99.
    (found,) = effects("C5", {SIGN: [1] * 8 + [0.985] * 2, "noise_of": {SIGN: 0.01}})
    assert found.high == INF
    assert "at least" in found.what


def test_c17_reports_lengths_in_units_of_the_median_distance():
    shape = {"layers": [1.0, 1.25, 1.5], "medians": [0.1, 0.5, 1.5]}
    found = {one.what: one for one in effects("C17", shape)}
    assert found["tau of xi with depth, in cosine distance"].value == 1
    scaled = found["tau of xi with depth, in median distances"]
    assert scaled.value == -1
    assert scaled.verdict == ""


@pytest.mark.parametrize("name", ["C11", "C12", "C13", "C18"])
def test_one_seed_has_no_trend_test(name):
    one = judged(name, Invented({"seeds": 1}))
    assert one.verdict == UNDECIDED
    tests = [effect for effect in one.effects if "Page's test" in effect.what and effect.holds]
    assert tests
    for effect in tests:
        assert effect.holds == (-INF, INF)
        assert effect.verdict == UNDECIDED


def test_two_learning_rates_are_compared():
    evidence = Invented()
    evidence.tables["runs"] = evidence.tables["runs"].query("lr != '1e-4'")
    assert judged("C14", evidence).verdict == SUPPORTED
    assert judged("C12", evidence).reason == ""


# --- too short, and what cannot speak ------------------------------------------------------------


@pytest.mark.parametrize(("onset", "short"), [(5.3, False), (5.4, True)])
@pytest.mark.parametrize("name", ["C3", "C3 keras"])
def test_c3_needs_half_as_long_again_as_the_onset(name, onset, short):
    assert (verdict(name, {"onset": onset}) == "too short") == short


@pytest.mark.parametrize("name", ["C3", "C5", "C3 float32", "C5 bfloat16"])
def test_without_over_fitting_a_run_is_too_short(name):
    one = judged(name, Invented({"onset_reached": False}))
    assert one.verdict == "too short"
    assert "over-fitting has not set in" in one.reason


def late(step: int) -> list[float]:
    """The best accuracy is at this step; epochs are step - 1."""
    values = [0.9] * 10
    values[step] = 1.0
    return values


@pytest.mark.parametrize(("step", "short"), [(7, False), (8, True), (9, True)])
def test_c14_is_too_short_where_a_rate_is_best_in_its_last_fifth(step, short):
    one = judged("C14", Invented({"accuracies 1e-4": late(step)}))
    assert (one.verdict == "too short") == short
    assert len(one.effects) == 3  # shown all the same
    assert not short or "1e-4" in one.reason


def test_an_early_best_is_not_improving():
    evidence = Invented({"accuracies 1e-4": late(9)})
    assert still_improving(evidence, "1e-4")
    assert not still_improving(evidence, "1e-3")
    flat = Invented({"accuracies": [1.0] * 10})
    assert not still_improving(flat, "1e-3")


@pytest.mark.parametrize(
    ("accuracy", "step", "expected"),
    [
        (0.57, 9, "too short"),
        (0.57, 7, CONTRADICTED),
        (0.58, 9, "too short"),
        (0.6, 9, SUPPORTED),
    ],
)
def test_c16_is_too_short_where_a_low_accuracy_still_rises(accuracy, step, expected):
    shape = {"accuracy": [0, accuracy, 0], "accuracies": late(step)}
    assert verdict("C16", shape) == (
        CONTRADICTED if accuracy == 0.57 and step == 7 and expected == CONTRADICTED else expected
    )


def test_c13_is_too_short_where_rates_share_no_loss_after_epoch_1():
    # From epoch 1 on losses run from 1.6 to 0.2; the slow rate ends where the fast ones begin.
    assert verdict("C13", {"loss_of_rate": [1.3, 0, 0]}) != "too short"
    one = judged("C13", Invented({"loss_of_rate": [1.5, 0, 0]}))
    assert one.verdict == "too short"
    assert "share no training loss" in one.reason
    assert verdict("C12", {"loss_of_rate": [1.5, 0, 0]}) == SUPPORTED


def one_rate() -> Invented:
    evidence = Invented()
    evidence.tables["runs"] = evidence.tables["runs"].query("lr == '1e-3'")
    return evidence


@pytest.mark.parametrize("name", ["C12", "C13", "C14", "C18"])
def test_one_learning_rate_compares_nothing(name):
    assert judged(name, one_rate()).reason == "it has one learning rate"


@pytest.mark.parametrize("name", ["C12", "C14"])
def test_dead_rates_are_not_compared(name):
    evidence = Invented()
    evidence.tables["runs"].loc[lambda runs: runs["lr"] != "1e-3", "status"] = "diverged"
    assert judged(name, evidence).reason == "it has one learning rate"


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("C3'", {"settings": {"arithmetic": ["exact"]}}, "no arithmetic is measured"),
        ("C3 keras", {"settings": {"arithmetic": ["exact"]}}, "keras is not measured"),
        ("C5 bfloat16", {"settings": {"arithmetic": ["exact"]}}, "bfloat16 is not measured"),
        ("C7", {"has_hierarchy": False}, "no hierarchy"),
        ("C8", {"has_hierarchy": False}, "no hierarchy"),
        ("C9", {"source": "torchvision"}, "not a text classifier"),
        ("C16", {"settings": {"dataset": "mnist"}}, "not a ResNet"),
        ("C16", {"settings": {"model": {"name": "cnn"}}}, "not a ResNet"),
        ("C17", {"shape": {"layers": [1.0, 0.5]}}, "fewer than 3"),
    ],
)
def test_an_experiment_that_cannot_speak_says_why(name, options, reason):
    (claim,) = [claim for claim in CLAIMS if claim.name == name]
    with pytest.raises(NotTestable, match=reason):
        claim.measure(Invented(**options))


def test_c3_arithmetic_takes_what_is_measured():
    found = effects("C3'", settings={"arithmetic": ["exact", "keras"]})
    assert {one.what.split()[-1] for one in found} == {"keras"}
    assert len(found) == 2


def test_rates_without_a_common_seed_have_no_differences():
    evidence = Invented()
    evidence.tables["runs"].loc[lambda runs: runs["lr"] == "1e-4", "seed"] += 10
    assert judged("C14", evidence).reason == "two learning rates share no seed"


def test_too_short_carries_what_was_measured():
    error = TooShort("why", [Effect("x", 1.0, 1.0, 1.0)])
    assert str(error) == "why"
    assert [one.what for one in error.effects] == ["x"]
    assert TooShort("why").effects == []


def test_a_claim_is_registered_as_documented():
    before = list(CLAIMS)
    tests = doctest.DocTestFinder(recurse=False).find(claims, "claims")
    assert [doctest.DocTestRunner().run(test) for test in tests] == [(0, 4)]
    assert before == CLAIMS
