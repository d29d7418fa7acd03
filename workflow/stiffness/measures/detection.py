"""How well scores of training examples find those whose label is wrong."""

import numpy as np
import pandas as pd

from stiffness.measures.pairs import Bools, Floats

SCORES = {
    "grand": "GraNd",
    "el2n": "EL2N",
    "loss": "loss",
    "tracin": "TracIn, self-influence",
    "forgetting": "forgetting",
    "own_class_sign": "own-class sign stiffness",
    "own_class_cosine": "own-class cosine stiffness",
}
"""Names of the scores; own-class stiffness counts as suspicious where it is low."""
COLUMNS = ["step", "epoch", "score", "value", "low", "high", "n_wrong", "n_clean"]


def detection(examples: pd.DataFrame, learning_rate: float) -> pd.DataFrame:
    """The area under the ROC curve (AUC) of each score at each checkpoint of one run.

    Args:
        examples: the rows of the table "examples" of all segments of the run.
        learning_rate: of the run, the weight of a checkpoint in TracIn (Pruthi et al.,
            arXiv:2002.08484); the self-influence of an example is the sum over checkpoints so far
            of the rate times its squared gradient norm.

    Returns:
        ``COLUMNS``, with 95 % intervals by Hanley and McNeil's (1982) standard error. An example is
        forgotten when it was right at one checkpoint and is wrong at the next (Toneva et al.,
        arXiv:1812.05159); one that was never right counts as forgotten most often. No rows where no
        label is wrong, or all are.
    """
    train = examples[examples["split"] == "train"].sort_values(["step", "example"])
    wrong = train[train["step"] == train["step"].min()]["mislabelled"].to_numpy(bool)
    if wrong.all() or not wrong.any():
        return pd.DataFrame([], columns=COLUMNS)
    influence, forgotten = np.zeros(len(wrong)), np.zeros(len(wrong))
    learnt, before = np.zeros(len(wrong), bool), np.zeros(len(wrong), bool)
    rows = []
    for (step, epoch), part in train.groupby(["step", "epoch"]):
        correct = part["correct"].to_numpy() == 1
        forgotten += before & ~correct
        learnt, before = learnt | correct, correct
        influence = influence + learning_rate * np.exp(2 * part["log_norm"].to_numpy())
        scores = {
            "grand": part["log_norm"].to_numpy(),  # the exponential keeps the order
            "el2n": part["el2n"].to_numpy(),
            "loss": part["loss"].to_numpy(),
            "tracin": influence,
            "forgetting": np.where(learnt, forgotten, np.inf),
            "own_class_sign": -part["own_class_sign"].to_numpy(),
            # Without a gradient there is nothing to suspect.
            "own_class_cosine": -part["own_class_cosine"].fillna(1).to_numpy(),
        }
        for name, values in scores.items():
            if not np.isnan(values).any():
                about = [step, epoch, name, *area(values, wrong)]
                rows.append([*about, int(wrong.sum()), int((~wrong).sum())])
    return pd.DataFrame(rows, columns=COLUMNS)


def area(scores: Floats, wrong: Bools) -> tuple[float, float, float]:
    """The AUC of scores [N] that should be higher where ``wrong``, and its 95 % interval.

    Examples:
        >>> import numpy as np
        >>> value, low, high = area(np.array([3.0, 2.0, 1.0, 0.0]), np.array([1, 1, 0, 0], bool))
        >>> value
        1.0
    """
    from scipy import stats  # figures that need a constant of this room do without

    positive, negative = int(wrong.sum()), int((~wrong).sum())
    statistic = stats.mannwhitneyu(scores[wrong], scores[~wrong]).statistic
    value = float(statistic / positive / negative)
    first, second = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value)
    variance += (positive - 1) * (first - value**2) + (negative - 1) * (second - value**2)
    error = stats.norm.ppf(0.975) * np.sqrt(max(variance, 0) / positive / negative)
    return value, max(value - error, 0.0), min(value + error, 1.0)
