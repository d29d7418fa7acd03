"""Effects, which decide claims, and the register of claims.

An effect is a number with a 95 % interval, the range in which a claim holds and the range in which
it fails. It supports the claim where its whole interval lies in the first, contradicts it where the
whole interval lies in the second, and decides nothing otherwise. An effect with p-values decides by
them instead. An experiment supports a claim where all its effects do, and contradicts it where one
does.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import getdoc

import numpy as np

from stiffness.measures.bootstrap import interval_around
from stiffness.measures.pairs import Floats
from stiffness.report.evidence import Curve, Evidence

SUPPORTED, CONTRADICTED, UNDECIDED = "supported", "contradicted", "not decided"
INF = float("inf")
Range = tuple[float, float]
BELOW_0, ABOVE_0 = (-INF, -1e-9), (1e-9, INF)
LEVEL = 0.05
"""Of one-sided tests."""
NEAR_0 = 0.1
"""What counts as 0 where a stiffness "regresses to 0"."""


@dataclass(frozen=True)
class Effect:
    """A number measured for a claim.

    Attributes:
        what: the name of the number, as the report prints it.
        value: the estimate; it lies between ``low`` and ``high`` where these are known.
        low: the lower end of its 95 % interval.
        high: the upper end.
        holds: the closed range in which the claim holds; None for a number that decides nothing.
        fails: the closed range in which it fails; None for all that lies outside ``holds``.
        p_holds: one-sided p-value of a test for the claim; NaN without a test.
        p_fails: the same for its opposite.
    """

    what: str
    value: float
    low: float
    high: float
    holds: Range | None = None
    fails: Range | None = None
    p_holds: float = float("nan")
    p_fails: float = float("nan")

    @property
    def verdict(self) -> str:
        """What the number says of the claim; "" if it decides nothing."""
        if self.holds is None:
            return ""
        if not np.isnan(self.p_holds):
            if self.p_holds <= LEVEL:
                return SUPPORTED
            return CONTRADICTED if self.p_fails <= LEVEL else UNDECIDED
        least, most = self.holds
        if least <= self.low and self.high <= most:
            return SUPPORTED
        if self.fails is None:
            against = self.high < least or self.low > most
        else:
            against = self.fails[0] <= self.low and self.high <= self.fails[1]
        return CONTRADICTED if against else UNDECIDED


@dataclass(frozen=True)
class Claim:
    """A claim of the paper.

    Attributes:
        name: such as "C1".
        text: the claim in words.
        figure: the kind of figure that shows it.
        measure: the function that measures it; its docstring is the rule.
        seeds: the least number of seeds that settles it.
        all_rates: whether so many seeds of every learning rate are needed, not of the reference
            rate alone.
    """

    name: str
    text: str
    figure: str
    measure: Callable[[Evidence], list[Effect]]
    seeds: int = 3
    all_rates: bool = False

    @property
    def rule(self) -> str:
        """The rule that decides the claim, as the report prints it."""
        return " ".join((getdoc(self.measure) or "").split())


CLAIMS: list[Claim] = []

Measure = Callable[[Evidence], list[Effect]]


def claim(
    name: str, text: str, figure: str, seeds: int = 3, all_rates: bool = False
) -> Callable[[Measure], Measure]:
    """Register a function as the measurement of a claim.

    Args:
        name: such as "C1".
        text: the claim in words.
        figure: the kind of figure that shows it, a name of ``plan.kinds.KINDS``.
        seeds: see ``Claim``.
        all_rates: see ``Claim``.

    Returns:
        A decorator. The function below it gets one experiment's ``Evidence`` and returns effects.
        It raises ``NotTestable`` where the experiment cannot speak to the claim, and ``TooShort``
        where its runs ended too early to.
    """

    def register(measure: Measure) -> Measure:
        CLAIMS.append(Claim(name, text, figure, measure, seeds, all_rates))
        return measure

    return register


def effect(
    what: str,
    value: float,
    replicates: Floats,
    holds: Range | None = None,
    fails: Range | None = None,
    bounds: Range = (-INF, INF),
) -> Effect:
    """Make an effect from an estimate and its resamples, in the bounds that the quantity has."""
    low, high = np.clip(interval_around(float(value), replicates), *bounds).tolist()
    return Effect(what, float(value), low, high, holds, fails)


def change(what: str, curve: Curve, first: int, last: int, holds: Range | None) -> Effect:
    """Make the effect of a curve's change from one checkpoint to another."""
    difference = curve.estimates[last] - curve.estimates[first]
    return effect(what, difference, curve.replicates[last] - curve.replicates[first], holds)


def regress(what: str, curve: Curve, start: int) -> list[Effect]:
    """Tell whether a curve regresses to 0 from one checkpoint to the end.

    It does where half of its distance from 0 is lost, or where less than ``NEAR_0`` is left. It
    does not where less than 5 % is lost. What was near 0 at the start has nothing to lose.

    Returns:
        Two effects, what is left and the share that is lost. One decides, or none.
    """
    was, left = curve.estimates[start], curve.estimates[-1]
    drawn, drawn_left = curve.replicates[start], curve.replicates[-1]
    since = f"epoch {curve.epochs[start]:.3g}"
    end = effect(f"{what} at the end", left, drawn_left, (-NEAR_0, NEAR_0), bounds=(-1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = 1 - abs(left) / np.abs(was)
        shares = 1 - np.abs(drawn_left) / np.abs(drawn)
    name = f"share of {what} lost since {since}"
    if effect("", was, drawn, (-NEAR_0, NEAR_0)).verdict == SUPPORTED:
        return [reported(end), effect(f"{name} (near 0 then)", share, shares)]
    if end.verdict == SUPPORTED:
        return [end, effect(name, share, shares)]
    return [reported(end), effect(name, share, shares, (0.5, INF), (-INF, 0.05))]


def reported(one: Effect) -> Effect:
    """Keep an effect as a number that decides nothing."""
    return replace(one, holds=None, fails=None)
