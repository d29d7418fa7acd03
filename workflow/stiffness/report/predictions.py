"""The predictions of docs/arithmetic.md, held against the tables of an experiment.

They were written down before the runs were made. Numbers are worst cases over all checkpoints and
all living seeds, of training examples with training examples. A bound is the one that the
prediction names.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from stiffness.files import rows

HOLDS, FAILS, UNTESTED = "holds", "fails", "cannot be told"
_KEY = ["seed", "epoch"]
_STIFF = 0.9  # what a sign stiffness falls below when it falls
_UNNOTICED = 0.01  # of the value
_NORM_WEIGHTED = {"norm_weighted_within": "norm-weighted stiffness", "m_coherence": "m-coherence"}
_Row = tuple[int, str, float, str, bool | None]


def predictions(
    runs: pd.DataFrame,
    summaries: pd.DataFrame,
    siblings: pd.DataFrame,
    confidence: pd.DataFrame,
) -> pd.DataFrame:
    """Hold the predictions on the loss gradient's arithmetic against one experiment's tables.

    Args:
        runs: the table of this name, of one learning rate.
        summaries, siblings, confidence: the tables summary, siblings and confidence of all
            arithmetics, each in one, with a column arithmetic.

    Returns:
        One row per number: prediction (1 to 6; 7 says the same of networks that were trained with
        the clipped loss), what, value, bound and verdict. Bound and verdict are "" where the
        prediction names no bound. The verdict is "cannot be told" where no checkpoint meets the
        prediction's condition. Predictions on arithmetics that were not measured are left out.
    """
    found = _Found(runs, summaries, siblings, confidence)
    table = pd.DataFrame(_all(found), columns=["prediction", "what", "value", "bound", "verdict"])
    verdicts = {True: HOLDS, False: FAILS, None: UNTESTED}
    table["verdict"] = table["verdict"].map(verdicts).where(table["bound"] != "", "")
    return table


@dataclass(frozen=True)
class _Found:
    runs: pd.DataFrame
    summaries: pd.DataFrame
    siblings: pd.DataFrame
    confidence: pd.DataFrame

    def summary(
        self, arithmetic: str, quantity: str = "within", metric: str = "sign", of: str = "value"
    ) -> pd.Series:
        """A number of every checkpoint, by seed and epoch."""
        wanted = {"quantity": quantity, "metric": metric, "arithmetic": arithmetic}
        table = rows(self.summaries, pair_mode="train-train", status="ok", **wanted)
        return table.set_index(_KEY)[of]

    def sibling(self, arithmetic: str, quantity: str) -> pd.Series:
        wanted = {"quantity": quantity, "arithmetic": arithmetic}
        table = rows(self.siblings, pair_mode="train-train", status="ok", **wanted)
        return table.set_index(_KEY)["value"]

    @cached_property
    def confident(self) -> pd.Series:
        """The share of examples with 1 - p_y < 1e-7."""
        wanted = {"quantity": "confident", "arithmetic": "exact"}
        table = rows(self.confidence, split="train", status="ok", **wanted)
        return table.set_index(_KEY)["value"]

    @cached_property
    def onsets(self) -> list[tuple[int, float]]:
        """Seed and epoch of the lowest validation loss of every run."""
        alive = rows(self.runs, status="ok")
        return list(zip(alive["seed"], alive["onset_epoch"], strict=True))

    def others(self, *names: str) -> list[str]:
        return [name for name in names if name in set(self.summaries["arithmetic"])]


def _all(found: _Found) -> Iterator[_Row]:
    exact = found.summary("exact")
    yield from _unclipped(found, exact)
    if found.others("keras"):
        yield from _clip(found)
    yield from _order(found)
    least, lost = exact.min(), _lost(found, exact)
    yield 4, "exact sign within classes, least", least, "> 0.9", least > _STIFF
    yield 4, "share of it lost since the onset, most of any seed", lost, "< 0.5", lost < 0.5
    yield 4, "exact sign within classes from the onset on, least", _after(found, exact), "", None
    for name in found.others("float64"):
        off = (found.summary(name) - exact).abs().max()
        yield 4, "float64 minus exact, sign within classes", off, "< 0.005", off < 0.005
    yield from _onset(found)
    for quantity, called in _NORM_WEIGHTED.items():
        for name in found.others("float32", "keras"):
            offs = (found.sibling(name, quantity) / found.sibling("exact", quantity) - 1).abs()
            what, off = f"{called}, {name} by exact, minus 1", offs.max()
            yield 6, what, off, "< 0.01", off < _UNNOTICED
            if off >= _UNNOTICED:
                yield 6, f"{what}: checkpoints", (offs >= _UNNOTICED).sum(), "", None
                yield 6, f"{what}: the others", offs[offs < _UNNOTICED].max(), "", None


def _unclipped(found: _Found, exact: pd.Series) -> Iterator[_Row]:
    calm = found.confident.index[found.confident == 0]
    for name in found.others("float32", "keras"):
        off = (found.summary(name) - exact).loc[calm].abs().max()
        what = f"{name} minus exact where c = 0, sign within classes"
        yield 1, what, off, "< 0.02", off < 0.02 if len(calm) else None


def _clip(found: _Found) -> Iterator[_Row]:
    for quantity, name in {"within": "within classes", "between": "between classes"}.items():
        # A pair has a cosine where the clip leaves both of its examples a gradient.
        pairs = {
            metric: found.summary("keras", quantity, metric, "n_pairs")
            for metric in ("sign", "cosine")
        }
        left = found.summary("exact", quantity) * pairs["cosine"] / pairs["sign"]
        off = (found.summary("keras", quantity) - left).abs().max()
        yield 2, f"keras minus exact times the share of pairs left, sign {name}", off, "", None
    for what, values in {
        "c at the end": found.confident,
        "keras sign within classes at the end": found.summary("keras"),
        "exact cosine within classes at the end": found.summary("exact", metric="cosine"),
        "keras cosine at the end, zeros left out": found.summary("keras", metric="cosine"),
        "keras cosine at the end, zeros as 0": found.sibling("keras", "cosine_within_with_zeros"),
    }.items():
        yield 2, f"{what}, mean over seeds", _last(values).mean(), "", None


def _order(found: _Found) -> Iterator[_Row]:
    first = {}
    for name in found.others("keras", "float32", "bfloat16"):
        mean = found.summary(name).groupby("epoch").mean()
        first[name] = float(mean.index[mean < _STIFF].min())
        what = f"first epoch with sign within classes below 0.9, {name}"
        if name == "keras" or "keras" not in first:
            yield 3, what, first[name], "", None
        else:
            yield 3, what, first[name], "later than keras", not first[name] <= first["keras"]
        last_high = mean.index[mean >= _STIFF].max()  # NaN where there is none
        stays = mean.index[~(mean.index <= last_high)].min()
        yield 3, f"epoch from which it stays below 0.9, {name}", float(stays), "", None
    if len(found.others("float32", "bfloat16")) == 2:
        share = (found.summary("bfloat16") <= found.summary("float32")).mean()
        yield 3, "share of checkpoints with bfloat16 <= float32", share, "1", share == 1


def _lost(found: _Found, curve: pd.Series) -> float:
    """The largest share of its value at the onset that a run's curve has lost at the end."""
    return max(1 - _last(curve)[seed] / curve[seed, onset] for seed, onset in found.onsets)


def _after(found: _Found, curve: pd.Series) -> float:
    """The least value of a curve from each run's onset on."""
    return float(min(curve[seed].loc[onset:].min() for seed, onset in found.onsets))


def _onset(found: _Found) -> Iterator[_Row]:
    confident, clipped = found.confident, found.others("keras")
    at_onset = [confident[run] for run in found.onsets]
    yield 5, "c at the onset, least of any seed", min(at_onset), "", None
    for name in clipped:
        calm = [found.summary(name)[run] for run in found.onsets if confident[run] == 0]
        least = min(calm, default=float("nan"))
        what = f"{name} sign within classes at onsets where c = 0, least"
        yield 5, what, least, "> 0.99", least > 0.99 if calm else None
        follows = [
            confident[seed].corr(found.summary(name)[seed], method="spearman")
            for seed, _ in found.onsets
        ]
        yield (
            5,
            f"rank correlation of {name} sign with c, weakest of any seed",
            max(follows),
            "",
            None,
        )


def _last(curve: pd.Series) -> pd.Series:
    """The value at each seed's last checkpoint."""
    return curve.sort_index().groupby("seed").last()
