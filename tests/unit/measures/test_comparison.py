"""Learning rates at equal epoch and equal loss, against loops and known answers."""

import numpy as np
import pytest
from scipy import stats

from stiffness.measures.comparison import compare, kendall_tau
from stiffness.measures.equal_loss import EPOCH, LOSS
from stiffness.measures.replicates import RunValues


def run(lr="1e-3", seed=0, epochs=(0, 1, 2, 4), losses=(2.0, 1.0, 0.5, 0.25), values=None, **rest):
    values = np.array(epochs if values is None else values, float)
    replicates = rest.get("replicates", np.repeat(values[:, None], 3, 1))
    return RunValues(
        lr, seed, np.array(epochs, float), np.array(losses, float), values, np.array(replicates)
    )


# --- order ---------------------------------------------------------------------------------------


def test_tau_of_single_runs_is_kendalls():
    values = np.array([0.3, 0.1, 0.9, 0.7, 0.8])
    groups, ones = [v * np.ones((1, 1)) for v in values], [np.ones((1, 1))] * 5
    expected = stats.kendalltau(np.arange(5), values).statistic
    assert kendall_tau(groups, ones)[0] == pytest.approx(expected)


def test_tau_counts_all_pairs_of_seeds_and_knows_no_crossing_as_largest():
    small, large = np.array([[1.0], [3.0]]), np.array([[2.0], [np.inf]])
    even = np.full((2, 1), 0.5)
    assert kendall_tau([small, large], [even, even])[0] == pytest.approx((1 + 1 - 1 + 1) / 4)
    never = np.full((2, 1), np.inf)
    assert kendall_tau([never, never], [even, even])[0] == 0


def test_undefined_values_do_not_count():
    groups = [np.array([[1.0]]), np.array([[np.nan]]), np.array([[2.0]])]
    assert kendall_tau(groups, [np.ones((1, 1))] * 3)[0] == 1


# --- tables --------------------------------------------------------------------------------------


def noisy(lr: str, seed: int, level: float, noise: float = 0.01) -> RunValues:
    generator = np.random.default_rng([seed, int(float(lr) * 1e5)])
    values = level + generator.normal(0, noise, 4)
    replicates = values[:, None] + generator.normal(0, noise, (4, 200))
    return run(lr, seed, values=values, replicates=replicates)


@pytest.mark.parametrize("sign", [1, -1])
def test_an_order_by_learning_rate_is_found(sign):
    runs = [
        noisy(lr, seed, 0.5 + sign * 0.1 * place)
        for place, lr in enumerate(("1e-4", "1e-3", "1e-2"))
        for seed in range(3)
    ]
    levels, order = compare({("within", "train-val", "cosine"): runs}, seed=0)
    assert set(order["by"]) == {EPOCH, LOSS}
    np.testing.assert_allclose(order["tau"], sign)
    assert (np.sign([order["low"], order["high"]]) == sign).all()
    last = levels[(levels["by"] == EPOCH) & (levels["level"] == 4)]
    np.testing.assert_allclose(last["value"], 0.5 + sign * 0.1 * np.arange(3), atol=0.02)
    assert ((last["low"] < last["value"]) & (last["value"] < last["high"])).all()
    assert (last["seeds"] == 3).all()


def test_no_order_is_not_found():
    """Under the null hypothesis the interval holds 0 in about 95 % of trials."""
    missed = 0
    for trial in range(60):
        runs = [
            noisy(lr, 100 * trial + seed, 0.5)
            for lr in ("1e-4", "3e-4", "1e-3", "3e-3", "1e-2")
            for seed in range(3)
        ]
        _, order = compare({("within", "train-val", "cosine"): runs}, seed=trial)
        row = order[order["by"] == EPOCH].iloc[0]
        missed += not row["low"] <= 0 <= row["high"]
    assert missed <= 8  # of 60; 3 expected, 8 or more at a probability of 1 %


def test_critical_lengths_are_medians_with_open_intervals():
    runs = [
        run("1e-3", seed, values=[x] * 4, replicates=np.full((4, 5), x))
        for seed, x in enumerate((1.0, 2.0, np.inf))
    ]
    levels, order = compare({("xi line", "train-val", "cosine"): runs}, seed=0)
    assert set(levels["value"]) == {2.0}
    assert set(levels["high"]) == {np.inf}
    assert order.empty  # one learning rate has no order


def test_nothing_compares_to_nothing():
    levels, order = compare({("within", "train-val", "cosine"): []}, seed=0)
    assert levels.empty
    assert order.empty
