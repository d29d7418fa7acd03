"""The profiles fit together, and every rule has a place on a cluster."""

import re
from pathlib import Path

import pytest
import yaml
import yte

REPOSITORY = Path(__file__).parents[2]
# Long, and worth a job of their own.
ALONE = {"training", "imported", "gradient_tile", "representations", "whole_set"}


def profile(name: str) -> dict:
    return yaml.safe_load((REPOSITORY / f"profiles/{name}/profile.yaml").read_text())


@pytest.mark.parametrize("name", ["gpu", "slurm"])
def test_no_key_of_a_profile_is_hidden_by_the_default_one(name):
    # Snakemake loads both, and the one found by itself wins.
    assert not set(profile(name)) & set(profile("default"))


def test_as_many_gpu_jobs_as_visible_gpus(monkeypatch):
    path = REPOSITORY / "profiles/default/profile.yaml"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3,5")
    assert yte.process_yaml(path.read_text(), require_use_yte=True)["resources"] == ["gpu=3"]
    # Hidden or none: no job asks for one, but a limit of 0 would be an error where one does.
    monkeypatch.setattr("glob.glob", lambda pattern: [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert yte.process_yaml(path.read_text(), require_use_yte=True)["resources"] == ["gpu=1"]
    monkeypatch.setattr("glob.glob", lambda pattern: ["one", "two"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert yte.process_yaml(path.read_text(), require_use_yte=True)["resources"] == ["gpu=2"]


def test_every_rule_is_local_or_in_a_group_or_long():
    rules, local = set(), set()
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        blocks = re.split(r"^(?:use rule \w+ as|rule) ", path.read_text(), flags=re.MULTILINE)
        for block in blocks[1:]:
            name = re.match(r"\w+", block)[0]
            rules.add(name)
            if "    localrule: True\n" in block:
                local.add(name)
    assert local | set(profile("slurm")["groups"]) | ALONE == rules


def test_no_group_holds_a_gpu_while_tables_are_made():
    on_device = {"training"}
    for path in (REPOSITORY / "workflow/rules").glob("*.smk"):
        blocks = re.split(r"^(?:use rule \w+ as|rule) ", path.read_text(), flags=re.MULTILINE)
        on_device |= {re.match(r"\w+", block)[0] for block in blocks[1:] if "ON_DEVICE" in block}
    groups = profile("slurm")["groups"]
    with_gpu = {group for rule, group in groups.items() if rule in on_device}
    without = {group for rule, group in groups.items() if rule not in on_device}
    assert with_gpu
    assert not with_gpu & without
