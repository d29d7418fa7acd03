"""From nothing to figures: what is written, that it is complete, and that it comes out the same."""

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from PIL import Image
from project import KINDS, PICTURES, TINY, Project, of_tiny

from stiffness.files import read_table
from stiffness.jobs.provenance import describe
from stiffness.plan.kinds import KINDS as ABOUT
from stiffness.training.stages import choose_stages

RATES = ("1e-3", "3e-3")
SEGMENTS = ("epochs=0000-0001", "epochs=0001-0002")
STEPS = {SEGMENTS[0]: (0, 1, 6, 38), SEGMENTS[1]: (76,)}  # 1,200 digits are 38 batches of 32
TABLES = (
    "runs",
    "history",
    "summary",
    "distance",
    "critical_length",
    "siblings",
    "confidence",
)
COMPARISONS = ("levels", "order", "stopping")
SEGMENT_TABLES = (
    "summary",
    "classes",
    "distance",
    "critical_length",
    "extremes",
    "siblings",
    "confidence",
    "examples",
)


def expected_results() -> set[str]:
    files = {
        "results/data/digits/arrays.safetensors",
        "results/data/digits/hierarchy.yaml",
        "results/tiny/provenance.yaml",
        "results/data/digits/evaluation/train=40_validation=40_seed=0.safetensors",
    }
    pictures = [PICTURES[kind] for kind in KINDS]
    files |= {f"results/tiny/figures/{name}.{end}" for name in pictures for end in ("pdf", "png")}
    files |= {f"results/tiny/figures/{kind}.html" for kind in KINDS if ABOUT[kind].page}
    files |= {f"results/tiny/tables/exact/{name}.parquet" for name in (*TABLES, *COMPARISONS)}
    files |= {f"results/claims.{end}" for end in ("md", "csv", "pdf", "png")}
    for run in [f"results/tiny/lr={lr}/seed=0" for lr in RATES]:
        for segment, steps in STEPS.items():
            names = [f"step={step:08d}.safetensors" for step in steps]
            kept = [*names, "history.parquet", "state.safetensors", ".snakemake_timestamp"]
            cosines = [f"cosines/{name}" for name in (*names, ".snakemake_timestamp")]
            measured = [*cosines, "digests.json", "performance.json"]
            files |= {f"{run}/checkpoints/{segment}/{name}" for name in kept}
            files |= {f"{run}/gradients/exact/{segment}/{name}" for name in measured}
            files |= {f"{run}/measures/exact/{segment}/{n}.parquet" for n in SEGMENT_TABLES}
            files.add(f"{run}/measures/exact/{segment}/replicates.safetensors")
    return files


def test_every_file_is_there_and_no_other(tiny):
    assert set(tiny.results()) == expected_results()
    assert tiny.half_written() == []


def test_figures_are_pictures(tiny):
    for kind in KINDS:
        path = tiny.folder / "results/tiny/figures" / PICTURES[kind]
        assert Path(f"{path}.pdf").read_bytes().startswith(b"%PDF-")
        with Image.open(f"{path}.png") as image:
            darkest, lightest = image.convert("L").getextrema()
            assert (darkest, lightest) < (100, 255), kind


def test_what_the_tables_were_made_with_is_written_down(tiny):
    found = yaml.safe_load((tiny.folder / "results/tiny/provenance.yaml").read_text())
    configuration = found["configuration"]
    assert configuration["epochs"] == TINY["experiments"]["tiny"]["epochs"]
    assert configuration["batch_size"] == 32, "defaults are filled in"
    assert found["dataset"]["name"] == "digits"
    assert found["seeds"] == [0]
    (environment,) = found["jobs"]
    assert {"revision", "device", "python", "packages"} < set(environment)
    assert environment["packages"]["torch"] == torch.__version__
    counts = {"arrays": 1, "evaluation": 1, "hierarchy": 1, "tables": 1}
    counts |= {"training": 4, "gradients": 4, "measures": 4}
    assert environment["rules"] == counts
    assert "unrecorded" not in found


def test_a_setting_of_the_experiment_is_written_down_again(built):
    outcome = built.run("results/tiny/provenance.yaml", "--dry-run")
    assert "Nothing to be done" in outcome.output
    built.configure({"experiments": {"tiny": {"stages": [0, "last"]}}})
    outcome = built.run("results/tiny/provenance.yaml", "--dry-run")
    assert "Writing down what the tables of tiny were made with" in outcome.output
    assert outcome.jobs == {}, "and nothing else is made again"


