"""The paper's claims and the rules that decide them, the same for every experiment.

Each function measures one claim on one experiment: numbers with 95 % intervals and, for each, the
range in which the claim holds. An effect supports the claim if its whole interval lies in that
range, contradicts it if the whole interval lies outside, and decides nothing otherwise. A claim is
supported by an experiment if all its effects support it, contradicted if one contradicts it. The
docstrings are the rules as the report prints them. To add a claim, write such a function here:

    >>> @claim("C19", "Training takes fewer than 100 epochs.", figure="training_curves")
    ... def c19(evidence: Evidence) -> list[Effect]:
    ...     '''Every run ends before epoch 100.'''
    ...     last = float(evidence.history["epoch"].max())
    ...     return [Effect("last epoch", last, low=last, high=last, holds=(0, 100))]
    >>> CLAIMS.pop().rule
    'Every run ends before epoch 100.'

Unless a rule says otherwise: the reference learning rate, the mean over its seeds that did not die,
train-val pairs, and "the end" is the last checkpoint.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import getdoc

import numpy as np
import pandas as pd
from scipy import stats

from stiffness.files import rows
from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.distance import NONE
from stiffness.measures.equal_loss import EPOCH, LOSS
from stiffness.measures.pairs import METRICS, Floats
from stiffness.measures.seeds import seed_means, seed_weights
from stiffness.report.evidence import FIRST_EPOCH, Curve, Evidence, NotTestable
from stiffness.training.runs import OK

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
_INF = float("inf")


@dataclass(frozen=True)
class Effect:
    """A number measured for a claim.

    Attributes:
        what: the name of the number, as the report prints it.
        value: the estimate.
        low: the lower end of its 95 % interval.
        high: the upper end.
        holds: the closed range in which the claim holds; None for a number that decides nothing.
    """

    what: str
    value: float
    low: float
    high: float
    holds: tuple[float, float] | None = None

    @property
    def verdict(self) -> str:
        """What the number says of the claim; "" if it decides nothing."""
        if self.holds is None:
            return ""
        least, most = self.holds
        if least <= self.low and self.high <= most:
            return SUPPORTED
        if self.high < least or self.low > most:
            return CONTRADICTED
        return UNDECIDED


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: such as "C1".
        text: the claim in words.
        figure: the kind of figure that shows it.
        measure: the function that measures it; its docstring is the rule.
    """

    name: str
    text: str
    figure: str
    measure: Callable[[Evidence], list[Effect]]

    @property
    def rule(self) -> str:
        """The rule that decides the claim, as the report prints it."""
        return " ".join((getdoc(self.measure) or "").split())


CLAIMS: list[Claim] = []


def claim(
    name: str, text: str, figure: str
) -> Callable[[Callable[[Evidence], list[Effect]]], Callable[[Evidence], list[Effect]]]:
    """Register a function as the measurement of a claim.

    Args:
        name: such as "C1"; the report lists claims in the order in which they are registered.
        text: the claim in words.
        figure: the kind of figure that shows it, a name of ``plan.kinds.KINDS``.

    Returns:
        A decorator. The function below it gets one experiment's ``Evidence`` and returns effects;
        it raises ``NotTestable`` where the experiment cannot speak to the claim.
    """

    def register(measure: Callable[[Evidence], list[Effect]]) -> Callable[[Evidence], list[Effect]]:
        CLAIMS.append(Claim(name, text, figure, measure))
        return measure

    return register


_BELOW_0, _ABOVE_0 = (-_INF, -1e-9), (1e-9, _INF)


def _effect(
    what: str, value: float, replicates: Floats, holds: tuple[float, float] | None = None
) -> Effect:
    low, high = percentile_interval(replicates)
    return Effect(what, float(value), float(low), float(high), holds)


def _change(
    what: str, curve: Curve, first: int, last: int, holds: tuple[float, float] | None
) -> Effect:
    difference = curve.estimates[last] - curve.estimates[first]
    return _effect(what, difference, curve.replicates[last] - curve.replicates[first], holds)


