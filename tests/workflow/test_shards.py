"""The evaluation subset cut into shards: one job per pair of them, and the same tables."""

import numpy as np
import pytest
from project import Project, of_tiny

from stiffness.files import read_table

pytestmark = pytest.mark.slow

SEGMENT = "lr=1e-3/seed=0/{}/exact/epochs=0000-0001"
TABLES = ("summary", "classes", "distance", "critical_length", "extremes")


def test_shards_change_how_and_not_what(built: Project) -> None:
    folder = built.folder / "results/tiny" / SEGMENT.format("measures")
    expected = {name: read_table(folder / f"{name}.parquet") for name in TABLES}
    target = f"results/tiny/{SEGMENT.format('measures')}/summary.parquet"
    # 80 examples, 40 of them of each set: no border between shards is that between the sets.
    built.configure(of_tiny(evaluation={"shards": 3}))
    # Neither drawn anew nor trained again.
    assert built.build(target).jobs == {"gradient_tile": 6, "measures": 1}
    for name, before in expected.items():
        after = read_table(folder / f"{name}.parquet")
        assert list(after) == list(before)
        assert len(after) == len(before) > 0
        for column in before:
            if before[column].dtype.kind == "f":
                np.testing.assert_allclose(
                    after[column], before[column], rtol=1e-5, atol=1e-5, err_msg=f"{name} {column}"
                )
            else:
                assert after[column].tolist() == before[column].tolist(), (name, column)
    tiles = sorted(
        (built.folder / "results/tiny" / SEGMENT.format("gradients") / "tiles").iterdir()
    )
    assert len(tiles) == 6
    assert built.plan(target) == {}
    # Another cut has tiles of the same names.
    built.configure(of_tiny(evaluation={"shards": 2}))
    assert built.plan(target) == {"gradient_tile": 3, "measures": 1}
    # What is in a tile is known by its digests; discarded, it stays away.
    gone = {"keep_gradients": False} | of_tiny(evaluation={"shards": 3})
    built.configure(gone)
    assert built.plan(target) == {}
    digests = tiles[1] / "digests.json"
    digests.write_text(digests.read_text() + "\n")
    assert built.build(target).jobs == {"measures": 1}
    for tile in tiles:
        assert sorted(path.name for path in tile.iterdir()) == ["digests.json", "performance.json"]
    assert built.plan(target) == {}
