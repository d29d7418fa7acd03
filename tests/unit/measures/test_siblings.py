"""Sibling measures against a literal computation from gradients that are all held in memory."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from stiffness.data.evaluation import Evaluation
from stiffness.gradients.arithmetic import ARITHMETICS, relative_errors
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.reference import reference_gradients
from stiffness.measures.siblings import Siblings
from stiffness.measures.tiles import WholeMatrix

TRAIN, CLASSES = 24, 3
MODES = {"train-train": slice(0, TRAIN), "val-val": slice(TRAIN, None)}


def measured(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, step: int):
    cosines, log_norms = gradient_cosines(model, inputs, targets)
    outputs = model(inputs).detach()
    return WholeMatrix(step, step / 10, cosines.numpy(), log_norms.numpy(), None, outputs.numpy())


@pytest.fixture(scope="module")
def case():
    """A network at two checkpoints, its gradients [N, P] at each, and what is made of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, CLASSES))
    inputs, targets = torch.randn(40, 5), torch.arange(40) % CLASSES
    evaluation = Evaluation(inputs, targets, torch.arange(40), TRAIN, ["a", "b", "c"])
    siblings, tables, gradients = Siblings(evaluation), [], []
    for step in (0, 10):
        with torch.no_grad():
            model[2].weight *= 1 + step
        directions, log_norms = reference_gradients(model, inputs, targets)
        gradients.append((directions * log_norms.exp()[:, None]).numpy())
        found = siblings.add(measured(model, inputs, targets, step))
        tables.append({name: pd.DataFrame(rows) for name, rows in found.items()})
    return gradients, targets.numpy(), tables


def value(table: pd.DataFrame, mode: str, quantity: str) -> float:
    return table.set_index(["pair_mode", "quantity"])["value"][mode, quantity]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("checkpoint", [0, 1])
def test_sets(case, mode: str, checkpoint: int) -> None:
    gradients, targets, tables = case
    g, y = gradients[checkpoint][MODES[mode]], targets[MODES[mode]]
    n, table = len(g), tables[checkpoint]["siblings"]
    norms = np.linalg.norm(g, axis=1)
    units = g / norms[:, None]
    total = np.linalg.norm(g.sum(0)) ** 2
    cosines = units @ units.T
    expected = {
        "m_coherence": total / (norms**2).sum(),
        "gradient_confusion": min(
            units[i] @ units[j] for i in range(n) for j in range(n) if i != j
        ),
        "effective_rank": np.linalg.eigvalsh(cosines).sum() ** 2
        / (np.linalg.eigvalsh(cosines) ** 2).sum(),
    }
    signal = (total - (norms**2).sum()) / (n * (n - 1))
    if signal > 0:
        # The unbiased covariance of the gradients, literally.
        expected["noise_scale"] = np.cov(g.T).trace() / signal
    ideal = np.where(y[:, None] == y, 1.0, -1 / (CLASSES - 1))
    flat = cosines.ravel() @ ideal.ravel()
    expected["label_alignment"] = flat / np.linalg.norm(cosines) / np.linalg.norm(ideal)
    for name, same in (("", None), ("_within", True), ("_between", False)):
        pairs = [
            (i, j)
            for i in range(n)
            for j in range(n)
            if i != j and (same is None or (y[i] == y[j]) == same)
        ]
        above = sum(g[i] @ g[j] for i, j in pairs)
        below = sum(norms[i] * norms[j] for i, j in pairs)
        expected[f"norm_weighted{name}"] = above / below
    for quantity, literal in expected.items():
        # Cosines are float32, of which the sums take up to 24^2.
        found = value(table, mode, quantity)
        assert found == pytest.approx(literal, rel=2e-5, abs=2e-6), quantity


def test_pairs_across_the_sets(case) -> None:
    gradients, targets, tables = case
    first, second = (gradients[0][part] for part in MODES.values())
    products = first @ second.T
    norms = np.outer(*(np.linalg.norm(side, axis=1) for side in (first, second)))
    same = targets[:TRAIN, None] == targets[TRAIN:]
    table = tables[0]["siblings"]
    assert value(table, "train-val", "norm_weighted_within") == pytest.approx(
        products[same].sum() / norms[same].sum(), rel=2e-5
    )
    assert value(table, "train-val", "norm_weighted_between") == pytest.approx(
        products[~same].sum() / norms[~same].sum(), rel=2e-5, abs=2e-6
    )


