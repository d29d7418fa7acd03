"""Rules for claims on accuracy and on the size of the evaluation subset: C14 to C16."""

from itertools import combinations

import numpy as np

from stiffness.files import rows
from stiffness.measures.bootstrap import wilson_interval
from stiffness.measures.pairs import Floats
from stiffness.measures.seeds import seed_means, student_interval
from stiffness.report.effects import INF, Effect, claim
from stiffness.report.evidence import Evidence, NotTestable, TooShort
from stiffness.training.runs import OK

_LATE = 0.8  # of a run; one whose best accuracy comes later was still improving


def still_improving(evidence: Evidence, rate: str) -> bool:
    """Tell whether the best validation accuracy of a rate lies in the last fifth of its runs.

    The accuracy is the mean over the seeds that are alive.
    """
    history = rows(evidence.history, lr=rate, seed=set(evidence.alive(rate)["seed"]))
    accuracy = history.groupby("epoch")["validation_accuracy"].mean()
    return bool(accuracy.idxmax() > _LATE * accuracy.index.max())


@claim(
    "C14",
    "Accuracy is equal across those learning rates although stiffness is not.",
    "equal_loss",
    seeds=5,
    all_rates=True,
)
def c14(evidence: Evidence) -> list[Effect]:
    """Of every two learning rates, the best validation accuracies differ by less than 0.01 (signed
    differences of runs with the same seed, Student's t over seeds), and the largest difference of
    their within-class cosine stiffness at the end is above 0.05. The intervals of largest
    differences make up for the choice among all pairs of rates (Bonferroni). Too short where the
    best accuracy of a rate lies in the last fifth of its runs."""
    rates = sorted(rows(evidence.runs, status=OK)["lr"].unique(), key=float)
    if len(rates) < 2:
        raise NotTestable("it has one learning rate")
    best = {
        rate: dict(zip(alive["seed"], alive["best_validation_accuracy"].astype(float), strict=True))
        for rate in rates
        for alive in [evidence.alive(rate)]
    }
    ends = {
        rate: {
            run.seed: float(run.estimates[-1])
            for run in evidence.runs_of("within", "cosine", lr=rate)
        }
        for rate in rates
    }
    pairs = list(combinations(rates, 2))
    accuracies = [_differences(best[one], best[other]) for one, other in pairs]
    intervals = [student_interval(one) for one in accuracies]
    largest, between = _largest(accuracies, pairs)
    effects = [
        Effect(
            "signed differences of the best validation accuracies of two rates, the whole range",
            largest.value,
            min(low for _, low, _ in intervals),
            max(high for *_, high in intervals),
            (-0.01, 0.01),
        ),
        Effect(
            f"largest difference of the best validation accuracies ({between})",
            largest.value,
            largest.low,
            largest.high,
            (-0.01, 0.01),
        ),
    ]
    stiffness, between = _largest([_differences(ends[a], ends[b]) for a, b in pairs], pairs)
    sign = 1 if stiffness.value >= 0 else -1
    low, high = sorted((sign * stiffness.low, sign * stiffness.high))
    effects.append(
        Effect(
            f"largest difference of within-class cosine stiffness at the end ({between})",
            sign * stiffness.value,
            low,
            high,
            (0.05, INF),
        )
    )
    slow = [rate for rate in rates if still_improving(evidence, rate)]
    if slow:
        raise TooShort(f"accuracy is still improving at {', '.join(slow)}", effects)
    return effects


def _differences(one: dict[int, float], other: dict[int, float]) -> Floats:
    """Subtract the first from the second, seed by seed."""
    shared = sorted(set(one) & set(other))
    if not shared:
        raise NotTestable("two learning rates share no seed")
    return np.array([other[seed] - one[seed] for seed in shared])


def _largest(differences: list[Floats], pairs: list[tuple[str, str]]) -> tuple[Effect, str]:
    """Return the largest mean difference, with Bonferroni's interval, and which rates it is of."""
    place = int(np.argmax([abs(one.mean()) for one in differences]))
    one, other = pairs[place]
    ends = student_interval(differences[place], 1 - 0.05 / len(pairs))
    return Effect("", *ends), f"{other} minus {one}"


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
    """The best validation accuracy (mean over seeds; Wilson interval) is 0.58 or more. Too short
    where a lower one lies in the last fifth of the run."""
    settings = evidence.settings
    if settings["model"]["name"] != "resnet20v1" or not settings["dataset"].startswith("cifar100"):
        raise NotTestable("not a ResNet20v1 on CIFAR-100")
    best = float(evidence.alive()["best_validation_accuracy"].mean())
    number = evidence.validation_examples()
    ends = wilson_interval(round(best * number), number)
    low, high = min(ends[0], best), max(ends[1], best)
    found = Effect("best validation accuracy", best, low, high, (0.58, 1.0))
    if low < 0.58 and still_improving(evidence, evidence.reference):
        raise TooShort("accuracy is still improving at the end", [found])
    return [found]
