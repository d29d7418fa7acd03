"""Numbers of docs/results.md that no block generates are those of docs/data."""

import re
from pathlib import Path

import pytest

from stiffness.files import read_table, rows
from stiffness.measures.equal_loss import add_losses, tables_at_losses

ROOT = Path(__file__).parents[3]
# | `experiment` (rates) | loss | smallest | largest | loss | smallest | largest |
_ROW = re.compile(r"\| `(\w+)`(?: \(([\w-]+), ([\w-]+)\))? \|" + 6 * r" ([\d.]+) \|")


def test_where_learning_rates_change_their_order() -> None:
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    section = page.partition("### Learning rates change their order\n")[2].partition("\n## ")[0]
    found = _ROW.findall(section)
    assert len(found) == 8
    wanted = {"metric": "cosine", "pair_mode": "train-val", "layer": "input", "estimator": "area"}
    for experiment, low, high, *shown in found:
        tables = ROOT / "docs/data" / experiment / "tables/exact"
        lengths = rows(read_table(tables / "critical_length.parquet"), **wanted)
        lengths = add_losses(lengths, read_table(tables / "history.parquet"))
        for loss, *of_rates in (map(float, shown[:3]), map(float, shown[3:])):
            at_loss = tables_at_losses(lengths, [loss])
            passed = at_loss.groupby("lr").filter(lambda one: one["seed"].nunique() == 5)
            means = passed.groupby("lr")["value"].mean()
            ends = [low or min(means.index, key=float), high or max(means.index, key=float)]
            assert means[ends].tolist() == pytest.approx(of_rates, abs=0.0006), (experiment, loss)
