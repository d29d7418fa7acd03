"""Rules for claims on distance and on the critical length: C10 to C13, C17 and C18."""

from dataclasses import replace

import numpy as np
import pandas as pd

from stiffness.files import rows
from stiffness.measures.distance import MEASURED, NONE
from stiffness.measures.equal_loss import EPOCH, LOSS
from stiffness.measures.pairs import Floats
from stiffness.measures.replicates import RunValues
from stiffness.measures.seeds import seed_means, student_interval
from stiffness.measures.trends import Trend, kendall_tau, page_trend
from stiffness.report.effects import ABOVE_0, BELOW_0, INF, Effect, Range, claim, reported
from stiffness.report.evidence import FIRST_EPOCH, Evidence, NotTestable, TooShort
from stiffness.training.runs import OK

_NAMES = {"line": "xi (line)", "area": "L(r)"}
_STAGES = 4
_OPEN: Range = (-INF, INF)  # of effects that a test decides


@claim("C10", "Same-class stiffness falls with input distance.", "distance")
def c10(evidence: Evidence) -> list[Effect]:
    """The slope of the line fitted to same-class cosine stiffness against distance is below 0 after
    epoch 1 and at the end. The slope with a height of its own for each class is reported: classes
    that differ both in distance and in stiffness can make a slope where no class has one."""
    effects = []
    for estimator, name, holds in (
        ("line", "slope", BELOW_0),
        ("fixed_effects", "slope with class fixed effects", None),
    ):
        fits = _fits(evidence, estimator)
        steps = fits.groupby("step", as_index=False)["epoch"].first()
        places = {
            "after epoch 1": (steps["epoch"] - FIRST_EPOCH).abs().argmin(),
            "at the end": len(steps) - 1,
        }
        for when, place in places.items():
            at = rows(fits, step=steps["step"].iloc[place])
            slopes = at.assign(value=at["slope"], low=at["slope_low"], high=at["slope_high"])
            (mean,) = seed_means(slopes, ["step"]).to_dict("records")
            ends = mean["value"], mean["low"], mean["high"]
            effects.append(Effect(f"{name} {when}", *ends, holds))
    return effects


def _fits(evidence: Evidence, estimator: str, rates: object = None) -> pd.DataFrame:
    """Return critical lengths of cosine stiffness of train-val pairs, of living runs.

    Args:
        evidence: of an experiment.
        estimator: such as "line".
        rates: the learning rates; by default the reference rate.

    Raises:
        NotTestable: no run of them is alive.
    """
    fits = rows(
        evidence.critical_length,
        lr=rates or evidence.reference,
        status=OK,
        estimator=estimator,
        metric="cosine",
        pair_mode="train-val",
        layer=evidence.settings["distance_layers"][0],
    )
    if fits.empty:
        raise NotTestable(f"no run at learning rate {rates or evidence.reference} is alive")
    return fits


def deciding_estimator(evidence: Evidence, rates: object = None) -> str:
    """Choose the length that decides: the line's where it is measured, the area L(r) otherwise.

    Args:
        evidence: of an experiment.
        rates: the learning rates that are compared; by default the reference rate.

    Returns:
        "line" where the line reaches 0 inside the data, and describes them, at every checkpoint of
        every living run from epoch 1 on; else "area".
    """
    fits = _fits(evidence, "line", rates)
    late = fits[fits["epoch"] >= FIRST_EPOCH]
    return "line" if len(late) and (late["crossing"] == MEASURED).all() else "area"


def _page(what: str, trend: Trend, falls: bool) -> Effect:
    """Make the effect of Page's test for a fall, or for a rise."""
    p = (trend.p_falls, trend.p_rises) if falls else (trend.p_rises, trend.p_falls)
    return Effect(f"{what}; Page's test", trend.tau, trend.low, trend.high, _OPEN, (INF, INF), *p)


@claim("C11", "The critical length falls with training time.", "critical_length")
def c11(evidence: Evidence) -> list[Effect]:
    """The checkpoints of a run from epoch 1 on are cut into four stages of equally many. The
    critical length falls from stage to stage (its mean over a stage; Page's exact test with seeds
    as blocks, 5 % one-sided), and so does it over the checkpoints of a run (Kendall's tau, one
    number per run; Student's t over seeds). The zero of the paper's line (cosine) decides where it
    is measured at all these checkpoints, and the area L(r) otherwise; the other is reported."""
    decides = deciding_estimator(evidence)
    effects = []
    for estimator, name in _NAMES.items():
        runs = evidence.lengths(estimator)
        late = [_late(run) for run in runs]
        stages = np.array([[part.mean() for part in np.array_split(v, _STAGES)] for v in late])
        of_run = student_interval(np.array([kendall_tau(values) for values in late]))
        low, high = np.clip(of_run[1:], -1, 1)
        for one in (
            _page(f"tau of {name} with the stage of training", page_trend(stages), falls=True),
            Effect(
                f"tau of {name} with the epoch of a run", of_run[0], low, high, BELOW_0, ABOVE_0
            ),
        ):
            effects.append(one if estimator == decides else reported(one))
    return effects


