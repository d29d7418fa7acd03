"""Rules for claims on stiffness within and between classes: C1 to C9."""

from functools import partial

import numpy as np

from stiffness.measures.pairs import METRICS, Floats
from stiffness.measures.replicates import RunValues
from stiffness.measures.seeds import student_interval
from stiffness.report.effects import (
    ABOVE_0,
    BELOW_0,
    INF,
    Effect,
    Range,
    change,
    claim,
    effect,
    regress,
)
from stiffness.report.evidence import FIRST_EPOCH, Evidence, NotTestable, TooShort

OTHERS = ("float32", "keras", "bfloat16")
"""Arithmetics of the loss gradient beside the exact one, each with a verdict of its own."""
_STIFF = 0.99  # a sign stiffness that has not left 1
_LEAST_NOISE = 0.002  # one example of 500
_GROUPS = ("within", "super_class", "super_super_class", "between")
_GROUP_NAMES = ("within-class", "super-class", "super-super-class", "baseline")
_NAMES = {"within": "within-class", "between": "between-classes"}


@claim(
    "C1",
    "At initialisation within-class stiffness is high and between-classes stiffness has no "
    "consistent sign.",
    "class_matrices",
)
def c1(evidence: Evidence) -> list[Effect]:
    """Within-class sign stiffness at initialisation is above 0.5; and of all pairs of different
    classes between a quarter and three quarters have positive sign stiffness (the share itself is
    resampled). The cosine between classes is reported beside -1 / (C - 1), the cosine of two
    classes' loss gradients with respect to the outputs where all C outputs are equal."""
    within, share, between = (
        evidence.curve(quantity, metric)
        for quantity, metric in (
            ("within", "sign"),
            ("positive_share", "sign"),
            ("between", "cosine"),
        )
    )
    classes = evidence.classes
    return [
        effect(
            "within-class sign stiffness at initialisation",
            within.estimates[0],
            within.replicates[0],
            (0.5, INF),
            bounds=(-1, 1),
        ),
        effect(
            "share of class pairs with positive stiffness",
            share.estimates[0],
            share.replicates[0],
            (0.25, 0.75),
            bounds=(0, 1),
        ),
        effect(
            f"between-classes cosine stiffness at initialisation (-1/{classes - 1} = "
            f"{-1 / (classes - 1):.3f} at equal outputs)",
            between.estimates[0],
            between.replicates[0],
            bounds=(-1, 1),
        ),
    ]


@claim("C2", "As training starts, stiffness between classes rises.", "stiffness_curves")
def c2(evidence: Evidence) -> list[Effect]:
    """Between-classes stiffness is larger after epoch 1 than at initialisation, by sign and by
    cosine."""
    effects = []
    for metric in METRICS:
        curve = evidence.curve("between", metric)
        what = f"between-classes {metric} stiffness, epoch 1 minus initialisation"
        effects.append(change(what, curve, 0, curve.near(FIRST_EPOCH), ABOVE_0))
    return effects


_C3 = "After the onset of over-fitting within-class and between-classes stiffness regress to 0"


@claim("C3", f"{_C3}.", "training_curves")
def c3(evidence: Evidence) -> list[Effect]:
    """From the onset of over-fitting to the end, within-class and between-classes stiffness lose
    half of their distance from 0, or less than 0.1 of it is left, by sign and by cosine; losing
    less than 5 % contradicts the claim. What is within 0.1 of 0 at the onset has nothing to lose.
    A run that ends before one and a half times the onset is too short."""
    return _after_onset(evidence, "exact")


def _after_onset(evidence: Evidence, arithmetic: str) -> list[Effect]:
    """Measure C3 in one arithmetic of the loss gradient."""
    curves = {
        (quantity, metric): evidence.curve(quantity, metric, arithmetic=arithmetic)
        for quantity in _NAMES
        for metric in METRICS
    }
    onset = evidence.onset()
    if evidence.history["epoch"].max() < 1.5 * onset:
        raise TooShort("the run ends too soon after the onset of over-fitting")
    effects = []
    for (quantity, metric), curve in curves.items():
        name = f"{_NAMES[quantity]} {metric} stiffness"
        effects += regress(name, curve, curve.near(onset))
    return effects


@claim(
    "C3'",
    "Part of that fall is arithmetic: other arithmetics of the loss gradient measure less "
    "stiffness than there is (not in the paper).",
    "arithmetic",
)
def c3_arithmetic(evidence: Evidence) -> list[Effect]:
    """At the end, within-class sign stiffness of train-train pairs is larger by 0.05 or more with
    exact loss gradients than with those of float32, Keras's clip and bfloat16, as far as they are
    measured. The difference of the cosines is reported: examples without a gradient have none."""
    measured = [name for name in OTHERS if name in evidence.settings["arithmetic"]]
    if not measured:
        raise NotTestable("no arithmetic is measured beside the exact one")
    effects = []
    for metric, holds in zip(METRICS, ((0.05, INF), None), strict=True):
        exact = evidence.curve("within", metric, "train-train")
        for arithmetic in measured:
            other = evidence.curve("within", metric, "train-train", arithmetic)
            what = f"within-class {metric} stiffness at the end, exact minus {arithmetic}"
            value = exact.estimates[-1] - other.estimates[-1]
            drawn = exact.replicates[-1] - other.replicates[-1]
            effects.append(effect(what, value, drawn, holds))
    return effects


