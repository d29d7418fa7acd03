"""The paper's claims and the rules that decide them, the same for every experiment.

The rules are the docstrings of the functions in ``class_claims``, ``length_claims`` and
``accuracy_claims``, as the report prints them. To add a claim, write such a function:

    >>> from stiffness.report.effects import CLAIMS, Effect, claim
    >>> from stiffness.report.evidence import Evidence
    >>> @claim("C19", "Training takes fewer than 100 epochs.", figure="training_curves")
    ... def c19(evidence: Evidence) -> list[Effect]:
    ...     '''Every run ends before epoch 100.'''
    ...     last = float(evidence.history["epoch"].max())
    ...     return [Effect("last epoch", last, low=last, high=last, holds=(0, 100))]
    >>> CLAIMS.pop().rule
    'Every run ends before epoch 100.'

Unless a rule says otherwise: the reference learning rate, the mean over its seeds that did not die,
train-val pairs, exact loss gradients, and "the end" is the last checkpoint.
"""

import re

from stiffness.report import accuracy_claims, class_claims, length_claims
from stiffness.report.effects import CLAIMS, Claim

__all__ = ["CLAIMS", "accuracy_claims", "class_claims", "length_claims"]


def _number(one: Claim) -> int:
    return int(re.findall(r"\d+", one.name)[0])


# In the order of their numbers; those of one number in the order in which they are registered.
CLAIMS.sort(key=_number)