@claim(
    "C1",
    "At initialisation within-class stiffness is high and between-classes stiffness has no "
    "consistent sign.",
    "class_matrices",
)
def c1(evidence: Evidence) -> list[Effect]:
    """Within-class sign stiffness at initialisation is above 0.5; and of all pairs of different
    classes between a quarter and three quarters have positive sign stiffness (the interval counts
    the pairs whose own interval is above 0, and those whose interval reaches above it)."""
    curve = evidence.curve("within")
    high = _effect(
        "within-class sign stiffness at initialisation",
        curve.estimates[0],
        curve.replicates[0],
        (0.5, _INF),
    )
    cells = evidence.cells("sign")
    start = rows(cells, step=cells["step"].min())
    start = start[start["class_a"] != start["class_b"]]
    mean = seed_means(start, ["class_a", "class_b"]).dropna()
    value, low, high_end = (float((mean[key] > 0).mean()) for key in ("value", "low", "high"))
    what = "share of class pairs with positive stiffness"
    return [high, Effect(what, value, low, high_end, (0.25, 0.75))]


@claim("C2", "As training starts, stiffness between classes rises.", "stiffness_curves")
def c2(evidence: Evidence) -> list[Effect]:
    """Between-classes stiffness is larger after epoch 1 than at initialisation, by sign and by
    cosine."""
    effects = []
    for metric in METRICS:
        curve = evidence.curve("between", metric)
        what = f"between-classes {metric} stiffness, epoch 1 minus initialisation"
        effects.append(_change(what, curve, 0, curve.near(FIRST_EPOCH), _ABOVE_0))
    return effects


@claim(
    "C3",
    "After the onset of over-fitting within-class and between-classes stiffness regress to 0.",
    "training_curves",
)
def c3(evidence: Evidence) -> list[Effect]:
    """From the onset of over-fitting to the end, within-class stiffness falls and between-classes
    stiffness comes nearer to 0, by sign and by cosine. What is left at the end is reported; it
    decides nothing, since a longer run could go on. The run must go on for half as long again as
    the onset took."""
    onset = evidence.onset()
    if evidence.history["epoch"].max() < 1.5 * onset:
        raise NotTestable("the run ends too soon after the onset of over-fitting")
    effects = []
    for metric in METRICS:
        within, between = evidence.curve("within", metric), evidence.curve("between", metric)
        place = within.near(onset)
        name = f"{metric} stiffness"
        effects.append(
            _change(f"within-class {name}, end minus onset", within, place, -1, _BELOW_0)
        )
        effects.append(
            _effect(
                f"distance of between-classes {name} from 0, end minus onset",
                abs(between.estimates[-1]) - abs(between.estimates[place]),
                abs(between.replicates[-1]) - abs(between.replicates[place]),
                _BELOW_0,
            )
        )
        for curve, what in ((within, "within-class"), (between, "between-classes")):
            effects.append(
                _effect(f"{what} {name} at the end", curve.estimates[-1], curve.replicates[-1])
            )
    return effects


