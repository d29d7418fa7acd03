"""Tests of the predictions on arithmetic: each bound is tried from both sides."""

from itertools import product

import pandas as pd
import pytest

from stiffness.report.predictions import predictions

EPOCHS = (0.0, 1.0, 2.0, 3.0)
SEEDS = (0, 1)
CONFIDENT = {0.0: 0.0, 1.0: 0.0, 2.0: 0.3, 3.0: 0.6}
# Of all pairs, those of which the clip leaves both examples a gradient.
KEPT = {0.0: 100, 1.0: 100, 2.0: 49, 3.0: 16}
SIGN = {
    "exact": {0.0: 1.0, 1.0: 1.0, 2.0: 0.98, 3.0: 0.95},
    "float64": {0.0: 1.0, 1.0: 1.0, 2.0: 0.98, 3.0: 0.95},
    "keras": {0.0: 1.0, 1.0: 1.0, 2.0: 0.4802, 3.0: 0.152},
    "float32": {0.0: 1.0, 1.0: 1.0, 2.0: 0.95, 3.0: 0.8},
    "bfloat16": {0.0: 1.0, 1.0: 0.99, 2.0: 0.92, 3.0: 0.5},
}


def tables(
    sign: dict[tuple[str, float], float] | None = None,
    coherence: dict[str, float] | None = None,
    confident: dict[float, float] | None = None,
    onset: float = 1.0,
) -> dict[str, pd.DataFrame]:
    """Two equal runs; ``sign`` changes some values of the second."""
    confident = confident or CONFIDENT
    summary, sibling, shares = [], [], []
    for seed, epoch, name in product(SEEDS, EPOCHS, SIGN):
        key = {"seed": seed, "epoch": epoch, "arithmetic": name, "status": "ok"}
        value = (sign or {}).get((name, epoch), SIGN[name][epoch]) if seed else SIGN[name][epoch]
        for quantity, metric in product(("within", "between"), ("sign", "cosine")):
            pairs = KEPT[epoch] if name == "keras" and metric == "cosine" else 100
            about = {"quantity": quantity, "metric": metric, "pair_mode": "train-train"}
            summary.append(key | about | {"value": value, "n_pairs": pairs})
        norms = {"norm_weighted_within": 0.5, "m_coherence": 20 * (coherence or {}).get(name, 1)}
        for quantity, value in (norms | {"cosine_within_with_zeros": 0.2}).items():
            about = {"quantity": quantity, "pair_mode": "train-train"}
            sibling.append(key | about | {"value": value})
        shares.append(key | {"split": "train", "quantity": "confident", "value": confident[epoch]})
    runs = pd.DataFrame({"seed": SEEDS, "status": "ok", "onset_epoch": onset})
    return {
        "runs": runs,
        "summaries": pd.DataFrame(summary),
        "siblings": pd.DataFrame(sibling),
        "confidence": pd.DataFrame(shares),
    }


def verdict(what: str, **changed: object) -> str:
    table = predictions(**tables(**changed)).set_index("what")  # type: ignore[arg-type]
    return str(table.loc[what, "verdict"])


CLOSE = "float32 minus exact where c = 0, sign within classes"
LEAST = "exact sign within classes, least"
LOST = "share of it lost since the onset, most of any seed"
FLOAT64 = "float64 minus exact, sign within classes"
LATER = "first epoch with sign within classes below 0.9, float32"
BELOW = "share of checkpoints with bfloat16 <= float32"
ONSET = "keras sign within classes at onsets where c = 0, least"
COHERENCE = "m-coherence, keras by exact, minus 1"


@pytest.mark.parametrize(
    ("what", "holds", "fails"),
    [
        (CLOSE, {("float32", 1.0): 0.981}, {("float32", 1.0): 0.979}),
        (CLOSE, {("float32", 2.0): 0.5}, {("float32", 0.0): 1.021}),
        (LEAST, {("exact", 2.0): 0.901}, {("exact", 2.0): 0.9}),
        (LOST, {("exact", 3.0): 0.51}, {("exact", 3.0): 0.49}),
        (FLOAT64, {("float64", 3.0): 0.9549}, {("float64", 3.0): 0.9551}),
        (LATER, {}, {("float32", 2.0): 0.84}),  # mean 0.895, as early as under the clip
        (BELOW, {("bfloat16", 2.0): 0.95}, {("bfloat16", 2.0): 0.951}),
        (ONSET, {("keras", 1.0): 0.991}, {("keras", 1.0): 0.989}),
    ],
)
def test_bounds_decide(
    what: str, holds: dict[tuple[str, float], float], fails: dict[tuple[str, float], float]
) -> None:
    assert verdict(what, sign=holds) == "holds"
    assert verdict(what, sign=fails) == "fails"


def test_measures_that_weight_by_norms() -> None:
    assert verdict(COHERENCE, coherence={"keras": 1.0099}) == "holds"
    assert f"{COHERENCE}: checkpoints" not in set(predictions(**tables())["what"])
    assert verdict(COHERENCE, coherence={"keras": 0.9899}) == "fails"
    table = predictions(**tables(coherence={"keras": 0.9})).set_index("what")["value"]
    assert table[f"{COHERENCE}: checkpoints"] == len(SEEDS) * len(EPOCHS)


def test_what_has_no_checkpoint_to_show_it_cannot_be_told() -> None:
    confident = dict.fromkeys(EPOCHS, 0.1) | {3.0: 0.2}
    assert verdict(CLOSE, confident=confident) == "cannot be told"
    assert verdict(ONSET, confident=confident) == "cannot be told"
    assert verdict(ONSET, onset=2.0) == "cannot be told"


def test_the_clip_leaves_exact_stiffness_times_the_share_of_pairs() -> None:
    table = predictions(**tables()).set_index("what")["value"]
    name = "keras minus exact times the share of pairs left, sign within classes"
    assert table[name] == pytest.approx(0, abs=1e-12)
    off = predictions(**tables(sign={("keras", 3.0): 0.252})).set_index("what")["value"]
    assert off[name] == pytest.approx(0.1)
    assert table["rank correlation of keras sign with c, weakest of any seed"] == pytest.approx(-1)


def test_an_early_dip_is_told_from_a_fall() -> None:
    changed = {("exact", 0.0): 0.8, ("keras", 0.0): 0.7}
    table = predictions(**tables(sign=changed)).set_index("what")["value"]
    assert table["exact sign within classes, least"] == 0.8
    assert table["exact sign within classes from the onset on, least"] == 0.95
    assert table["first epoch with sign within classes below 0.9, keras"] == 0
    assert table["epoch from which it stays below 0.9, keras"] == 2
    assert table["epoch from which it stays below 0.9, float32"] == 3


def test_numbers_stand_under_the_prediction_that_names_them() -> None:
    found = predictions(**tables())
    first = found.groupby("prediction")["what"].first()
    assert first[[1, 4]].tolist() == [CLOSE, LEAST]
    assert found["prediction"].value_counts(sort=False).to_dict() == {
        1: 2,
        2: 7,
        3: 7,
        4: 4,
        5: 3,
        6: 4,
    }
    assert found["prediction"].is_monotonic_increasing


def test_arithmetics_that_were_not_measured_are_left_out() -> None:
    given = tables()
    only = {
        name: table[table["arithmetic"].isin(["exact", "float32"])] if name != "runs" else table
        for name, table in given.items()
    }
    table = predictions(**only)
    assert not table["what"].str.contains("keras|bfloat16|float64").any()
    assert set(table["prediction"]) == {1, 3, 4, 5, 6}
