"""Learning rates at equal epoch and equal loss, against loops and known answers."""

import numpy as np
import pytest

from stiffness.measures.comparison import compare
from stiffness.measures.equal_loss import EPOCH, LOSS
from stiffness.measures.replicates import RunValues


def run(lr="1e-3", seed=0, epochs=(0, 1, 2, 4), losses=(2.0, 1.0, 0.5, 0.25), values=None, **rest):
    values = np.array(epochs if values is None else values, float)
    replicates = rest.get("replicates", np.repeat(values[:, None], 3, 1))
    return RunValues(
        lr, seed, np.array(epochs, float), np.array(losses, float), values, np.array(replicates)
    )


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
    np.testing.assert_allclose(order[["low", "high"]], sign)
    for_it, against = ("p_rises", "p_falls") if sign > 0 else ("p_falls", "p_rises")
    np.testing.assert_allclose(order[for_it], (1 / 6) ** 3)  # three orders of three rates
    np.testing.assert_allclose(order[against], 1)
    assert (order["seeds"] == 3).all()
    assert (order["rates"] == 3).all()
    last = levels[(levels["by"] == EPOCH) & (levels["level"] == 4)]
    np.testing.assert_allclose(last["value"], 0.5 + sign * 0.1 * np.arange(3), atol=0.02)
    assert ((last["low"] < last["value"]) & (last["value"] < last["high"])).all()
    assert (last["seeds"] == 3).all()


def test_the_seeds_of_two_rates_are_drawn_apart():
    # Equal runs: the ends of their intervals differ by the draws alone.
    runs = [run(lr, seed, values=[seed] * 4) for lr in ("1e-3", "1e-2") for seed in range(3)]
    levels, _ = compare({("within", "train-val", "cosine"): runs}, seed=0)
    first, second = (levels[levels["lr"] == lr]["low"].to_numpy() for lr in ("1e-3", "1e-2"))
    assert (first != second).all()


def test_runs_that_share_no_epoch_are_compared_at_equal_loss():
    runs = [run("1e-3"), run("1e-2", epochs=(0, 1.5, 2.5, 4.5))]
    levels, _ = compare({("within", "train-val", "cosine"): runs}, seed=0)
    assert set(levels["by"]) == {LOSS}


def test_a_run_is_one_number_the_mean_over_levels():
    # At the single levels the order of the rates turns around; on average it rises.
    values = {"1e-4": [0, 0, 5, 0], "1e-3": [0, 3, 3, 3], "1e-2": [0, 4, 4, 4]}
    runs = [run(lr, seed, values=values[lr]) for lr in values for seed in range(2)]
    _, order = compare({("within", "train-val", "cosine"): runs}, seed=0)
    assert order[order["by"] == EPOCH]["tau"].tolist() == [1]


def test_only_seeds_that_live_at_every_rate_are_blocks():
    runs = [noisy(lr, seed, 0.5) for lr in ("1e-4", "1e-3", "1e-2") for seed in range(3)]
    _, order = compare({("within", "train-val", "cosine"): runs[:-1]}, seed=0)
    assert set(order["seeds"]) == {2}
    lone = [noisy(lr, seed, 0.5) for seed, lr in enumerate(("1e-4", "1e-3", "1e-2"))]
    _, order = compare({("within", "train-val", "cosine"): lone}, seed=0)
    assert order.empty


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


def test_what_cannot_be_compared_does_not_stop_the_others():
    rates = ("1e-4", "1e-3", "1e-2")
    full = [noisy(lr, seed, 0.5) for lr in rates for seed in range(2)]
    apart = [noisy(lr, place, 0.5) for place, lr in enumerate(rates)]  # no seed in common
    lone = [noisy("1e-3", seed, 0.5) for seed in range(2)]
    quantities = {
        ("nothing", "train-val", "sign"): [],
        ("apart", "train-val", "sign"): apart,
        ("lone", "train-val", "sign"): lone,
        ("full", "train-val", "sign"): full,
    }
    levels, order = compare(quantities, seed=0)
    assert set(levels["quantity"]) == {"apart", "lone", "full"}
    assert order["quantity"].tolist() == ["full", "full"]
    assert order["by"].tolist() == [EPOCH, LOSS]
    assert set(levels[levels["quantity"] == "apart"]["by"]) == {EPOCH, LOSS}
