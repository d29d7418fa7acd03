"""The embedded default: every estimate lies in its interval."""

import pandas as pd
import pytest
from project import Project

from stiffness.files import read_table

ENDS = ("", "at_crossing", "floor", "slope")


@pytest.mark.slow
def test_every_estimate_of_the_default_lies_in_its_interval(fresh: Project):
    (fresh.folder / "tiny.yaml").write_text("{}\n")
    fresh.build("claims")
    claims = pd.read_csv(fresh.folder / "results/claims.csv")
    assert {"digits_fc", "digits_cnn"} <= set(claims["experiment"])
    files = sorted(fresh.folder.glob("results/digits_*/**/*.parquet"))
    tables = {file: read_table(file) for file in files}
    checked = 0
    for file, table in {"claims.csv": claims, **tables}.items():
        for name in ENDS:
            columns = [name or "value", f"{name}_low".lstrip("_"), f"{name}_high".lstrip("_")]
            if set(columns) <= set(table.columns):
                value, low, high = (table[column] for column in columns)
                known = value.notna() & low.notna() & high.notna()
                assert (low[known] <= value[known]).all(), (file, name)
                assert (value[known] <= high[known]).all(), (file, name)
                checked += known.sum()
    assert checked > 1000