@claim(
    "C3'",
    "Part of that fall is rounding: float32 measures less stiffness than there is "
    "(not in the paper).",
    "arithmetic",
)
def c3_rounding(evidence: Evidence) -> list[Effect]:
    """At the end, within-class sign and cosine stiffness of train-train pairs are larger with exact
    loss gradients than in float32. The share of the fall since the onset (or since epoch 1)
    that rounding makes up is reported."""
    effects = []
    for metric in METRICS:
        exact = evidence.curve("within", metric, "train-train", "exact")
        rounded = evidence.curve("within", metric, "train-train", "float32")
        what = f"within-class {metric} stiffness at the end, exact minus float32"
        difference = exact.replicates[-1] - rounded.replicates[-1]
        effects.append(
            _effect(what, exact.estimates[-1] - rounded.estimates[-1], difference, _ABOVE_0)
        )
        try:
            place, since = exact.near(evidence.onset()), "the onset"
        except NotTestable:
            place, since = exact.near(FIRST_EPOCH), "epoch 1"
        falls = [
            (one.estimates[place] - one.estimates[-1], one.replicates[place] - one.replicates[-1])
            for one in (exact, rounded)
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = 1 - falls[0][0] / falls[1][0]
            shares = 1 - falls[0][1] / falls[1][1]
        effects.append(_effect(f"share of the {metric}'s fall since {since}", share, shares))
    return effects


@claim(
    "C4",
    "Train-train, train-val and val-val stiffness are remarkably similar.",
    "training_curves",
)
def c4(evidence: Evidence) -> list[Effect]:
    """From epoch 1 on, train-train and val-val stiffness differ by less than 0.05 on average over
    the checkpoints, within classes and between them, by sign and by cosine."""
    effects = []
    for quantity, name in (("within", "within-class"), ("between", "between-classes")):
        for metric in METRICS:
            one = evidence.curve(quantity, metric, "train-train")
            other = evidence.curve(quantity, metric, "val-val")
            gaps = np.abs(one.replicates - other.replicates)[one.late].mean(0)
            gap = np.abs(one.estimates - other.estimates)[one.late].mean()
            what = f"{name} {metric} stiffness, distance of train-train from val-val"
            effects.append(_effect(what, gap, gaps, (0, 0.05)))
    return effects


@claim(
    "C5",
    "Within-class stiffness leaves 1 at about the onset of over-fitting.",
    "early_stopping",
)
def c5(evidence: Evidence) -> list[Effect]:
    """The epoch from which within-class sign stiffness stays below 0.99 is between half and twice
    the epoch of the onset; a network that never leaves 1 counts as infinitely late."""
    onset = evidence.onset()
    curve = evidence.curve("within")
    later = np.append(curve.epochs[1:], _INF)

    def departure(values: Floats) -> Floats:
        stiff = values >= 0.99
        last = len(values) - 1 - stiff[::-1].argmax(0)
        return np.where(stiff.any(0), later[last], curve.epochs[0])

    value = float(departure(curve.estimates[:, None])[0])
    what = f"epoch of leaving 1 over that of the onset ({onset:.3g})"
    return [_effect(what, value / onset, departure(curve.replicates) / onset, (0.5, 2.0))]


@claim(
    "C6",
    "Sign stiffness separates classes more clearly; cosine stiffness is the more useful within "
    "a class.",
    "stiffness_curves",
)
def c6(evidence: Evidence) -> list[Effect]:
    """From epoch 1 on: the gap between the mean of the diagonal and of the rest of the class
    stiffness matrix, over their pooled standard deviation, is larger for the sign than for the
    cosine (mean over checkpoints; interval over classes); and within-class stiffness spans a
    larger range over training by cosine than by sign."""
    gaps = [_separation(evidence, metric) for metric in METRICS]
    curves = [evidence.curve("within", metric) for metric in METRICS]
    spans = [np.ptp(curve.estimates[curve.late]) for curve in curves]
    resampled = [np.ptp(curve.replicates[curve.late], axis=0) for curve in curves]
    return [
        _effect(
            "separation of classes (standard deviations), sign minus cosine",
            gaps[0][0] - gaps[1][0],
            gaps[0][1] - gaps[1][1],
            _ABOVE_0,
        ),
        _effect(
            "range of within-class stiffness, cosine minus sign",
            spans[1] - spans[0],
            resampled[1] - resampled[0],
            _ABOVE_0,
        ),
    ]


def _separation(evidence: Evidence, metric: str) -> tuple[float, Floats]:
    """Compute how well a metric separates classes (see ``c6``), and its resamples over classes."""
    cells = evidence.cells(metric)
    cells = cells[cells["epoch"] >= FIRST_EPOCH]
    mean = cells.groupby(["step", "class_a", "class_b"], as_index=False)["value"].mean()
    matrices = np.stack(
        [
            one.pivot(index="class_a", columns="class_b", values="value").to_numpy()
            for _, one in mean.groupby("step")
        ]
    )
    number = matrices.shape[1]
    if number < 3:
        raise NotTestable("too few classes to tell how well they are separated")
    generator = np.random.default_rng(evidence.settings["bootstrap"]["seed"])
    drawn = generator.multinomial(number - 1, np.full(number, 1 / number), size=400).astype(float)

    def separation(weights: Floats) -> float:
        """Average over checkpoints, with ``weights`` [C] of the classes."""
        pairs = np.outer(weights, weights)
        np.fill_diagonal(pairs, 0)
        scores = []
        for matrix in matrices:
            parts = [(np.diag(matrix), weights), (matrix, pairs)]
            means, squares = [], []
            for values, weight in parts:
                kept = np.isfinite(values) & (weight > 0)
                average = np.average(values[kept], weights=weight[kept])
                means.append(average)
                squares.append(np.average((values[kept] - average) ** 2, weights=weight[kept]))
            scores.append((means[0] - means[1]) / np.sqrt(np.mean(squares)))
        return float(np.mean(scores))

    return separation(np.ones(number)), np.array(
        [separation(weights) if (weights > 0).sum() > 2 else np.nan for weights in drawn]
    )


_GROUPS = ("within", "super_class", "super_super_class", "between")
_GROUP_NAMES = ("within-class", "super-class", "super-super-class", "baseline")


@claim(
    "C7",
    "CIFAR-100: within-class > super-class > super-super-class > baseline, throughout training.",
    "hierarchy_curves",
)
def c7(evidence: Evidence) -> list[Effect]:
    """The order of the four holds, by sign and by cosine, at nine tenths of the checkpoints or more
    (of those after initialisation). The share for each neighbouring pair is reported."""
    if not evidence.has_hierarchy:
        raise NotTestable("its classes have no hierarchy")
    effects = []
    for metric in METRICS:
        curves = [evidence.curve(quantity, metric) for quantity in _GROUPS]
        values = np.stack([curve.estimates[1:] for curve in curves])
        replicates = np.stack([curve.replicates[1:] for curve in curves])
        ordered, drawn = values[:-1] > values[1:], replicates[:-1] > replicates[1:]
        what = f"share of checkpoints in order, {metric}"
        effects.append(
            _effect(what, ordered.all(0).mean(), drawn.all(0).mean(0).astype(float), (0.9, 1.0))
        )
        for place, name in enumerate(_GROUP_NAMES[:-1]):
            effects.append(
                _effect(
                    f"share with {name} above {_GROUP_NAMES[place + 1]}, {metric}",
                    ordered[place].mean(),
                    drawn[place].mean(0).astype(float),
                )
            )
    return effects


@claim("C8", "CIFAR-100: all four regress towards 0.", "hierarchy_curves")
def c8(evidence: Evidence) -> list[Effect]:
    """Each of the four (sign) is nearer to 0 at the end than where it was farthest after
    initialisation."""
    if not evidence.has_hierarchy:
        raise NotTestable("its classes have no hierarchy")
    effects = []
    for quantity, name in zip(_GROUPS, _GROUP_NAMES, strict=True):
        curve = evidence.curve(quantity)
        peak = 1 + int(np.abs(curve.estimates[1:]).argmax())
        effects.append(
            _effect(
                f"distance of {name} from 0, end minus epoch {curve.epochs[peak]:.3g}",
                abs(curve.estimates[-1]) - abs(curve.estimates[peak]),
                abs(curve.replicates[-1]) - abs(curve.replicates[peak]),
                _BELOW_0,
            )
        )
    return effects


@claim(
    "C9",
    "BERT on MNLI: within-class stiffness starts high and falls towards 0; between-classes "
    "stiffness starts negative and rises towards 0.",
    "stiffness_curves",
)
def c9(evidence: Evidence) -> list[Effect]:
    """By sign and by cosine: within-class stiffness is above 0.5 before training and smaller at the
    end, between-classes stiffness is below 0 before training and larger at the end."""
    if evidence.source != "text":
        raise NotTestable("not a text classifier")
    effects = []
    for metric in METRICS:
        within, between = evidence.curve("within", metric), evidence.curve("between", metric)
        for curve, name, start, change in (
            (within, "within-class", (0.5, _INF), _BELOW_0),
            (between, "between-classes", _BELOW_0, _ABOVE_0),
        ):
            what = f"{name} {metric} stiffness"
            effects += [
                _effect(f"{what} before training", curve.estimates[0], curve.replicates[0], start),
                _change(f"{what}, end minus start", curve, 0, -1, change),
            ]
    return effects


@claim("C10", "Same-class stiffness falls with input distance.", "distance")
def c10(evidence: Evidence) -> list[Effect]:
    """The slope of the line fitted to same-class cosine stiffness against distance is below 0 after
    epoch 1 and at the end."""
    lengths = _fits(evidence)
    effects = []
    steps = lengths.groupby("step", as_index=False)["epoch"].first()
    places = {
        "after epoch 1": (steps["epoch"] - FIRST_EPOCH).abs().argmin(),
        "at the end": len(steps) - 1,
    }
    for name, place in places.items():
        fits = rows(lengths, step=steps["step"].iloc[place])
        slopes = fits.assign(value=fits["slope"], low=fits["slope_low"], high=fits["slope_high"])
        (mean,) = seed_means(slopes, ["step"]).to_dict("records")
        effects.append(Effect(f"slope {name}", mean["value"], mean["low"], mean["high"], _BELOW_0))
    return effects


def _fits(evidence: Evidence) -> pd.DataFrame:
    """Return the lines fitted to cosine stiffness of train-val pairs, of the reference rate."""
    return rows(
        evidence.critical_length,
        lr=evidence.reference,
        seed=set(evidence.alive()["seed"]),
        estimator="line",
        metric="cosine",
        pair_mode="train-val",
        layer=evidence.settings["distance_layers"][0],
    )


@claim("C11", "The critical length falls with training time.", "critical_length")
def c11(evidence: Evidence) -> list[Effect]:
    """Kendall's tau of the line's xi (cosine) with the epoch, over the checkpoints from epoch 1 on,
    is below 0; no crossing counts as the largest xi. The monotone estimate's is reported."""
    effects = []
    for estimator, holds in (("line", _BELOW_0), ("monotone", None)):
        runs = evidence.lengths(estimator)
        weights = evidence.weights(runs)
        values = [_trend(run.estimates[:, None], run.epochs)[0] for run in runs]
        drawn = np.stack([_trend(run.replicates, run.epochs) for run in runs])
        what = f"tau of xi ({estimator}) with the epoch"
        # Student's t weighs a seed by less than 0 now and then; no tau is beyond 1.
        means = np.clip((drawn * weights).sum(0), -1, 1)
        effects.append(_effect(what, np.mean(values), means, holds))
    return effects


def _trend(values: Floats, epochs: Floats) -> Floats:
    """Compute Kendall's tau [R] of ``values`` [K, R] with time, from epoch 1 on."""
    late = values[epochs >= FIRST_EPOCH]
    number = len(late)
    if number < 3:
        raise NotTestable("fewer than 3 checkpoints after epoch 1")
    total = np.zeros(values.shape[1])
    for gap in range(1, number):
        total += (late[gap:] > late[:-gap]).sum(0)
        total -= (late[gap:] < late[:-gap]).sum(0)
    return total / (number * (number - 1) / 2)


def _order(evidence: Evidence, by: str, holds: tuple[float, float]) -> list[Effect]:
    """Look up how xi is ordered by the learning rate, at equal epoch or at equal loss."""
    order = evidence.table("order")
    effects = []
    for estimator in ("line", "monotone"):
        found = rows(
            order, by=by, quantity=f"xi {estimator}", metric="cosine", pair_mode="train-val"
        )
        for row in found.to_dict("records"):
            what = f"tau of xi ({estimator}) with the learning rate"
            decides = holds if estimator == "line" else None
            effects.append(Effect(what, row["tau"], row["low"], row["high"], decides))
    if not effects:
        raise NotTestable(
            "it has one learning rate"
            if evidence.runs["lr"].nunique() < 2
            else "its learning rates share no range"
        )
    return effects


@claim(
    "C12", "A larger learning rate gives a smaller critical length at the same epoch.", "equal_loss"
)
def c12(evidence: Evidence) -> list[Effect]:
    """Kendall's tau of the line's xi (cosine) with the learning rate, at equal epoch (from epoch 1
    on, mean over epochs), is below 0; no crossing counts as the largest xi. The monotone estimate's
    is reported."""
    return _order(evidence, EPOCH, _BELOW_0)


@claim(
    "C13",
    "A larger learning rate gives a smaller critical length at the same training loss.",
    "equal_loss",
)
def c13(evidence: Evidence) -> list[Effect]:
    """As C12, at equal training loss, over the range of losses that all rates reach from epoch 1
    on, or, where they share none, below half the loss at initialisation."""
    return _order(evidence, LOSS, _BELOW_0)


@claim(
    "C14", "Accuracy is equal across those learning rates although stiffness is not.", "equal_loss"
)
def c14(evidence: Evidence) -> list[Effect]:
    """The best validation accuracies of the learning rates (means over seeds) span less than one
    point, and their within-class cosine stiffness at the end spans more than 0.05. The interval of
    the former is over seeds alone: all runs are judged on the same validation examples."""
    alive = rows(evidence.runs, status=OK)
    rates = sorted(alive["lr"].unique(), key=float)
    if len(rates) < 2:
        raise NotTestable("it has one learning rate")
    means, drawn, ends, drawn_ends = [], [], [], []
    for place, rate in enumerate(rates):
        best = rows(alive, lr=rate)["best_validation_accuracy"].to_numpy(float)
        weights = seed_weights(len(best), 1000, place)
        means.append(best.mean())
        # One run says nothing about how much the seed matters.
        drawn.append(best @ weights if len(best) > 1 else np.full(1000, np.nan))
        curve = evidence.curve("within", "cosine", lr=rate)
        ends.append(curve.estimates[-1])
        drawn_ends.append(curve.replicates[-1])
    return [
        _effect(
            "range of the best validation accuracies", np.ptp(means), np.ptp(drawn, 0), (0, 0.01)
        ),
        _effect(
            "range of within-class cosine stiffness at the end",
            np.ptp(ends),
            np.ptp(drawn_ends, 0),
            (0.05, _INF),
        ),
    ]


@claim(
    "C15",
    "About 500 (3,000) examples are enough for small statistical uncertainty.",
    "whole_set",
)
def c15(evidence: Evidence) -> list[Effect]:
    """Of train-train cosine stiffness, within classes and between them: half the 95 % interval of a
    run is below 0.05 (mean over checkpoints), and the subset differs from all pairs of the whole
    training set by less than 0.05 (mean over the stages measured)."""
    whole = evidence.whole_set()
    summary = rows(
        evidence.table("summary"),
        lr=evidence.reference,
        metric="cosine",
        pair_mode="train-train",
        seed=set(evidence.alive()["seed"]),
    )
    effects = []
    for quantity, name in (("within", "within-class"), ("between", "between-classes")):
        subset = rows(summary, quantity=quantity)
        half = float(((subset["high"] - subset["low"]) / 2).mean())
        effects.append(Effect(f"half an interval, {name}", half, half, half, (0, 0.05)))
        same = whole["class_a"] == whole["class_b"]
        cells = whole[same if quantity == "within" else ~same]
        truth = cells.groupby(["seed", "step"])["value"].mean().rename("whole").reset_index()
        both = subset.merge(truth, on=["seed", "step"])
        shifted = both.assign(
            **{key: both[key] - both["whole"] for key in ("value", "low", "high")}
        )
        by_step = seed_means(shifted, ["step"])
        value, low, high = (float(by_step[key].mean()) for key in ("value", "low", "high"))
        effects.append(Effect(f"{name}, subset minus whole set", value, low, high, (-0.05, 0.05)))
    return effects


@claim(
    "C16",
    "ResNet20v1 without batch normalisation reaches about 60 % top-1 on CIFAR-100.",
    "training_curves",
)
def c16(evidence: Evidence) -> list[Effect]:
    """The best validation accuracy (mean over seeds; Wilson interval) is 0.58 or more."""
    settings = evidence.settings
    if settings["model"]["name"] != "resnet20v1" or not settings["dataset"].startswith("cifar100"):
        raise NotTestable("not a ResNet20v1 on CIFAR-100")
    best = float(evidence.alive()["best_validation_accuracy"].mean())
    number = evidence.validation_examples()
    ends = stats.binomtest(round(best * number), number).proportion_ci(method="wilson")
    return [Effect("best validation accuracy", best, ends.low, ends.high, (0.58, 1.0))]


@claim(
    "C17",
    "A critical distance exists in every layer's representation, and deeper layers have smaller "
    "stiff domains (first version).",
    "layers",
)
def c17(evidence: Evidence) -> list[Effect]:
    """At the last stage the line's xi (cosine) exists for what every layer reads, and Kendall's tau
    of xi with depth is below 0, with xi in units of the layer's median same-class distance; a pair
    of layers whose intervals of xi overlap widens the interval of tau. In plain units of cosine
    distance tau is reported."""
    table = evidence.layers("critical_length")
    last = {"step": table["step"].max(), "estimator": "line"}
    lines = rows(table, metric="cosine", pair_mode="train-val", **last)
    lines = lines.sort_values(["seed", "depth"])
    if lines["depth"].nunique() < 3:
        raise NotTestable("fewer than 3 layers have distances")
    share = float((lines["crossing"] != NONE).mean())
    effects = [Effect("share of layers with a critical length", share, share, share, (1.0, 1.0))]
    for unit, scale, holds in (
        ("median distances", lines["median_distance"], _BELOW_0),
        ("cosine distance", 1.0, None),
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
    value, low, high = (lines[key].fillna(_INF).to_numpy(float) for key in ("value", "low", "high"))
    first, second = np.triu_indices(len(lines), 1)
    order = np.sign(np.nan_to_num(value[second] - value[first]))
    falls, rises = high[second] < low[first], low[second] > high[first]
    return (
        float(order.mean()),
        float(np.where(rises, 1, -1).mean()),
        float(np.where(falls, -1, 1).mean()),
    )


@claim(
    "C18",
    "A higher learning rate increases the size of the stiff regions (the first version's summary; "
    "it contradicts C12 and C13).",
    "equal_loss",
)
def c18(evidence: Evidence) -> list[Effect]:
    """As C12 and C13 with the opposite sign: tau is above 0 at equal epoch and at equal loss."""
    found = []
    for by, name in ((EPOCH, "at equal epoch"), (LOSS, "at equal loss")):
        for effect in _order(evidence, by, _ABOVE_0):
            found.append(replace(effect, what=f"{effect.what}, {name}"))
    return found
