"""Tables from tiles are those from the one matrix that they were cut from."""

from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.data.hierarchy import Hierarchy
from stiffness.data.shards import cut, tile_block, tile_names
from stiffness.errors import StiffnessError
from stiffness.files import write_tensors
from stiffness.measures.extremes import PAIRS, _Largest
from stiffness.measures.tables import Measured, measure_segment
from stiffness.measures.tiles import Checkpoint

NAMES = ["zebra", "ant", "bee"]
NUM_TRAIN, NUMBER = 22, 41
LAYERS = ["input", "inner"]
HIERARCHY = Hierarchy({"insects": ["ant", "bee"], "others": ["zebra"]}, {})
ZERO = (5, 14, 30)  # without a gradient at the second step
WRONG = (2, 9, 11, 16, 20)  # labels


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    targets = torch.tensor([0] * 8 + [1] * 7 + [2] * 7 + [0] * 6 + [1] * 7 + [2] * 6)
    clean = targets[:NUM_TRAIN].clone()
    clean[list(WRONG)] = (clean[list(WRONG)] + 1) % 3
    inputs = draw(0, NUMBER, 1, 2, 2)
    return Evaluation(inputs, targets, torch.arange(NUMBER), NUM_TRAIN, NAMES, clean)


def whole(step: int) -> dict[str, torch.Tensor]:
    gradients = draw(step, NUMBER, 5)
    unit = torch.nn.functional.normalize(gradients)
    unit[7] = unit[6]  # equal cosines: ties between pairs
    cosines, log_norms = unit @ unit.T, gradients.norm(dim=1).double().log()
    if step == 2:
        cosines[list(ZERO)] = cosines[:, list(ZERO)] = torch.nan
        log_norms[list(ZERO)] = -torch.inf
    return {"cosines": cosines, "log_norms": log_norms, "predictions": torch.arange(NUMBER) % 3}


def write_tiles(folder: Path, shards: int, step: int) -> list[Path]:
    """As the gradient room does."""
    tensors, folders = whole(step), []
    for name in tile_names(shards):
        rows, columns = tile_block(name, NUMBER, shards)
        of_tile = {"cosines": tensors["cosines"][rows, columns]}
        if rows == columns:
            of_tile |= {key: tensors[key][rows] for key in ("log_norms", "predictions")}
        about = {"step": step, "epoch": step / 2, "examples": NUMBER}
        about |= {"rows": [rows.start, rows.stop], "columns": [columns.start, columns.stop]}
        folders.append(folder / name)
        write_tensors(folders[-1] / f"step={step}.safetensors", of_tile, about)
    return folders


def measure(folders: list[Path], evaluation: Evaluation, representations: Path) -> Measured:
    return measure_segment(folders, evaluation, 4, 50, 3, HIERARCHY, LAYERS, representations)


@pytest.fixture(scope="module")
def representations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("representations")
    for step in (1, 2):
        inner = draw(step + 10, NUMBER, 3)
        write_tensors(folder / f"step={step}.safetensors", {"inner": inner}, {"step": step})
    return folder


@pytest.fixture(scope="module")
def expected(
    evaluation: Evaluation, representations: Path, tmp_path_factory: pytest.TempPathFactory
) -> Measured:
    folder = tmp_path_factory.mktemp("whole")
    for step in (1, 2):
        about = {"step": step, "epoch": step / 2}
        write_tensors(folder / f"step={step}.safetensors", whole(step), about)
    return measure([folder], evaluation, representations)


