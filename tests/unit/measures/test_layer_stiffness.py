"""Tables of stiffness by layer."""

import numpy as np
import pytest
import torch
from torch import nn

from stiffness import gradient_cosines
from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import Evaluation, draw_evaluation
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.measures.classes import class_stiffness
from stiffness.measures.distance import ESTIMATORS
from stiffness.measures.layers import COLUMNS, layer_tables, whole_cosines
from stiffness.measures.lengths import distance_stiffness
from stiffness.measures.pairs import METRICS, PAIR_MODES, select_pairs
from stiffness.measures.tables import Space, example_weights

BINS, RESAMPLES, SEED = 4, 50, 3
SIZES = {"front": 5, "back": 3}  # numbers in each layer's gradient
ZERO = 4  # an example whose gradient in "back" is 0


@pytest.fixture(scope="module")
def evaluation(few_digits: Arrays) -> Evaluation:
    return draw_evaluation(few_digits, 20, 20, seed=0)


@pytest.fixture(scope="module")
def gradients() -> dict[str, torch.Tensor]:
    """float64 [N, P] by layer; the second layer's are a thousandth as long."""
    generator = torch.Generator().manual_seed(0)
    front, back = (torch.randn(40, size, generator=generator).double() for size in SIZES.values())
    back[ZERO] = 0
    return {"front": front, "back": 1e-3 * back}


def vectors() -> torch.Tensor:
    return torch.rand(40, 6, generator=torch.Generator().manual_seed(1))


