"""What runs took, from their provenance."""

from typing import ClassVar

import pandas as pd

from stiffness.pages.costs import costs

ROOMS = {
    "training": {"cpu_seconds": 7200, "peak_mib": 512},
    "gradients": {"cpu_seconds": 600, "peak_mib": 1536},
    "measures": {"cpu_seconds": 120, "peak_mib": 256},
}


class Kept:
    """Two runs of 10 epochs with 30 checkpoints in two arithmetics, and one without records."""

    experiments = ("known", "unrecorded")
    settings: ClassVar = {"experiments": {"known": {"arithmetic": ["exact", "keras"]}}}

    def provenance(self, name):
        return {"rooms": ROOMS} if name == "known" else {"unrecorded": "all"}

    def table(self, name, table):
        assert name == "known"
        return pd.DataFrame({"epochs": [10.0, 10.0] if table == "runs" else [0.0] * 30})


def test_hours_are_those_of_all_runs_and_seconds_of_one_epoch_and_checkpoint():
    text = costs(Kept())
    assert "| `known` | 2 | 30 | 2.00 | 360 | 0.17 | 0.03 | 10 | 1.50 |" in text
    assert "No records: `unrecorded`." in text


def test_a_cluster_waits_for_the_longest_run():
    # 7,920 s of two runs: 66 minutes each, more than a hundredth of both.
    text = costs(Kept())
    assert "Together 2.2 hours" in text
    assert "100 nodes that give a core each would need 66 minutes" in text