def test_one_command_says_where_a_figure_came_from(tiny, tmp_path):
    copy = tmp_path / "copied"
    shutil.copytree(tiny.folder / "results", copy)
    text = describe(copy / "tiny/figures/distance.png")
    for part in ("as it was made", "training: 4 jobs", "batch_size:", "torch " + torch.__version__):
        assert part in text
    assert "without a record" not in text


def test_a_second_run_has_nothing_to_do(tiny):
    before = tiny.results()
    assert "Nothing to be done" in tiny.build().output
    assert tiny.results() == before


def test_logs_and_terminal_show_progress(tiny):
    terminal = (tiny.folder / "terminal.txt").read_text()
    assert max(map(len, terminal.splitlines())) < 200
    assert "\nPictures: results/tiny/figures\n" in terminal
    scores = r"loss \d+\.\d{4} accuracy [01]\.\d{4}"
    for lr in RATES:
        for epoch, segment in enumerate(SEGMENTS, start=1):
            line = rf"tiny lr={lr} seed=0: epoch {epoch}/{epoch}: {scores}, validation {scores}"
            file = f"results/logs/training/tiny/lr={lr}/seed=0/{segment}.log"
            log = (tiny.folder / file).read_text()
            (found,) = re.findall(rf"^{line}, \d+:\d\d left$", log, re.MULTILINE)
            assert found in terminal
            file = f"results/logs/gradients/tiny/lr={lr}/seed=0/exact/{segment}.log"
            assert "80 x 80 gradient cosines in" in (tiny.folder / file).read_text()


def test_every_job_has_a_record_of_its_time_and_memory(tiny):
    logs = list((tiny.folder / "results/logs").rglob("*.log"))
    assert len(logs) > 20
    for log in logs:
        record = json.loads(log.with_suffix(".json").read_text())
        assert record["process_seconds"] >= record["seconds"] >= 0, log
        assert record["peak_mib"] > 0
        assert record["cpu_seconds"] > 0


def test_a_figure_of_the_paper_builds_exactly_what_it_needs(fresh, tiny):
    assert fresh.plan("fig4") == {
        "arrays": 1,
        "evaluation": 1,
        "hierarchy": 1,
        "training": 4,
        "gradients": 4,
        "measures": 4,
        "tables": 1,
        "figure class_matrices": 1,
        "fig4": 1,
    }
    assert tiny.plan("fig4") == {}


def test_a_stage_is_a_picture_of_its_own(tiny):
    name = "results/tiny/figures/{}/stage=2.png"
    assert tiny.plan(name.format("class_matrix")) == {"figure class_matrix": 1}
    assert tiny.plan(name.format("hierarchy_matrix")) == {"figure hierarchy_matrix": 1}


AGAIN = "results/tiny/lr=1e-3/seed=0"


