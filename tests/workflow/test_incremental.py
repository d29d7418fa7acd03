"""A change reruns what depends on it, and nothing else: mostly by counting the jobs of dry runs."""

import os
import time
from pathlib import Path

import pytest
from project import KINDS, figures, first_of, of_tiny

from stiffness.plan import paths

# Jobs of the tiny experiment; two learning rates of two segments each.
COUNTS = {"training": 4, "gradients": 4, "measures": 4}
DRAWN = figures(*KINDS)
TABLES = ("tables", "comparison", *DRAWN)
# With one learning rate there is none to compare it with.
OF_ONE_RATE = tuple(rule for rule in TABLES if rule != "figure equal_loss")
MEASURES = ("measures", *TABLES)
GRADIENTS = ("gradients", *MEASURES)
TRAINING = ("training", *GRADIENTS)
EVERYTHING = ("arrays", "evaluation", "hierarchy", *TRAINING)


def jobs(*rules: str, **counts: int) -> dict[str, int]:
    """The plan that runs these rules for the whole tiny experiment, or as often as said."""
    plan = {rule: COUNTS.get(rule, 1) for rule in rules} | counts
    return plan | {"all": 1} if plan else {}


ALL_RATES = ("stiffness_curves", "critical_length", "equal_loss", "early_stopping")
BY_STAGE = ("class_matrices", "class_matrix_stages", "distance")
LOOKS = {
    "training_curves": {"height": 6.0},
    "class_matrices": {"colormap": "PiYG"},
    "class_matrix": {"pair_mode": "val-val"},
    "class_matrix_stages": {"metric": "cosine"},
    "hierarchy_matrix": {"height": 6.0},
    "hierarchy_curves": {"pair_mode": "train-train"},
    "stiffness_curves": {"palette": "magma"},
    "distance": {"color": "#d55e00"},
    "critical_length": {"width": 4.0},
    "contact_sheet": {"classes": 3},
    "equal_loss": {"palette": "magma"},
    "early_stopping": {"height": 4.0},
    "siblings": {"height": 5.5},
}


@pytest.mark.parametrize("kind", first_of(KINDS))
def test_a_look_redraws_one_kind_of_figure(built, kind):
    built.configure({"figures": {kind: LOOKS[kind]}})
    assert built.plan() == jobs(*figures(kind))