def test_the_velocity_of_the_kernel(case) -> None:
    gradients, _, tables = case
    assert np.isnan(value(tables[0]["siblings"], "train-train", "kernel_velocity"))
    kernels = []
    for g in gradients:
        units = g[:TRAIN] / np.linalg.norm(g[:TRAIN], axis=1, keepdims=True)
        kernels.append((units @ units.T).ravel() / np.linalg.norm(units @ units.T))
    found = value(tables[1]["siblings"], "train-train", "kernel_velocity")
    # A difference of numbers near 1, from float32 cosines.
    assert found == pytest.approx(1 - kernels[0] @ kernels[1], abs=1e-6)
    assert found > 0.01


def test_an_example_without_a_gradient_counts_as_0_in_the_velocity() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.uniform(-1, 1, (2, 8, 8))
    first, second = (one + one.T for one in (first, second))
    first[1] = first[:, 1] = second[3] = second[:, 3] = np.nan
    evaluation = Evaluation(torch.zeros(8, 2), torch.arange(8) % 2, torch.arange(8), 6, ["a", "b"])
    siblings = Siblings(evaluation)
    for step, cosines in enumerate((first, second)):
        norms = np.where(np.isnan(cosines.diagonal()), -np.inf, 0.0)
        found = siblings.add(WholeMatrix(step, step, cosines, norms))
    one, other = (np.nan_to_num(cosines[:6, :6]).ravel() for cosines in (first, second))
    expected = 1 - one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    table = pd.DataFrame(found["siblings"])
    assert value(table, "train-train", "kernel_velocity") == pytest.approx(expected, rel=1e-12)


def test_scores_of_examples(case) -> None:
    gradients, targets, tables = case
    table = tables[1]["examples"]
    assert table["split"].tolist() == ["train"] * TRAIN + ["validation"] * (40 - TRAIN)
    g = gradients[1]
    np.testing.assert_allclose(np.exp(table["log_norm"]), np.linalg.norm(g, axis=1), rtol=1e-4)
    # The gradient with respect to the last bias is that with respect to the outputs: p - y.
    np.testing.assert_allclose(
        table["el2n"], np.linalg.norm(g[:, -CLASSES:], axis=1), rtol=1e-4, atol=1e-7
    )
    units = g / np.linalg.norm(g, axis=1, keepdims=True)
    for row in (0, 5, TRAIN, 39):
        part = MODES["train-train"] if row < TRAIN else MODES["val-val"]
        numbers = np.arange(40)[part]
        others = [i for i in numbers if i != row and targets[i] == targets[row]]
        own = np.array([units[row] @ units[i] for i in others])
        assert table["own_class_cosine"][row] == pytest.approx(own.mean(), abs=1e-5)
        assert table["own_class_sign"][row] == pytest.approx(np.sign(own).mean(), abs=1e-12)


def test_tiles_change_nothing(case) -> None:
    class Cut(WholeMatrix):
        """The same matrix in three tiles, as of two shards."""

        def tiles(self, rows: slice, columns: slice):
            whole = next(super().tiles(rows, columns))
            cut = slice(0, 30), slice(30, 40)
            for first, second in ((0, 0), (0, 1), (1, 1)):
                tile = whole.within(cut[first], cut[second])
                assert tile is not None
                yield tile

    generator = np.random.default_rng(0)
    units = generator.normal(size=(40, 6))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    norms = generator.normal(size=40)
    cosines = units @ units.T
    norms[3], cosines[3], cosines[:, 3] = -np.inf, np.nan, np.nan
    targets = torch.arange(40) % CLASSES
    evaluation = Evaluation(torch.zeros(40, 2), targets, torch.arange(40), TRAIN, ["a", "b", "c"])
    whole, cut = Siblings(evaluation), Siblings(evaluation)
    for step in range(2):
        one = whole.add(WholeMatrix(step, step, cosines, norms))
        other = cut.add(Cut(step, step, cosines, norms))
        for name in one:
            pd.testing.assert_frame_equal(pd.DataFrame(one[name]), pd.DataFrame(other[name]))
    assert one["examples"][3]["own_class_sign"] == 0
    assert np.isnan(one["examples"][3]["own_class_cosine"])


