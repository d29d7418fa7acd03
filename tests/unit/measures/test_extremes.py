"""Which examples and pairs are the stiffest and the least stiff."""

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.measures.extremes import COLUMNS, EXAMPLES, PAIRS, Extremes
from stiffness.measures.pairs import Tile

NAMES = ["zebra", "ant"]
NUM_TRAIN = 9
TARGETS = [0] * 4 + [1] * 5 + [0] * 4 + [1] * 3


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    number = len(TARGETS)
    return Evaluation(
        torch.zeros(number, 1, 1, 1), torch.tensor(TARGETS), torch.arange(number), NUM_TRAIN, NAMES
    )


def cosines(seed: int = 0) -> np.ndarray:
    unit = np.random.default_rng(seed).normal(size=(len(TARGETS), 4))
    unit /= np.linalg.norm(unit, axis=1)[:, None]
    return (unit @ unit.T).astype(np.float32)


def found(evaluation, matrix, predictions=None) -> pd.DataFrame:
    made = Extremes(evaluation)
    train, validation = slice(0, NUM_TRAIN), slice(NUM_TRAIN, len(TARGETS))
    made.add(Tile(train, validation, matrix[train, validation]))
    return pd.DataFrame(made.rows(predictions), columns=COLUMNS)


def rows(table: pd.DataFrame, name: str, group: str, extreme: str) -> pd.DataFrame:
    chosen = table[
        (table["class_name"] == name) & (table["group"] == group) & (table["extreme"] == extreme)
    ]
    assert chosen["place"].tolist() == list(range(len(chosen)))
    return chosen


def pairs_of(label: int, other: bool = False) -> list[tuple[int, int]]:
    train, val = range(NUM_TRAIN), range(NUM_TRAIN, len(TARGETS))
    if not other:
        return [(i, j) for i in train for j in val if TARGETS[i] == TARGETS[j] == label]
    both = [(i, j) for i in train for j in val if TARGETS[i] != TARGETS[j]]
    # The class's own example first.
    return [(i, j) if TARGETS[i] == label else (j, i) for i, j in both]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("label", [0, 1])
def test_every_group_agrees_with_a_search(evaluation, seed, label):
    matrix = cosines(seed)
    table = found(evaluation, matrix)
    name, same = NAMES[label], pairs_of(label)
    members = sorted({example for pair in same for example in pair})
    means = {m: np.mean([matrix[pair] for pair in same if m in pair]) for m in members}
    for extreme, sign in (("most", -1), ("least", 1)):
        order = sorted(members, key=lambda m: sign * means[m])[:EXAMPLES]
        examples = rows(table, name, "example", extreme)
        assert examples["first"].tolist() == order
        np.testing.assert_allclose(examples["value"], [means[m] for m in order], atol=1e-6)
        assert set(examples["second"]) == {-1}
        assert set(examples["second_name"]) == {""}
        pairs = rows(table, name, "pair", extreme)
        best = min(same, key=lambda pair: sign * matrix[pair])
        apart = [pair for pair in same if not set(pair) & set(best)]
        second = min(apart, key=lambda pair: sign * matrix[pair])
        assert list(zip(pairs["first"], pairs["second"], strict=True)) == [best, second]
        assert pairs["value"].tolist() == [pytest.approx(float(matrix[p])) for p in (best, second)]
    others = rows(table, name, "other class", "most")
    best = max(pairs_of(label, other=True), key=lambda pair: matrix[pair])
    assert (others["first"].iloc[0], others["second"].iloc[0]) == best
    assert others["value"].is_monotonic_decreasing
    assert set(others["second_name"]) == {NAMES[1 - label]}
    assert len(set(others["first"]) | set(others["second"])) == 2 * PAIRS
    mean = np.mean([float(matrix[pair]) for pair in same])
    assert table.loc[table["class_name"] == name, "class_mean"].unique() == pytest.approx(mean)


def test_examples_without_a_gradient_are_in_no_group(evaluation):
    matrix = cosines()
    gone = [0, 10]
    matrix[gone] = matrix[:, gone] = np.nan
    table = found(evaluation, matrix)
    assert not set(gone) & (set(table["first"]) | set(table["second"]))
    assert np.isfinite(table["value"]).all()


def test_a_class_without_a_gradient_has_no_rows(evaluation):
    matrix = cosines()
    zebras = np.flatnonzero(np.array(TARGETS) == 0)
    matrix[zebras] = matrix[:, zebras] = np.nan
    table = found(evaluation, matrix)
    assert set(table["class_name"]) == {"ant"}
    assert set(table["group"]) == {"example", "pair"}


def test_predictions_are_those_of_the_examples(evaluation):
    predictions = np.arange(len(TARGETS)) % 2
    table = found(evaluation, cosines(), predictions)
    for side in ("first", "second"):
        named = ["" if e < 0 else NAMES[e % 2] for e in table[side]]
        assert table[f"predicted_{side}"].tolist() == named
    unknown = found(evaluation, cosines())
    assert set(unknown["predicted_first"]) == {""}
