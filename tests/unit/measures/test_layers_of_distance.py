"""Distances in layers of the network instead of the input."""

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.data.evaluation import Evaluation, cosine_distances
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.measures.bootstrap import draw_weights
from stiffness.measures.distance import (
    ESTIMATORS,
    ResampledPairs,
    distances_from_matrix,
    same_class_pairs,
)
from stiffness.measures.lengths import distance_stiffness
from stiffness.measures.pairs import PAIR_MODES
from stiffness.measures.tables import Measured, measure_segment
from stiffness.training.runs import select_layer, select_line_fit

STEPS = (0, 5)
NUM_TRAIN = 10
BINS = 4
RESAMPLES, SEED = 50, 3
KEY = ["step", "pair_mode", "metric"]


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    targets = torch.tensor([0] * 5 + [1] * 5 + [0] * 4 + [1] * 4)
    inputs = torch.nn.functional.normalize(draw(0, 18, 5))[:, :, None, None]
    return Evaluation(inputs, targets, torch.arange(18), NUM_TRAIN, ["a", "b"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("segment")
    for step in STEPS:
        name = f"step={step:08d}.safetensors"
        unit = torch.nn.functional.normalize(draw(step + 1, 18, 6))
        measured = {"cosines": unit @ unit.T, "log_norms": torch.zeros(18, dtype=torch.float64)}
        write_tensors(folder / "cosines" / name, measured, {"step": step, "epoch": step / 5})
        vectors = {"first": draw(step + 20, 18, 4), "second": 1e-30 * draw(step + 30, 18, 3)}
        write_tensors(folder / "vectors" / name, vectors, {"step": step})
    return folder / "cosines", folder / "vectors"


def measure(folder, evaluation, *layers) -> Measured:
    return measure_segment([folder], evaluation, BINS, RESAMPLES, SEED, None, *layers)


@pytest.fixture(scope="module")
def measured(evaluation, folders) -> Measured:
    return measure(folders[0], evaluation, ["second", "input", "first"], folders[1])


@pytest.fixture(scope="module")
def tables(measured):
    return measured.tables


def vectors(evaluation: Evaluation, layer: str, step: int) -> torch.Tensor:
    seeds = {"first": (step + 20, 4), "second": (step + 30, 3)}
    if layer == "input":
        return evaluation.inputs.flatten(1)
    return draw(seeds[layer][0], 18, seeds[layer][1])


@pytest.mark.parametrize("layer", ["input", "first", "second"])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", PAIR_MODES)
def test_every_layer_agrees_with_a_direct_computation(tables, evaluation, layer, step, mode):
    unit = torch.nn.functional.normalize(vectors(evaluation, layer, step).double())
    distances = (1 - unit @ unit.T).numpy()
    gradients = torch.nn.functional.normalize(draw(step + 1, 18, 6)).numpy()
    classes = evaluation.targets.numpy()
    farthest = max(
        same_class_pairs(distances_from_matrix(distances), classes, NUM_TRAIN, one).distances.max()
        for one in PAIR_MODES
    )
    pairs = same_class_pairs(distances_from_matrix(distances), classes, NUM_TRAIN, mode)
    values = (gradients[pairs.first] * gradients[pairs.second]).sum(1)
    weights = draw_weights(2 * classes + (np.arange(18) < NUM_TRAIN), RESAMPLES, SEED)
    resampled = ResampledPairs(pairs, np.linspace(0, farthest + 1e-7, BINS + 1), weights)
    expected = distance_stiffness(resampled, values)
    bins, fit = expected.bins, expected.lengths[0]

    def rows(name: str) -> pd.DataFrame:
        table = select_layer(tables[name], layer)
        assert "layer" not in table
        return table[
            (table["step"] == step) & (table["pair_mode"] == mode) & (table["metric"] == "cosine")
        ]

    np.testing.assert_allclose(rows("distance")["distance"], bins.distance, atol=1e-6)
    np.testing.assert_allclose(rows("distance")["value"], bins.value, atol=1e-6)
    assert rows("distance")["n_pairs"].tolist() == bins.num_pairs.tolist()
    np.testing.assert_allclose(rows("distance")["low"], bins.low, atol=1e-5)
    line = select_line_fit(rows("critical_length")).iloc[0]
    assert line["slope"] == pytest.approx(fit.slope, abs=1e-5)
    assert line["intercept"] == pytest.approx(fit.intercept, abs=1e-5)
    assert line["crossing"] == fit.crossing


def test_one_fit_a_layer_and_estimator(tables, measured):
    table = select_line_fit(tables["critical_length"])
    assert len(tables["critical_length"]) == len(ESTIMATORS) * len(table)
    counts = table.groupby([*KEY, "layer"]).size()
    assert set(counts) == {1}
    assert len(counts) == len(STEPS) * 3 * 2 * 3
    for layer in ("input", "first", "second"):
        for estimator in ("line", "monotone"):
            replicates = measured.replicates[f"xi/{estimator}/{layer}/train-val/sign"]
            assert replicates.shape == (len(STEPS), RESAMPLES)


def test_the_input_is_what_it_is_without_other_layers(tables, evaluation, folders):
    alone = measure(folders[0], evaluation).tables
    for name in ("distance", "critical_length"):
        assert set(alone[name]["layer"]) == {"input"}
        ours = tables[name][tables[name]["layer"] == "input"].reset_index(drop=True)
        pd.testing.assert_frame_equal(ours, alone[name], check_exact=True)
    for name in ("summary", "classes"):
        pd.testing.assert_frame_equal(tables[name], alone[name], check_exact=True)


def test_tokens_have_distances_in_layers_alone(evaluation, folders, tables):
    tokens = {"input_ids": torch.ones(18, 3, dtype=torch.int32)}
    texts = Evaluation(
        tokens, evaluation.targets, evaluation.indices, NUM_TRAIN, evaluation.class_names
    )
    found = measure(folders[0], texts, ["first"], folders[1]).tables
    expected = tables["distance"][tables["distance"]["layer"] == "first"]
    pd.testing.assert_frame_equal(found["distance"], expected.reset_index(drop=True))
    with pytest.raises(StiffnessError, match="distance_layers: token inputs have no distance"):
        measure(folders[0], texts)


def test_a_layer_that_was_not_represented_is_an_error_that_names_the_file(evaluation, folders):
    with pytest.raises(StiffnessError, match=r"vectors/step=00000000\.safetensors"):
        measure(folders[0], evaluation, ["third"], folders[1])


def test_cosine_distances():
    rows = torch.tensor([[1.0, 0], [2, 0], [0, 3], [-1, 0], [0, 0], [1e-30, 1e-30], [3e30, 3e30]])
    found = cosine_distances(rows)
    half = 1 - 0.5**0.5
    expected = torch.tensor(
        [
            [0, 0, 1, 2, 1, half, half],
            [0, 0, 1, 2, 1, half, half],
            [1, 1, 0, 1, 1, half, half],
            [2, 2, 1, 0, 1, 2 - half, 2 - half],
            [1, 1, 1, 1, 1, 1, 1],
            [half, half, half, 2 - half, 1, 0, 0],
            [half, half, half, 2 - half, 1, 0, 0],
        ]
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert torch.equal(cosine_distances(rows.reshape(7, 1, 2, 1)), found)