def test_an_example_without_a_gradient_counts_for_nothing_but_the_mean() -> None:
    """Norm-weighted measures do not notice it, as it has no weight."""
    generator = np.random.default_rng(1)
    units = generator.normal(size=(20, 4))
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosines, norms = units @ units.T, np.zeros(20)
    tiny = norms.copy()
    tiny[::4] = -200.0
    gone, without = tiny.copy(), cosines.copy()
    gone[::4] = -np.inf
    without[::4] = without[:, ::4] = np.nan
    evaluation = Evaluation(
        torch.zeros(20, 2), torch.arange(20) % 2, torch.arange(20), 12, ["a", "b"]
    )
    tables = [
        pd.DataFrame(Siblings(evaluation).add(WholeMatrix(0, 0, *given))["siblings"])
        for given in ((cosines, tiny), (without, gone))
    ]
    for quantity in ("m_coherence", "norm_weighted_within", "norm_weighted_between"):
        one, other = (value(table, "train-train", quantity) for table in tables)
        assert one == pytest.approx(other, rel=1e-12)
    units = without[:12, :12]
    same = (np.arange(12)[:, None] % 2 == np.arange(12) % 2) & ~np.eye(12, dtype=bool)
    for name, pairs in (
        ("within", same),
        ("between", np.arange(12)[:, None] % 2 != np.arange(12) % 2),
    ):
        found = value(tables[1], "train-train", f"cosine_{name}_with_zeros")
        assert found == pytest.approx(np.nan_to_num(units)[pairs].mean(), abs=1e-12)


def test_shares_of_confident_wrong_and_zero_gradients() -> None:
    outputs = torch.zeros(8, 3)
    outputs[:, 0] = torch.tensor([0.0, 5.0, 12.0, 18.0, 40.0, 300.0, 2000.0, -5.0])
    targets = torch.zeros(8, dtype=torch.long)
    evaluation = Evaluation(torch.zeros(8, 2), targets, torch.arange(8), 6, ["a", "b", "c"])
    norms = np.zeros(8)
    norms[5:7] = -np.inf
    checkpoint = WholeMatrix(0, 0, np.eye(8), norms, None, outputs.numpy())
    found = pd.DataFrame(Siblings(evaluation, "float32").add(checkpoint)["confidence"])
    shares = found.set_index(["split", "quantity"])["value"]
    # 1 - p is 2 exp(-margin): 3e-8 at 18.
    assert shares["train", "confident"] == 3 / 6
    assert shares["validation", "confident"] == 1 / 2
    assert shares["train", "zero"] == 1 / 6
    assert shares["train", "wrong"] == 3 / 6
    assert ((found["low"] <= found["value"]) & (found["value"] <= found["high"])).all()


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
def test_errors_grow_with_confidence(arithmetic: str) -> None:
    margins = torch.tensor([0.0, 1.0, 5.0, 18.0, 40.0, 300.0, 2000.0])
    outputs = torch.zeros(7, 3)
    outputs[:, 0] = margins
    errors = relative_errors(outputs, torch.zeros(7, dtype=torch.int64), arithmetic)
    assert torch.isfinite(errors).all()
    if arithmetic != "bfloat16":
        assert (errors[:3] < 1e-4).all()
    else:  # the logarithm of p has 8 bits
        assert (errors[:2] < 0.01).all()
    if arithmetic in ("exact", "float64", "tf32"):
        assert not errors.any()
    else:
        assert errors[3] > 0.01  # 1 - p is 3e-8, half the spacing of float32 below 1
        assert float(errors[-1]) == pytest.approx(1)  # lost altogether