@pytest.fixture(params=[1, 2, 3, 5], ids=lambda shards: f"{shards} shards", scope="module")
def found(
    request: pytest.FixtureRequest,
    evaluation: Evaluation,
    representations: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Measured:
    folder = tmp_path_factory.mktemp("tiles")
    for step in (1, 2):
        folders = write_tiles(folder, request.param, step)
    return measure(folders, evaluation, representations)


def test_no_border_of_a_shard_is_that_of_the_sets() -> None:
    for shards in (2, 3, 5):
        borders = {part.start for part in cut(slice(0, NUMBER), shards)}
        assert NUM_TRAIN not in borders


@pytest.mark.parametrize("name", ["summary", "classes", "distance", "critical_length", "extremes"])
def test_tables(found: Measured, expected: Measured, name: str) -> None:
    ours, theirs = found.tables[name], expected.tables[name]
    assert list(ours) == list(theirs)
    assert len(ours) == len(theirs) > 0
    for column in theirs:
        if column in ("low", "high") and name in ("summary", "classes"):
            assert np.isfinite(theirs[column]).any()
            np.testing.assert_allclose(ours[column], theirs[column], rtol=0, atol=1e-6)
        elif column in ("value", "class_mean"):
            np.testing.assert_allclose(ours[column], theirs[column], rtol=0, atol=1e-12)
        else:
            pd.testing.assert_series_equal(ours[column], theirs[column], check_exact=True)


def test_replicates(found: Measured, expected: Measured) -> None:
    assert list(found.replicates) == list(expected.replicates)
    for name, values in expected.replicates.items():
        if name.startswith(("xi", "steps")):
            assert torch.equal(found.replicates[name].nan_to_num(7), values.nan_to_num(7))
        else:
            torch.testing.assert_close(
                found.replicates[name], values, rtol=0, atol=1e-6, equal_nan=True
            )


def test_every_quantity_is_compared(expected: Measured) -> None:
    summary = expected.tables["summary"]
    assert set(summary["quantity"]) == {
        "within",
        "between",
        "positive_share",
        "super_class",
        *(f"{name}_{part}" for name in ("within", "between") for part in ("clean", "mislabelled")),
    }
    assert set(summary["n_excluded"]) >= {0, 1, 2, 3}
    assert set(expected.tables["critical_length"]["layer"]) == set(LAYERS)


def test_what_is_0_in_one_tile_counts_as_0_in_all(
    evaluation: Evaluation, representations: Path, expected: Measured, tmp_path: Path
) -> None:
    # Squared norms of two routes may round to 0 in one and to the least number in the other.
    for step in (1, 2):
        folders = write_tiles(tmp_path, 3, step)
    path = tmp_path / "0000-0002" / "step=2.safetensors"
    rows, columns = tile_block("0000-0002", NUMBER, 3)
    cosines = whole(2)["cosines"][rows, columns].nan_to_num(0.5)
    about = {"step": 2, "epoch": 1.0, "examples": NUMBER}
    about |= {"rows": [rows.start, rows.stop], "columns": [columns.start, columns.stop]}
    write_tensors(path, {"cosines": cosines}, about)
    made = measure(folders, evaluation, representations)
    np.testing.assert_allclose(
        made.tables["summary"]["value"], expected.tables["summary"]["value"], atol=1e-12
    )
    pairs = made.tables["extremes"]
    assert not set(ZERO) & set(pairs.loc[pairs["step"] == 2, ["first", "second"]].to_numpy().flat)


def test_one_tile_is_held_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stiffness.measures import tiles

    folders, read = write_tiles(tmp_path, 4, 1), []

    def counted(path: Path, *names: object) -> object:
        read.append(Path(path).parent.name)
        return original(path, *names)

    original = tiles.read_tensors
    monkeypatch.setattr(tiles, "read_tensors", counted)
    checkpoint = Checkpoint([folder / "step=1.safetensors" for folder in folders], NUMBER)
    assert read == ["0000-0000", "0001-0001", "0002-0002", "0003-0003"]
    read.clear()
    everything = slice(0, NUMBER)
    places = [(tile.rows, tile.columns) for tile in checkpoint.tiles(everything, everything)]
    assert read == tile_names(4)
    assert places == [tile_block(name, NUMBER, 4) for name in tile_names(4)]
    assert len(checkpoint._last) == 2
    read.clear()
    # Of validation examples alone, the first shard holds none.
    assert all(tile.rows.start >= NUM_TRAIN for tile in checkpoint.tiles(*[slice(22, 41)] * 2))
    assert "0000-0000" not in read


def test_a_missing_tile_is_named(evaluation: Evaluation, representations: Path, tmp_path: Path):
    folders = write_tiles(tmp_path, 3, 1)
    (folders[1] / "step=1.safetensors").unlink()
    with pytest.raises(StiffnessError, match=r"0000-0001/step=1\.safetensors: no such file"):
        measure(folders, evaluation, representations)


@pytest.mark.parametrize(
    "chosen", [["0000-0000"], ["0000-0000", "0001-0001"], ["0001-0001", "0001-0002", "0002-0002"]]
)
def test_tiles_of_no_one_cut_are_refused(
    evaluation: Evaluation, representations: Path, tmp_path: Path, chosen: list[str]
) -> None:
    write_tiles(tmp_path, 3, 1)
    with pytest.raises(StiffnessError, match="not the tiles of one cut of 41 examples; delete"):
        measure([tmp_path / name for name in chosen], evaluation, representations)


def test_tiles_of_two_cuts_are_refused(
    evaluation: Evaluation, representations: Path, tmp_path: Path
) -> None:
    write_tiles(tmp_path / "three", 3, 1)
    folders = write_tiles(tmp_path / "two", 2, 1)
    folders[1] = tmp_path / "three" / "0000-0001"
    with pytest.raises(StiffnessError, match="one cut"):
        measure(folders, evaluation, representations)


def test_tiles_of_another_subset_are_refused(tmp_path: Path) -> None:
    folders = write_tiles(tmp_path, 3, 1)
    with pytest.raises(StiffnessError, match="41 examples, but the evaluation subset has 40"):
        Checkpoint([folder / "step=1.safetensors" for folder in folders], 40)


@pytest.mark.parametrize("seed", range(60))
def test_the_largest_disjoint_pairs_are_those_of_a_greedy_search(seed: int) -> None:
    generator = np.random.default_rng(seed)
    # Few different values: most are tied; some rows and columns stand out, some are undefined.
    values = generator.integers(0, 4, (9, 11)).astype(np.float32)
    values[generator.integers(9)] += generator.integers(3)
    values[:, generator.integers(11)] += generator.integers(3)
    values[generator.random(values.shape) < 0.2 * (seed % 3)] = np.nan
    left, expected = values.copy(), []
    for _ in range(PAIRS):
        if np.isfinite(left).any():
            row, column = np.unravel_index(np.nanargmax(left), left.shape)
            expected.append((left[row, column], row, column))
            left[row], left[:, column] = np.nan, np.nan
    for parts in (1, 2, 4):
        largest = _Largest()
        blocks = [
            (rows, columns)
            for rows in cut(slice(0, 9), parts)
            for columns in cut(slice(0, 11), parts)
        ]
        for number in generator.permutation(len(blocks)):
            rows, columns = blocks[number]
            of_block = np.arange(rows.start, rows.stop), np.arange(columns.start, columns.stop)
            largest.add(values[rows, columns], *of_block)
        assert largest.two() == expected


def test_shards_are_even_and_their_tiles_are_the_upper_triangle() -> None:
    for shards in (1, 3, 12):
        parts = cut(slice(5, 5 + NUMBER), shards)
        assert [n for part in parts for n in range(part.start, part.stop)] == list(range(5, 46))
        assert {part.stop - part.start for part in parts} <= {
            NUMBER // shards,
            NUMBER // shards + 1,
        }
        blocks = [tile_block(name, NUMBER, shards) for name in tile_names(shards)]
        parts = cut(slice(0, NUMBER), shards)
        assert blocks == list(combinations_with_replacement(parts, 2))