@pytest.fixture(scope="module")
def again(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The first segment of a run again, in another folder."""
    project = Project(tmp_path_factory.mktemp("again") / "elsewhere")
    shutil.copytree(source, project.folder)
    project.build(f"{AGAIN}/measures/exact/{SEGMENTS[0]}/summary.parquet")
    return project


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        "data/**/*.safetensors",
        f"tiny/**/{SEGMENTS[0]}/**/*.safetensors",
        f"tiny/**/{SEGMENTS[0]}/digests.json",
    ],
)
def test_arrays_checkpoints_and_gradients_are_the_same_bytes_elsewhere(tiny, again, pattern):
    pairs = matching(tiny, again, pattern)
    for one, other in pairs:
        assert one.read_bytes() == other.read_bytes(), one


@pytest.mark.slow
def test_tables_are_the_same_elsewhere(tiny, again):
    for one, other in matching(tiny, again, f"tiny/**/{SEGMENTS[0]}/*.parquet"):
        pd.testing.assert_frame_equal(read_table(one), read_table(other), check_exact=True)


def matching(tiny: Project, again: Project, pattern: str) -> list[tuple[Path, Path]]:
    here, there = tiny.folder / "results", again.folder / "results"
    names = sorted(path.relative_to(there) for path in there.glob(pattern))
    assert names
    run = [path.relative_to(here) for path in here.glob(pattern)]
    assert names == sorted(name for name in run if "lr=3e-3" not in str(name))
    return [(here / name, there / name) for name in names]


@pytest.mark.slow
def test_a_dead_run_is_named_and_its_figures_are_still_drawn(built):
    # Adam's first step is as long as the learning rate: 1e3 throws the weights far from anything
    # useful, 1e30 overflows float32, and the second segment goes on from a diverged first one.
    dead = TINY["experiments"]["tiny"] | {
        "learning_rates": ["1e3", "1e30"],
        "reference_learning_rate": "1e3",
    }
    built.configure({"run": ["dead"], "experiments": {"dead": dead}})
    outcome = built.build()
    assert outcome.jobs["training"] == 4
    assert "Traceback" not in outcome.output
    folder = built.folder / "results/dead"
    status = read_table(folder / "tables/exact/runs.parquet").set_index("lr")["status"]
    assert status["1e3"] == "at chance"
    assert status["1e30"] == "diverged"
    for name in ("history", "summary"):
        table = read_table(folder / f"tables/exact/{name}.parquet")
        assert (table["status"] == table["lr"].map(status)).all()
    for kind in KINDS:
        assert (folder / f"figures/{PICTURES[kind]}.png").stat().st_size > 0
        assert (folder / f"figures/{PICTURES[kind]}.pdf").stat().st_size > 0


@pytest.mark.slow
def test_the_whole_training_set_is_measured_where_asked_for(built):
    figure = "results/tiny/figures/whole_set.png"
    assert "evaluation.all" in built.run(figure).errors[0]
    built.configure({"experiments": {"tiny": {"evaluation": {"all": "stages"}}}})
    assert built.plan(figure) == {"whole_set": 2, "figure whole_set": 1}
    built.build(figure)
    run = built.folder / "results/tiny/lr=1e-3/seed=0"
    parts = [read_table(run / f"whole_set/{segment}.parquet") for segment in SEGMENTS]
    table = pd.concat(parts, ignore_index=True)
    histories = [read_table(run / f"checkpoints/{segment}/history.parquet") for segment in SEGMENTS]
    stages = choose_stages(pd.concat(histories), TINY["experiments"]["tiny"]["stages"])
    wanted = {stage.step for stage in stages}
    assert {0, 76} < wanted
    assert set(table["step"]) == wanted
    assert set(table["n_examples"]) == {1200}
    assert len(table) == len(wanted) * 10 * 10
    assert (built.folder / figure).stat().st_size > 0
    # A stage fewer reruns what is measured at stages, not what is measured at every checkpoint.
    built.configure({"experiments": {"tiny": {"evaluation": {"all": "checkpoints"}}}})
    assert built.plan(figure) == {"whole_set": 2, "figure whole_set": 1}


@pytest.mark.slow
def test_layers_are_measured_where_asked_for(built):
    figure = "results/tiny/figures/layers.png"
    assert "layer_stiffness" in built.run(figure).errors[0]
    built.configure(of_tiny(layer_stiffness="stages") | {"keep_gradients": False})
    expected = {"layer_gradients": 2, "layer_stiffness": 2, "figure layers": 1}
    assert built.build(figure).jobs == expected
    run = built.folder / "results/tiny/lr=1e-3/seed=0"
    assert not list(run.glob("layer_gradients/**/*.safetensors"))
    for name in ("summary", "distance", "critical_length"):
        parts = [
            read_table(run / f"layer_stiffness/exact/{segment}/{name}.parquet")
            for segment in SEGMENTS
        ]
        table = pd.concat([part for part in parts if len(part)])
        assert {0, 76} <= set(table["step"])
        assert set(table["layer"]) == {"1", "3", "5", "7"}
    assert (built.folder / figure).stat().st_size > 0
    assert built.plan(figure) == {}


def test_claims_are_judged_on_what_there_is(tiny):
    rows = pd.read_csv(tiny.folder / "results/claims.csv")
    assert set(rows["experiment"]) == {"tiny"}
    assert {"C1", "C3'", "C18"} <= set(rows["claim"])
    known = rows.dropna(subset=["value", "low", "high"])
    assert len(known) > 0
    assert (known["low"] <= known["value"]).all()
    assert (known["value"] <= known["high"]).all()
    page = (tiny.folder / "results/claims.md").read_text()
    assert "## C2: " in page
    assert "Cannot speak to it: tiny" in page
    links = set(re.findall(r"\(([^)]*\.png)\)", page))
    assert "tiny/figures/equal_loss.png" in links
    assert [link for link in links if not (tiny.folder / "results" / link).is_file()] == []


def test_claims_follow_the_tables_and_nothing_else(built):
    built.configure({"figures": {"distance": {"width": 6.0}}})
    assert "Judging the paper's claims" not in built.build("-n").output
    built.configure(of_tiny(distance_bins=8))
    assert "Judging the paper's claims" in built.build("-n").output
