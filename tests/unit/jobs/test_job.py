"""What a job logs goes to the terminal and to its log, with the job's name, and into its record."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[3] / "workflow"
JOB = """
import logging, sys
from types import SimpleNamespace
from stiffness.errors import StiffnessError
from stiffness.jobs.job import job

wildcards = {wildcards}
snakemake = SimpleNamespace(
    rule="training", log=["logs/a.log"], threads=3, wildcards=wildcards, input={{}}, params={{}},
    output=[],
)
with job(snakemake):
    logging.getLogger("stiffness.training.train").info("epoch %d/3: 100%% done", 1)
    logging.getLogger("stiffness.training.train").debug("not shown")
    logging.getLogger("other").info("not shown")
    if {fails}:
        raise StiffnessError("seeds: none")
"""
RUN = {"experiment": "digits_fc", "lr": "1e-3", "seed": "0", "segment": "epochs=0000-0003"}


@pytest.mark.parametrize(
    ("wildcards", "name"),
    [
        (RUN, "digits_fc lr=1e-3 seed=0"),
        ({"experiment": "digits_fc"}, "digits_fc"),
        ({"dataset": "digits"}, "digits"),
        ({}, "training"),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_lines_name_the_job_on_the_terminal_and_in_the_log(tmp_path, wildcards, name, fails):
    done = subprocess.run(
        [sys.executable, "-c", JOB.format(wildcards=wildcards, fails=fails)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = f"{name}: epoch 1/3: 100% done\n"
    expected += "error in training: seeds: none\n" if fails else ""
    assert done.returncode == int(fails)
    assert done.stderr == expected
    assert (tmp_path / "logs/a.log").read_text() == expected
    assert (tmp_path / "logs/a.json").exists() != fails
    if not fails:
        assert json.loads((tmp_path / "logs/a.json").read_text())["threads"] == 3