def cosines_of(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    norms = rows.norm(dim=1)
    unit = rows / norms[:, None]  # NaN where the norm is 0
    return (unit @ unit.T).float(), norms.log()


@pytest.fixture(scope="module")
def folder(gradients, evaluation, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layers")
    tensors = {"distances/back": 1 - cosines_of(vectors().double())[0]}
    for name, rows in gradients.items():
        tensors[f"cosines/{name}"], tensors[f"log_norms/{name}"] = cosines_of(rows)
    about = {
        "step": 7,
        "epoch": 0.5,
        "layers": [
            {"name": "front", "kind": "Embedding", "limit": 0.0},
            {"name": "back", "kind": "Linear", "limit": 1.0},
        ],
    }
    write_tensors(folder / "step=00000007.safetensors", tensors, about)
    return folder


@pytest.fixture(scope="module")
def tables(folder, evaluation):
    return layer_tables(folder, evaluation, BINS, RESAMPLES, SEED)


def test_columns(tables):
    for name, columns in COLUMNS.items():
        assert list(tables[name].columns) == columns
        assert set(tables[name]["step"]) == {7}
        assert set(tables[name]["epoch"]) == {0.5}


@pytest.mark.parametrize("layer", SIZES)
@pytest.mark.parametrize("mode", PAIR_MODES)
@pytest.mark.parametrize("metric", METRICS)
def test_a_blocks_stiffness_is_that_of_its_own_gradients(
    tables, gradients, evaluation, layer, mode, metric
):
    cosines, log_norms = (part.numpy() for part in cosines_of(gradients[layer]))
    classes = evaluation.targets.numpy()
    pairs = select_pairs(cosines, log_norms, classes, 20, mode, metric)
    weights = example_weights(evaluation, RESAMPLES, SEED)
    sides = {"train": weights[:20], "val": weights[20:]}
    row, column = mode.split("-")
    expected = class_stiffness(pairs, 10, sides[row], sides[column])
    table = tables["summary"]
    for quantity in ("within", "between"):
        (found,) = table[
            (table["layer"] == layer)
            & (table["pair_mode"] == mode)
            & (table["metric"] == metric)
            & (table["quantity"] == quantity)
        ].to_dict("records")
        estimate = getattr(expected, quantity)
        for name in ("value", "low", "high"):
            assert found[name] == pytest.approx(getattr(estimate, name), nan_ok=True)
        assert found["n_pairs"] == estimate.num_pairs
        zero = layer == "back" and metric == "cosine" and "train" in mode
        assert found["n_excluded"] == int(zero)
        assert (found["depth"], found["kind"]) == {
            "front": (0, "Embedding"),
            "back": (1, "Linear"),
        }[layer]


@pytest.mark.parametrize("metric", METRICS)
def test_distance_is_the_layers_and_stiffness_the_whole_gradients(
    tables, gradients, evaluation, metric
):
    assert set(tables["distance"]["layer"]) == {"back"}
    cosines, _ = cosines_of(torch.cat(list(gradients.values()), dim=1))
    distances = 1 - cosines_of(vectors().double())[0]
    weights = example_weights(evaluation, RESAMPLES, SEED)
    space = Space.from_matrix(distances, evaluation, BINS, weights).pairs["train-val"]
    values = cosines[space.pairs.first, space.pairs.second].double().numpy()
    expected = distance_stiffness(space, np.sign(values) if metric == "sign" else values)

    def rows(name):
        table = tables[name]
        return table[(table["pair_mode"] == "train-val") & (table["metric"] == metric)]

    np.testing.assert_allclose(rows("distance")["distance"], expected.bins.distance, atol=1e-6)
    np.testing.assert_allclose(rows("distance")["value"], expected.bins.value, atol=1e-6)
    lengths = rows("critical_length")
    assert lengths["estimator"].tolist() == list(ESTIMATORS)
    assert lengths["crossing"].tolist() == [length.crossing for length in expected.lengths]
    np.testing.assert_allclose(lengths["slope"].iloc[0], expected.lengths[0].slope, atol=1e-5)
    median = pytest.approx(np.median(space.pairs.distances))
    assert lengths["median_distance"].tolist() == [median] * len(ESTIMATORS)
    assert set(lengths["limit"]) == {1.0}
    assert set(lengths["n_excluded"]) == {0}


def test_the_whole_gradients_cosines_follow_from_the_blocks(evaluation):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 10))
    inputs, targets = evaluation.inputs, evaluation.targets
    expected, expected_norms = gradient_cosines(model, inputs, targets)
    blocks, norms = gradient_cosines(model, inputs, targets, per_layer=True)
    tensors = {f"cosines/{name}": value for name, value in blocks.items()}
    tensors |= {f"log_norms/{name}": value for name, value in norms.items()}
    cosines, log_norms = whole_cosines(tensors, list(blocks))
    np.testing.assert_allclose(cosines, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(log_norms, expected_norms.numpy(), atol=1e-6)


def test_where_all_blocks_are_0_the_whole_is_undefined():
    tensors = {}
    for name, zero in (("a", [0, 1]), ("b", [0])):
        cosines, log_norms = torch.eye(3), torch.zeros(3, dtype=torch.float64)
        cosines[zero] = cosines[:, zero] = torch.nan
        log_norms[zero] = -torch.inf
        tensors |= {f"cosines/{name}": cosines, f"log_norms/{name}": log_norms}
    cosines, log_norms = whole_cosines(tensors, ["a", "b"])
    nan = np.nan
    np.testing.assert_allclose(cosines, [[nan] * 3, [nan, 1, 0], [nan, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(log_norms, [-np.inf, 0, np.log(2) / 2])


def test_another_evaluation_subset_is_an_error_that_names_the_file(folder, few_digits):
    other = draw_evaluation(few_digits, 10, 10, seed=0)
    with pytest.raises(StiffnessError, match=r"step=00000007\.safetensors: 40 examples"):
        layer_tables(folder, other, BINS, RESAMPLES, SEED)


def test_a_segment_without_a_stage_gives_empty_tables(evaluation, tmp_path):
    for name, table in layer_tables(tmp_path, evaluation, BINS, RESAMPLES, SEED).items():
        assert list(table.columns) == COLUMNS[name]
        assert table.empty
