"""The profiles fit together, and every rule has a place on a cluster."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
# Long, and worth a job of their own.
ALONE = {"training", "representations"}


def profile(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"profiles/{name}/profile.yaml").read_text())


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_no_key_of_a_profile_is_hidden_by_the_default_one(name):
    # Snakemake loads both, and the one found by itself wins.
    assert not set(profile(name)) & set(profile("default"))


def test_every_rule_is_local_or_in_a_group_or_long():
    rules, local = set(), set()
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for block in re.split(r"^rule ", path.read_text(), flags=re.MULTILINE)[1:]:
            name = block.split(":", 1)[0]
            rules.add(name)
            if "    localrule: True\n" in block:
                local.add(name)
    assert local | set(profile("slurm")["groups"]) | ALONE == rules