CHANGES = {
    "more evaluation examples": (
        {"evaluation": {"train": 50, "validation": 40}},
        jobs("evaluation", *GRADIENTS),
    ),
    "other evaluation examples": ({"evaluation": {"seed": 1}}, jobs("evaluation", *GRADIENTS)),
    "distance bins": ({"distance_bins": 8}, jobs(*MEASURES)),
    "stages": ({"stages": [0, 0.2, 1, 2]}, jobs(*figures(*BY_STAGE))),
    "the reference learning rate": (
        {"reference_learning_rate": "3e-3"},
        jobs(*figures(*(kind for kind in KINDS if kind not in ALL_RATES))),
    ),
    "a new learning rate": (
        {"learning_rates": ["1e-3", "3e-3", "1e-2"]},
        jobs(*TABLES, training=2, gradients=2, measures=2),
    ),
    "a new seed": ({"seeds": [0, 1]}, jobs(*TRAINING)),
    "one learning rate less": ({"learning_rates": ["1e-3"]}, jobs(*OF_ONE_RATE)),
    "an epoch more": ({"epochs": 3}, jobs(*TABLES, training=2, gradients=2, measures=2)),
    "an epoch less": ({"epochs": 1}, jobs(*TABLES)),
    # The two epochs of finished jobs stay as they are, the next three are one job.
    "more epochs, cut otherwise": (
        {"epochs": 5, "epochs_per_job": 5},
        jobs(*TABLES, training=2, gradients=2, measures=2),
    ),
    "epochs only cut otherwise": ({"epochs_per_job": 2}, {}),
    "the model": ({"model": {"initialization": "pytorch"}}, jobs(*TRAINING)),
    "a second arithmetic": (
        {"arithmetic": ["exact", "keras"]},
        # With both, what the arithmetic does is a figure too.
        jobs(
            "gradients",
            "measures",
            "tables",
            "figure arithmetic_axes",
            "figure training_curves",
        ),
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_reruns_what_it_decides(built, change):
    keys, expected = CHANGES[change]
    built.configure(of_tiny(**keys))
    assert built.plan() == expected


def test_a_new_learning_rate_or_seed_trains_no_other(built):
    built.configure(of_tiny(learning_rates=["1e-3", "3e-3", "1e-2"], seeds=[0, 7]))
    planned = [line for line in built.build("-n").output.splitlines() if "Training tiny" in line]
    assert len(planned) == 8
    assert all("learning rate 1e-2" in line or "seed 7" in line for line in planned)


OTHER = {"dataset": "digits", "model": {"name": "fc"}, "learning_rates": ["1e-3"], "epochs": 1}


def test_another_experiment_shares_the_data(built):
    built.configure({"run": ["tiny", "other"], "experiments": {"other": OTHER}})
    assert built.plan() == jobs(
        "evaluation", *TRAINING[:3], *OF_ONE_RATE, training=1, gradients=1, measures=1
    )


def test_resources_do_not_change_results(built):
    built.configure({"memory_budget": "1GiB", "device": "auto", "data_dir": "elsewhere"})
    assert built.plan() == {}


def test_other_groups_of_classes_leave_gradients_alone(built):
    groups = built.folder / "groups.yaml"
    groups.write_text(groups.read_text().replace("[1, 4, 7]", "[7, 4, 1]"))
    assert built.plan() == jobs("hierarchy", *MEASURES)


@pytest.mark.slow
def test_discarded_gradients_come_back_only_where_tables_need_them(built):
    gone = {"keep_gradients": False}
    built.configure(gone)
    assert built.plan() == {}
    more = {"epochs": 3, "learning_rates": ["1e-3"]}
    built.configure(gone | of_tiny(**more))
    tables = "results/tiny/tables/exact/summary.parquet"
    assert built.build(tables).jobs == {"training": 1, "gradients": 1, "measures": 1, "tables": 1}
    last = built.folder / "results/tiny/lr=1e-3/seed=0/gradients/exact/epochs=0002-0003"
    assert sorted(path.name for path in last.iterdir()) == ["digests.json", "performance.json"]
    assert built.plan(tables) == {}
    assert "gradients" not in built.plan()
    # As many checkpoints as there are; only the discarded ones are measured again.
    built.configure(gone | of_tiny(**more, distance_bins=8))
    assert built.plan(tables) == {"gradients": 1, "measures": 3, "tables": 1}
    built.configure(of_tiny(**more))
    assert built.plan(tables) == {}


EDITS = {
    "figures/distance.py": figures("distance"),
    "figures/style.py": DRAWN,
    "figures/load.py": DRAWN,
    "training/runs.py": TABLES,
    "measures/classes.py": MEASURES,
    "training/stages.py": DRAWN,
    "figures/matrix.py": figures(
        "class_matrices", "class_matrix", "class_matrix_stages", "hierarchy_matrix"
    ),
    "data/hierarchy.py": ("hierarchy", *MEASURES),
    "gradients/output_grads.py": GRADIENTS,
    "gradients/families/conv.py": GRADIENTS,
    "measures/studies.py": (),
    "data/evaluation.py": ("evaluation", *GRADIENTS),
    "training/train.py": TRAINING,
    "data/sources.py": EVERYTHING,
    "files.py": EVERYTHING,
    "plan/config.py": (),
    "plan/kinds.py": (),
    "fingerprint.py": EVERYTHING,
}


@pytest.mark.parametrize("module", first_of(EDITS))
def test_an_edited_module_reruns_the_rooms_that_use_it(built, module):
    built.edit(f"workflow/stiffness/{module}")
    assert built.plan() == jobs(*EDITS[module])


SCRIPTS = {"figure": DRAWN, "tables": TABLES, "training": TRAINING}


@pytest.mark.parametrize("script", first_of(SCRIPTS))
def test_an_edited_script_reruns_its_rule(built, script):
    built.edit(f"workflow/scripts/{script}.py")
    assert built.plan() == jobs(*SCRIPTS[script])


def turn_times_around(files: list[Path]) -> None:
    """The worst order: what is read gets a later time than what was made of it."""
    assert len(files) > 100
    files = sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True)
    start = time.time_ns() - len(files) * 10**8
    for place, path in enumerate(files):
        os.utime(path, ns=(start + place * 10**8,) * 2)


def files_of(folder: Path) -> list[Path]:
    """All files but Snakemake's records."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if path.relative_to(folder).parts[0] != ".snakemake"]


def test_a_touch_reruns_nothing(built):
    visible = [path for path in files_of(built.folder) if not path.name.startswith(".")]
    turn_times_around(visible)
    for folder in {path.parent for path in visible}:
        os.utime(folder)
    assert built.plan() == {}


def test_a_copy_that_loses_all_times_reruns_nothing(built):
    turn_times_around(files_of(built.folder))
    assert built.plan() == {}


def test_a_comment_or_a_readme_reruns_nothing(built):
    built.edit("README.md", "\n  \n")
    built.edit("config.yaml")
    built.edit("workflow/rules/figures.smk")
    assert built.plan() == {}


def test_an_epoch_more_leaves_finished_work_untouched(built):
    before = built.results()
    built.configure(of_tiny(epochs=3, learning_rates=["1e-3"]))
    outcome = built.build("results/tiny/tables/exact/runs.parquet")
    assert outcome.jobs == {"training": 1, "gradients": 1, "measures": 1, "tables": 1}
    after = built.results()
    changed = {name for name in before if after.get(name) != before[name]}
    assert changed == {f"results/tiny/tables/exact/{name}.parquet" for name in paths.TABLES}
    new = set(after) - set(before)
    assert new
    assert all("/epochs=0002-0003/" in name for name in new)


def test_a_new_colour_redraws_that_figure_once(built):
    built.configure({"figures": {"distance": {"color": "#d55e00"}}})
    before = built.results()
    picture = built.folder / "results/tiny/figures/distance.png"
    blue = picture.read_bytes()
    assert built.build().jobs == jobs(*figures("distance"))
    assert picture.read_bytes() != blue
    after = built.results()
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {f"results/tiny/figures/distance.{end}" for end in ("pdf", "png")}
    assert built.plan() == {}
