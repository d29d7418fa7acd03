"""The numbers on the README's first screen are those of docs/data."""

import re
from pathlib import Path

from stiffness.files import read_table, rows

ROOT = Path(__file__).parents[3]
# | network (`experiment`) | seeds | epochs | exact | Keras's clip |
_ROW = re.compile(r"\| [^|`]+ \(`(\w+)`\) \| (\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|")


def test_the_headline() -> None:
    found = _ROW.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(found) == 5
    for experiment, seeds, epochs, *shown in found:
        for arithmetic, value in zip(("exact", "keras"), shown, strict=True):
            path = ROOT / "docs/data" / experiment / "tables" / arithmetic / "summary.parquet"
            wanted = {"quantity": "within", "metric": "sign", "pair_mode": "train-train"}
            last = rows(read_table(path), epoch=float(epochs), status="ok", **wanted)
            assert last["seed"].nunique() == int(seeds)
            assert f"{last['value'].mean():.3f}" == value