@claim(
    "C4",
    "Train-train, train-val and val-val stiffness are remarkably similar.",
    "training_curves",
)
def c4(evidence: Evidence) -> list[Effect]:
    """From epoch 1 on, every two of the three pair modes differ by less than 0.05 (signed
    differences, mean over the epochs), within classes and between them, by sign and by cosine."""
    effects = []
    for quantity, name in _NAMES.items():
        for metric in METRICS:
            curves = {
                mode: evidence.curve(quantity, metric, mode)
                for mode in ("train-train", "train-val", "val-val")
            }
            for one, other in (
                ("train-train", "train-val"),
                ("train-train", "val-val"),
                ("train-val", "val-val"),
            ):
                late = curves[one].late
                if not len(curves[one].epochs[late]):
                    raise NotTestable("no checkpoint from epoch 1 on")
                weights = epoch_weights(curves[one].epochs[late])
                gaps = [
                    (getattr(curves[one], key) - getattr(curves[other], key))[late]
                    for key in ("estimates", "replicates")
                ]
                what = f"{name} {metric} stiffness, {one} minus {other}"
                value, drawn = (weights @ gap for gap in gaps)
                effects.append(effect(what, value, drawn, (-0.05, 0.05)))
    return effects


def epoch_weights(epochs: Floats) -> Floats:
    """Weigh checkpoints by the epochs that they stand for: up to half-way to their neighbours.

    Args:
        epochs: [K], ascending.

    Returns:
        [K], adding up to 1.
    """
    if len(epochs) == 1:
        return np.ones(1)
    middles = (epochs[1:] + epochs[:-1]) / 2
    widths = np.diff(np.concatenate([epochs[:1], middles, epochs[-1:]]))
    return np.asarray(widths / widths.sum())


_C5 = "Within-class stiffness leaves 1 at about the onset of over-fitting"


@claim("C5", f"{_C5}.", "early_stopping")
def c5(evidence: Evidence) -> list[Effect]:
    """The epoch from which within-class sign stiffness stays below 0.99, over the epoch of the
    lowest validation loss, is between a half and 2. Both are means over seeds and are resampled
    together. A run that never leaves 0.99 leaves it after its end: the ratio is then a lower bound
    and its interval is open."""
    return _leaving(evidence, "exact")


