"""From invented results to docs/data, a picture and a page, in a repository of a few files."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from stiffness.errors import StiffnessError
from stiffness.files import read_table, write_table, write_text
from stiffness.pages.collect import collect
from stiffness.pages.committed import Committed
from stiffness.pages.render import render
from stiffness.pages.write import drift, write_pages
from stiffness.report.verdicts import COLUMNS

CONFIG = {
    "run": ["tiny"],
    "datasets": {"digits": {"source": "digits", "validation_examples": 597, "seed": 0}},
    "experiments": {
        "tiny": {
            "dataset": "digits",
            "model": {"name": "fc"},
            "learning_rates": ["1e-3"],
            "seeds": [0],
            "epochs": 4,
            "epochs_per_job": 2,
            "stages": [0, "last"],
        }
    },
    "paper": {
        "fig5": {"kind": "stiffness_curves", "experiments": ["tiny"]},
        "fig7": {"kind": "class_matrix_stages", "experiments": ["tiny"]},
    },
    "studies": {},
}
OVERLAY = {"data_dir": "/elsewhere", "experiments": {"tiny": {"seeds": [0, 1]}}}
EPOCHS = range(5)
SEGMENTS = {"epochs=0000-0002": range(3), "epochs=0002-0004": range(3, 5)}
KEY = {"experiment": "tiny", "lr": "1e-3", "status": "ok"}


def stiffness(step: int, **about: object) -> dict[str, object]:
    """A row of a table; 1/3 has no end in either precision."""
    value = 1 / 3 - step / 100
    numbers = {"value": value, "low": value - 0.1, "high": value + 0.1}
    return {"step": step, "epoch": float(step), **about, **numbers, "n_pairs": 90}


def write_results(results: Path, seeds: tuple[int, ...] = (0, 1)) -> None:
    """The tables of an experiment of 4 epochs in two segments, with 10 steps per epoch."""
    tables: dict[str, list[dict[str, object]]] = {"runs": [], "history": [], "summary": []}
    modes, metrics = ("train-train", "train-val"), ("sign", "cosine")
    for seed in seeds:
        key = KEY | {"seed": seed}
        scores = {"train_loss": 1.0, "validation_loss": 1.5, "validation_accuracy": 0.6}
        tables["runs"].append(
            key | {"epochs": 4.0, "onset_epoch": 2.0, "best_validation_accuracy": 0.6}
        )
        for step in EPOCHS:
            tables["history"].append(key | {"step": step, "epoch": float(step)} | scores)
            for mode, metric, quantity in product(modes, metrics, ("within", "between")):
                about = {"pair_mode": mode, "metric": metric, "quantity": quantity}
                tables["summary"].append(key | stiffness(step, **about))
        for segment, steps in SEGMENTS.items():
            classes = [
                stiffness(step, pair_mode=mode, metric=metric, class_a=a, class_b=b)
                for step, mode, metric, a, b in product(steps, modes, metrics, "ab", "ab")
            ]
            folder = results / f"tiny/lr=1e-3/seed={seed}/measures/exact/{segment}"
            write_table(folder / "classes.parquet", pd.DataFrame(classes))
    for name, lines in tables.items():
        write_table(results / f"tiny/tables/exact/{name}.parquet", pd.DataFrame(lines))
    said = dict.fromkeys(COLUMNS, "") | {"claim": "C2", "experiment": "tiny", "counts": True}
    said |= {"settles": False, "seeds": 2, "experiment_verdict": "supported", "effect": "rise"}
    said |= {"value": 0.5, "low": 0.4, "high": 0.6, "holds_from": 0, "holds_to": np.inf}
    write_text(
        results / "claims.csv",
        pd.DataFrame([said, said | {"experiment": "other"}]).to_csv(index=False),
    )


@pytest.fixture
def root(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    blocks = ("runs", "claim C2", "figure fig5", "figure fig7")
    page = "".join(f"<!-- generated: {name} -->\n<!-- end -->\n\n" for name in blocks)
    (tmp_path / "docs/results.md").write_text(f"# Results\n\n{page}")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(OVERLAY))
    write_results(tmp_path / "run/results")
    return tmp_path


def test_tables_become_small_and_mirror_the_results(root):
    said = list(collect(root, root / "run/results", ["tiny"], [root / "mine.yaml"]))
    assert len(said) == 1
    assert "6 tables" in said[0]
    data = root / "docs/data"
    # What is of the machine stays out.
    assert yaml.safe_load((data / "tiny.yaml").read_text()) == {
        "experiments": {"tiny": {"seeds": [0, 1]}}
    }
    # Segments are joined. Of classes only what the figure shows is kept: stages of one run.
    first, second = (
        read_table(
            data / f"tiny/lr=1e-3/seed={seed}/measures/exact/epochs=0000-0004/classes.parquet"
        )
        for seed in (0, 1)
    )
    assert set(first["step"]) == {0, 4}
    assert set(first["metric"] + " " + first["pair_mode"]) == {"sign train-val"}
    assert second.empty
    before = read_table(root / "run/results/tiny/tables/exact/summary.parquet")
    after = read_table(data / "tiny/tables/exact/summary.parquet")
    assert after["value"].dtype == np.float32
    assert after["epoch"].dtype == np.float64
    # Half a unit in the last of 24 bits.
    np.testing.assert_allclose(after["value"], before["value"], rtol=2**-24)
    pd.testing.assert_frame_equal(after.astype(before.dtypes), before, rtol=2**-24)
    claims = read_table(data / "tiny/claims.parquet")
    assert list(claims["experiment"]) == ["tiny"]
    assert "verdict" not in claims


def test_the_page_follows_from_the_tables_and_notices_every_change(root):
    list(collect(root, root / "run/results", ["tiny"], [root / "mine.yaml"]))
    assert len(drift(root)) > 2
    assert list(write_pages(root)) == [
        "drawn: tiny_stiffness_curves.png",
        "drawn: tiny_class_matrix_stages.png",
        "written: results.md",
    ]
    assert drift(root, everything=True) == []
    assert list(write_pages(root)) == []
    page = root / "docs/results.md"
    text = page.read_text()
    run = "`fc` on `digits`, 500 + 500 evaluated | 1e-3 | 0, 1 | 4 | `seeds`: 0, 1 instead of 0 |"
    assert f"| `tiny` | {run}" in text
    assert "learning rate 1e-3, seed 0 (of 0, 1), 4 epochs" in text
    assert "1 too few seeds (tiny); 3 are needed" in text

    for old, new in (("0.333", "0.334"), ("0.500 (0.400", "0.500 (0.450")):
        assert old in text
        page.write_text(text.replace(old, new))
        assert any("results.md" in line for line in drift(root)), old
    page.write_text(text)

    table = root / "docs/data/tiny/tables/exact/summary.parquet"
    kept = table.read_bytes()
    write_table(table, read_table(table).assign(value=np.float32(0)))
    found = drift(root)
    assert any("tiny_stiffness_curves.png is not of its tables" in line for line in found)
    assert not any("class_matrix_stages" in line for line in found)
    table.write_bytes(kept)

    stray = root / "docs/data/tiny/tables/exact/levels.parquet"
    stray.write_bytes(kept)
    (root / "docs/figures/old.png").touch()
    found = drift(root)
    assert any(f"{stray.relative_to(root)}: no figure reads it" in line for line in found)
    assert any("old.png is in no page" in line for line in found)


def test_tables_of_another_configuration_are_refused(root):
    with pytest.raises(StiffnessError, match=r"tiny\.seeds: the tables have \[0, 1\]"):
        list(collect(root, root / "run/results", ["tiny"]))
    longer = {"experiments": {"tiny": {"seeds": [0, 1], "epochs": 6}}}
    (root / "longer.yaml").write_text(yaml.safe_dump(longer))
    with pytest.raises(StiffnessError, match=r"tiny\.epochs: the tables have 4"):
        list(collect(root, root / "run/results", ["tiny"], [root / "longer.yaml"]))
    assert not (root / "docs/data").exists()


def test_what_a_figure_lacks_is_said(root):
    for path in (root / "run/results/tiny/lr=1e-3").rglob("classes.parquet"):
        path.unlink()
    said = list(collect(root, root / "run/results", ["tiny"], [root / "mine.yaml"]))
    assert "no class_matrix_stages" in said[0]
    assert "no tables of `tiny` yet" in render(Committed(root), "figure fig7")
    assert "tiny_stiffness_curves.png" in render(Committed(root), "figure fig5")


def test_what_no_page_shows_is_left_out(root):
    (root / "docs/results.md").write_text("<!-- generated: runs -->\n<!-- end -->\n")
    said = list(collect(root, root / "run/results", [], [root / "mine.yaml"]))
    assert said == ["tiny: left out, for no page shows it"]
    assert not (root / "docs/data").exists()
