"""Where a result came from, told from records alone, wherever they lie now."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from stiffness.errors import StiffnessError
from stiffness.jobs.provenance import (
    ancestry,
    describe,
    main,
    read_records,
    results_folder,
    summarise,
)
from stiffness.jobs.record import output_digest, record_job, revision


class Named(dict):
    """Files or settings as a script has them: by name, and as a list."""

    def __iter__(self):
        for value in self.values():
            yield from value if isinstance(value, list) else [value]


class Job:
    def __init__(self, rule, inputs, outputs, **params):
        self.rule = rule
        self.wildcards, self.threads = Named(experiment="e"), 2
        self.input, self.output, self.params = Named(inputs), Named(outputs), Named(params)
        self.log = [f"results/logs/{rule}/e.log"]


JOBS = [
    Job("arrays", {"library": ["x.py"]}, {"a": "results/data/d/arrays.safetensors"}, dataset="d"),
    Job(
        "training",
        {"arrays": "results/data/d/arrays.safetensors", "library": ["x.py"]},
        {"folder": "results/e/run", "state": "results/e/run/state"},
        batch_size=32,
    ),
    Job(
        "tables",
        {"parts": ["results/e/run/state", "results/e/old"]},
        {"table": "results/e/tables/exact/summary.parquet"},
    ),
    Job(
        "distance",
        {"table": "results/e/tables/exact/summary.parquet"},
        {"pdf": "results/e/figures/distance.pdf"},
        options={"color": "red"},
    ),
]
FIGURE = "e/figures/distance.pdf"


@pytest.fixture
def results(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for job in JOBS:
        with record_job(job):
            for name in job.output:
                path = Path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.mkdir() if name.endswith("/run") else path.write_text(name)
    return tmp_path / "results"


def test_the_chain_goes_back_to_the_data(results):
    jobs, unrecorded = ancestry(read_records(results), [FIGURE])
    assert [job["rule"] for job in jobs] == ["distance", "tables", "training", "arrays"]
    assert unrecorded == ["e/old"]


def test_a_reader_learns_jobs_settings_code_and_times(results):
    text = describe(results / FIGURE)
    for part in ("made by:", "distance, 2", "as it was made", '{"color": "red"}', "batch_size:"):
        assert part in text
    for part in ("results/e/run/state", "python:", "numpy", "revision:", "without a record"):
        assert part in text
    assert "4 jobs" in text
    assert "x.py" not in text


def test_it_works_in_a_copy_under_another_name(results, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere" / "of mine"
    shutil.copytree(results, copy)
    shutil.rmtree(results)
    monkeypatch.chdir("/")
    text = describe(copy / FIGURE)
    assert "as it was made" in text
    assert "4 jobs" in text


def test_a_file_changed_by_hand_is_found_out(results):
    (results / FIGURE).write_text("retouched")
    assert "CHANGED since it was made" in describe(results / FIGURE)


def test_a_file_within_a_folder_that_a_job_made(results):
    (results / "e/run/step=1").touch()
    assert "made by:                 training" in describe(results / "e/run/step=1")


def test_the_summary_holds_no_times_and_comes_out_the_same(results):
    summary = summarise("e", {"seeds": [0], "epochs": 2}, {"name": "d"}, ["results/" + FIGURE])
    assert summary["configuration"] == {"seeds": [0], "epochs": 2}
    assert summary["seeds"] == [0]
    (environment,) = summary["jobs"]
    assert environment["rules"] == {"arrays": 1, "distance": 1, "tables": 1, "training": 1}
    assert environment["device"] == "cpu"
    assert environment["threads"] == "2"
    assert "numpy" in environment["packages"]
    assert summary["unrecorded"] == ["e/old"]
    text = yaml.safe_dump(summary)
    assert "&" not in text
    assert json.loads((results / "logs/tables/e.json").read_text())["started"] not in text


def test_a_failed_job_takes_the_old_record_with_it(results):
    with pytest.raises(ValueError, match="x"), record_job(JOBS[-1]):
        raise ValueError("x")
    with pytest.raises(StiffnessError, match="no job left a record of it"):
        describe(results / FIGURE)


def test_complaints_name_the_file(results, tmp_path, capsys):
    with pytest.raises(StiffnessError, match=r"absent: no such file"):
        results_folder(results / "absent")
    lone = tmp_path / "figure.png"
    lone.touch()
    with pytest.raises(SystemExit, match=r"^error: .*figure.png: none of the folders"):
        main([str(lone)])
    (results / "logs/tables/e.json").write_text("{")
    with pytest.raises(StiffnessError, match=r"tables/e.json: not a readable record"):
        read_records(results)
    assert capsys.readouterr().out == ""


def test_large_files_and_folders_have_no_digest(tmp_path, monkeypatch):
    assert output_digest(tmp_path) is None
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert output_digest(tmp_path / "a") is not None
    monkeypatch.setattr("stiffness.jobs.record._HASHED", 9)
    assert output_digest(tmp_path / "a") is None


def test_the_revision_is_that_of_the_code_and_says_whether_it_is_changed(tmp_path):
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    git("init", "--quiet")
    assert revision(tmp_path) == "unknown"  # a copy within some other repository
    (tmp_path / "__init__.py").write_text("")
    git("add", ".")
    git("commit", "--quiet", "-m", "x")
    commit = git("rev-parse", "HEAD")
    assert revision(tmp_path) == commit
    (tmp_path / "__init__.py").write_text("changed")
    assert revision(tmp_path) == f"{commit}-dirty"
    assert revision(tmp_path.parent) == "unknown"