def _late(run: RunValues) -> Floats:
    """Return a run's lengths from epoch 1 on; no crossing counts as the largest."""
    late = run.estimates[run.epochs >= FIRST_EPOCH]
    if len(late) < _STAGES:
        raise NotTestable(f"fewer than {_STAGES} checkpoints from epoch 1 on")
    return late


def _order(evidence: Evidence, by: str, falls: bool) -> list[Effect]:
    """Look up how lengths are ordered by the learning rate, at equal epoch or at equal loss."""
    rates = set(rows(evidence.runs, status=OK)["lr"])
    if len(rates) < 2:
        raise NotTestable("it has one learning rate")
    decides = deciding_estimator(evidence, rates)
    order = rows(evidence.table("order"), by=by, metric="cosine", pair_mode="train-val")
    effects = []
    for estimator, name in _NAMES.items():
        for row in rows(order, quantity=f"xi {estimator}").to_dict("records"):
            keys = ("tau", "low", "high", "p_falls", "p_rises")
            trend = Trend(*(float(row[key]) for key in keys))
            one = _page(f"tau of {name} with the learning rate", trend, falls)
            effects.append(one if estimator == decides else reported(one))
    if not effects:
        raise TooShort(
            "its learning rates share no training loss from epoch 1 on: train the slow ones longer"
            if by == LOSS
            else "its learning rates share no epoch from epoch 1 on"
        )
    return effects


@claim(
    "C12",
    "A larger learning rate gives a smaller critical length at the same epoch.",
    "equal_loss",
    seeds=5,
    all_rates=True,
)
def c12(evidence: Evidence) -> list[Effect]:
    """The critical length (cosine) falls with the learning rate at equal epoch: the mean of a run
    over epochs from 1 on is one number per run, and Page's exact test with seeds as blocks decides
    (5 % one-sided). Kendall's tau is the size of the effect. The zero of the paper's line decides
    where it is measured at all checkpoints from epoch 1 on, and the area L(r) otherwise; the other
    is reported."""
    return _order(evidence, EPOCH, falls=True)


@claim(
    "C13",
    "A larger learning rate gives a smaller critical length at the same training loss.",
    "equal_loss",
    seeds=5,
    all_rates=True,
)
def c13(evidence: Evidence) -> list[Effect]:
    """As C12, at equal training loss, interpolated over the range of losses that all rates go
    through from epoch 1 on. Where they share none, the slow runs are too short."""
    return _order(evidence, LOSS, falls=True)


@claim(
    "C18",
    "A higher learning rate increases the size of the stiff regions (the first version's summary; "
    "it contradicts C12 and C13).",
    "equal_loss",
    seeds=5,
    all_rates=True,
)
def c18(evidence: Evidence) -> list[Effect]:
    """As C12 and C13 with the opposite sign: the critical length rises with the learning rate, at
    equal epoch and at equal loss."""
    return [
        replace(one, what=f"{one.what}, {name}")
        for by, name in ((EPOCH, "at equal epoch"), (LOSS, "at equal loss"))
        for one in _order(evidence, by, falls=False)
    ]


@claim(
    "C17",
    "A critical distance exists in every layer's representation, and deeper layers have smaller "
    "stiff domains (first version).",
    "layers",
)
def c17(evidence: Evidence) -> list[Effect]:
    """At the last stage the line's xi (cosine) exists for what every layer reads, and Kendall's tau
    of xi with depth is below 0, in plain units of cosine distance; a pair of layers whose intervals
    of xi overlap widens the interval of tau. With xi in units of the layer's median same-class
    distance, tau is reported."""
    table = evidence.layers("critical_length")
    last = {"step": table["step"].max(), "estimator": "line"}
    lines = rows(table, metric="cosine", pair_mode="train-val", **last)
    lines = lines.sort_values(["seed", "depth"])
    if lines["depth"].nunique() < 3:
        raise NotTestable("fewer than 3 layers have distances")
    share = float((lines["crossing"] != NONE).mean())
    effects = [Effect("share of layers with a critical length", share, share, share, (1.0, 1.0))]
    for unit, scale, holds in (
        ("cosine distance", 1.0, BELOW_0),
        ("median distances", lines["median_distance"], None),
    ):
        scaled = lines.assign(**{key: lines[key] / scale for key in ("value", "low", "high")})
        taus = np.array([_depth_tau(one) for _, one in scaled.groupby("seed")]).mean(0)
        tau, low, high = (float(one) for one in taus)
        effects.append(Effect(f"tau of xi with depth, in {unit}", tau, low, high, holds))
    return effects


def _depth_tau(lines: pd.DataFrame) -> tuple[float, float, float]:
    """Compute Kendall's tau of xi with depth, and its least and largest within the intervals.

    No crossing counts as the largest xi.
    """
    value, low, high = (lines[key].fillna(INF).to_numpy(float) for key in ("value", "low", "high"))
    first, second = np.triu_indices(len(lines), 1)
    with np.errstate(invalid="ignore"):
        order = np.sign(np.nan_to_num(value[second] - value[first]))
    falls, rises = high[second] < low[first], low[second] > high[first]
    return (
        float(order.mean()),
        float(np.where(rises, 1, -1).mean()),
        float(np.where(falls, -1, 1).mean()),
    )