def _leaving(evidence: Evidence, arithmetic: str) -> list[Effect]:
    """Measure C5 in one arithmetic of the loss gradient."""
    runs = evidence.runs_of("within", "sign", arithmetic=arithmetic)
    onset = evidence.onset()
    onsets = evidence.alive().set_index("seed")["onset_epoch"]
    at_onset = np.array([float(onsets[run.seed]) for run in runs])
    left = np.array([departure(run.epochs, run.estimates[:, None])[0] for run in runs])
    drawn = np.stack([departure(run.epochs, run.replicates) for run in runs])
    ends = np.array([run.epochs[-1] for run in runs])
    weights = evidence.weights(runs)
    value = np.minimum(left, ends).mean() / at_onset.mean()
    below = np.einsum("sr,s->r", weights, at_onset)
    above = np.einsum("sr,sr->r", weights, np.minimum(drawn, ends[:, None])).clip(min=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(below > 0, above / below, np.nan)
    what = f"epoch of leaving 1 over that of the onset ({onset:.3g})"
    found = effect(what, value, ratios, (0.5, 2.0))
    if np.isinf(left).any() or np.isinf(drawn).any(0).mean() > LARGEST_TAIL:
        found = Effect(f"{what}, at least", found.value, found.low, INF, found.holds)
    return [found]


LARGEST_TAIL = 0.025


def departure(epochs: Floats, values: Floats) -> Floats:
    """Find the epoch from which a stiffness stays below 0.99; infinite where it never does.

    Args:
        epochs: [K], of the checkpoints.
        values: [K, R].

    Returns:
        [R].
    """
    stiff = values >= _STIFF
    last = len(values) - 1 - stiff[::-1].argmax(0)
    later = np.append(epochs[1:], INF)
    return np.where(stiff.any(0), later[last], epochs[0])


def _in(arithmetic: str, of: str) -> str:
    """Write the rule of a claim in another arithmetic."""
    return f"As {of}, with the loss gradients of {arithmetic} arithmetic."


for _arithmetic in OTHERS:
    for _name, _text, _figure, _measure in (
        ("C3", _C3, "arithmetic", _after_onset),
        ("C5", _C5, "arithmetic", _leaving),
    ):
        _rule = partial(_measure, arithmetic=_arithmetic)
        _rule.__doc__ = _in(_arithmetic, _name)
        claim(f"{_name} {_arithmetic}", f"{_text} ({_arithmetic} loss gradients).", _figure)(_rule)


@claim(
    "C6",
    "Sign stiffness separates classes more clearly; cosine stiffness is the more useful within "
    "a class.",
    "stiffness_curves",
)
def c6(evidence: Evidence) -> list[Effect]:
    """The signal-to-noise ratio of a curve is its range over training, over the standard error of
    its checkpoints (root mean square over resamples of the examples). Between classes it is larger
    by sign, within classes larger by cosine: logarithm of the ratio of the two, one number per run,
    Student's t over seeds."""
    effects = []
    for quantity, better, other in (("between", "sign", "cosine"), ("within", "cosine", "sign")):
        runs = {
            metric: {run.seed: signal_to_noise(run) for run in evidence.runs_of(quantity, metric)}
            for metric in METRICS
        }
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = [np.array([runs[metric][seed] for seed in runs[better]]) for metric in METRICS]
            logs = np.log(ratios[0] / ratios[1]) * (1 if better == METRICS[0] else -1)
        what = f"log of signal to noise, {_NAMES[quantity]}, {better} over {other}"
        effects.append(Effect(what, *student_interval(logs), ABOVE_0))
    return effects


def signal_to_noise(run: RunValues) -> float:
    """Compare the range of a run's curve with the noise of its checkpoints; see ``c6``.

    A noise below 0.002, one example of 500, counts as 0.002: resamples of examples that all agree
    have none.
    """
    noise = float(np.sqrt(np.mean(np.nanvar(run.replicates, axis=1))))
    return float(np.ptp(run.estimates)) / max(noise, _LEAST_NOISE)


@claim(
    "C7",
    "CIFAR-100: within-class > super-class > super-super-class > baseline, throughout training.",
    "hierarchy_curves",
)
def c7(evidence: Evidence) -> list[Effect]:
    """The order of the four holds, by sign and by cosine, for nine tenths of the epochs or more
    (checkpoints after initialisation, each weighted by the epochs that it stands for). The share
    for each neighbouring pair is reported."""
    if not evidence.has_hierarchy:
        raise NotTestable("its classes have no hierarchy")
    effects = []
    for metric in METRICS:
        curves = [evidence.curve(quantity, metric) for quantity in _GROUPS]
        values = np.stack([curve.estimates[1:] for curve in curves])
        replicates = np.stack([curve.replicates[1:] for curve in curves])
        weights = epoch_weights(curves[0].epochs[1:])
        ordered, drawn = values[:-1] > values[1:], replicates[:-1] > replicates[1:]
        what = f"share of epochs in order, {metric}"
        effects.append(
            effect(what, float(weights @ ordered.all(0)), weights @ drawn.all(0), (0.9, 1 + 1e-9))
        )
        for place, name in enumerate(_GROUP_NAMES[:-1]):
            what = f"share with {name} above {_GROUP_NAMES[place + 1]}, {metric}"
            effects.append(effect(what, float(weights @ ordered[place]), weights @ drawn[place]))
    return effects


@claim("C8", "CIFAR-100: all four regress towards 0.", "hierarchy_curves")
def c8(evidence: Evidence) -> list[Effect]:
    """From where it is farthest from 0 after initialisation to the end, each of the four (sign)
    loses half of its distance from 0, or less than 0.1 is left; losing less than 5 % contradicts
    the claim. What is never farther than 0.1 from 0 has nothing to lose."""
    if not evidence.has_hierarchy:
        raise NotTestable("its classes have no hierarchy")
    effects = []
    for quantity, name in zip(_GROUPS, _GROUP_NAMES, strict=True):
        curve = evidence.curve(quantity)
        farthest = 1 + int(np.abs(curve.estimates[1:]).argmax())
        effects += regress(f"{name} stiffness", curve, farthest)
    return effects


@claim(
    "C9",
    "BERT on MNLI: within-class stiffness starts high and falls towards 0; between-classes "
    "stiffness starts negative and rises towards 0.",
    "stiffness_curves",
)
def c9(evidence: Evidence) -> list[Effect]:
    """By sign and by cosine: within-class stiffness is above 0.5 before training, between-classes
    stiffness is below 0, and from there to the end both lose half of their distance from 0, or less
    than 0.1 is left; losing less than 5 % contradicts the claim."""
    if evidence.source != "text":
        raise NotTestable("not a text classifier")
    effects = []
    starts: dict[str, Range] = {"within": (0.5, INF), "between": BELOW_0}
    for metric in METRICS:
        for quantity, start in starts.items():
            curve = evidence.curve(quantity, metric)
            what = f"{_NAMES[quantity]} {metric} stiffness"
            before = curve.estimates[0], curve.replicates[0]
            effects.append(effect(f"{what} before training", *before, start, bounds=(-1, 1)))
            effects += regress(what, curve, 0)
    return effects
