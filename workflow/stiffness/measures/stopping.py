"""Early stopping by the stiffness of the training set alone, beside the validation loss (C5)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stiffness.measures.bootstrap import percentile_interval
from stiffness.measures.replicates import RunValues

VALIDATION_LOSS, LAST_EPOCH = "validation loss", "last epoch"
WATCH_FROM = 1.0
"""Epochs; before it stiffness still settles from where the network started."""
PATIENCE = 2
"""Checkpoints in a row that must lie below the highest before them."""

COLUMNS = [
    "lr",
    "seed",
    "rule",
    "epoch",
    "reached",
    "validation_loss",
    "validation_accuracy",
]


def find_fall(run: RunValues) -> int | None:
    """Find the checkpoint before stiffness starts to fall.

    A checkpoint lies below the highest one before it (from epoch 1 on) if the 95 % bootstrap
    interval of their difference, over the same examples, lies below 0. ``PATIENCE`` checkpoints in
    a row make a fall.

    Args:
        run: within-class stiffness of one run.

    Returns:
        The place of the checkpoint; None where stiffness does not fall.
    """
    watched = np.flatnonzero(run.epochs >= WATCH_FROM)
    below = 0
    for number, place in enumerate(watched[1:], start=1):
        highest = watched[:number][np.argmax(run.estimates[watched[:number]])]
        _, high = percentile_interval(run.replicates[place] - run.replicates[highest])
        below = below + 1 if high < 0 else 0
        if below == PATIENCE:
            return int(watched[number - PATIENCE])
    return None


def stopping_table(runs: dict[str, Sequence[RunValues]], history: pd.DataFrame) -> pd.DataFrame:
    """Tabulate where each rule stops each run, and how good the network is there.

    Args:
        runs: within-class stiffness of train-train pairs by the name of the rule.
        history: the experiment's table of losses and accuracies.

    Returns:
        One row per run and rule. ``reached`` is False where the rule never stops the run, whose
        last checkpoint then counts (for the validation loss: its minimum is the last checkpoint).
    """
    rows = []
    alive = {(run.lr, run.seed) for of_rule in runs.values() for run in of_rule}
    for (lr, seed), table in history.groupby(["lr", "seed"]):
        if (lr, seed) not in alive:
            continue
        table = table.sort_values("step")
        last = len(table) - 1
        stops: dict[str, tuple[int, bool]] = {}
        lowest = int(table["validation_loss"].to_numpy().argmin())
        stops[VALIDATION_LOSS] = (lowest, lowest < last)
        for name, of_rule in runs.items():
            run = next(one for one in of_rule if (one.lr, one.seed) == (lr, seed))
            place = find_fall(run)
            if place is None:
                stops[name] = (last, False)
            else:
                stops[name] = (int(table["epoch"].searchsorted(run.epochs[place])), True)
        stops[LAST_EPOCH] = (last, True)
        for name, (place, reached) in stops.items():
            at = table.iloc[place]
            rows.append(
                {"lr": lr, "seed": seed, "rule": name, "epoch": at["epoch"], "reached": reached}
                | {key: at[key] for key in ("validation_loss", "validation_accuracy")}
            )
    return pd.DataFrame(rows, columns=COLUMNS)
