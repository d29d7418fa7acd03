"""What a user can ask for, and every file that the claims read."""

import os
from pathlib import Path

import pytest

from stiffness.errors import StiffnessError
from stiffness.plan import targets
from stiffness.plan.kinds import KINDS
from stiffness.plan.needs import Needs
from stiffness.plan.targets import Claims


def test_figures_are_those_that_an_experiment_can_have(settings):
    found = targets.figures_of(settings, ["digits_fc"], KINDS)
    assert "results/digits_fc/figures/class_matrix/stage=last.png" in found
    assert "results/digits_fc/figures/whole_set.pdf" in found
    assert [path for path in found if "hierarchy" in path or "layers" in path] == []
    assert [path for path in found if "label_noise" in path or "claims" in path] == []
    assert len(found) == len(set(found))


def test_a_figure_of_the_paper_shows_the_stage_that_it_names(settings):
    assert targets.paper_files(settings, "figS4") == [
        "results/cifar100_resnet/figures/class_matrix/stage=2.pdf",
        "results/cifar100_resnet/figures/class_matrix/stage=2.png",
        "results/cifar100_resnet/provenance.yaml",
    ]
    assert "stage=last.pdf" in targets.paper_files(settings, "fig6")[0]
    assert len(targets.paper_files(settings, "figS9")) == 5 * 3


def test_an_unknown_figure_names_those_that_there_are(settings):
    with pytest.raises(StiffnessError, match=r"fig99; known: fig3, fig4, .*figS9"):
        targets.unknown_figure(settings, "fig99")


def test_tables_of_every_arithmetic(settings):
    found = targets.tables_of(settings, ["arithmetic_fc"])
    assert found == [
        "results/arithmetic_fc/provenance.yaml",
        *(
            f"results/arithmetic_fc/tables/{arithmetic}/summary.parquet"
            for arithmetic in settings["experiments"]["arithmetic_fc"]["arithmetic"]
        ),
    ]


def test_a_study_is_one_figure_or_one_of_each_experiment(settings):
    assert targets.study_files(settings, "optimizers") == [
        f"results/studies/optimizers.{suffix}" for suffix in ("pdf", "png", "csv")
    ]
    assert len(targets.study_files(settings, "by_layer")) == 2 * 2
    assert targets.studies_across(settings) == [
        "random_labels",
        "random_labels_cnn",
        "mislabelled",
        "arithmetic",
        "arithmetic_trained",
        "arithmetic_again",
        "arithmetic_elsewhere",
        "optimizers",
    ]


def test_labels_sort_as_the_paper_does(settings):
    assert targets.figure_label(settings, "training_curves") == "fig. 03: training curves"
    assert targets.figure_label(settings, "class_matrix", "2") == "fig. 06: class matrix, stage 2"
    assert targets.figure_label(settings, "layers") == "new: layers"


@pytest.mark.parametrize("kind", KINDS)
def test_every_caption_can_be_filled_in(settings, kind):
    text = targets.caption(settings, kind, "digits_fc", "2")
    assert "{" not in text
    assert "Look for" in text or "?" in text
    assert "digits_fc" in text or KINDS[kind].across


# --- claims --------------------------------------------------------------------------------------


@pytest.fixture
def claims(settings) -> Claims:
    settings["experiments"]["digits_fc"]["seeds"] = [0, 1]
    return Claims(Needs(settings))


def test_claims_are_judged_on_what_is_run(claims):
    assert claims.experiments == ["digits_fc", "digits_cnn"]
    files = claims.evidence_files("digits_fc")
    assert set(files["tables"]["exact"]) == set(targets.CLAIMS_TABLES)
    assert files["arrays"] == "results/data/digits/arrays.safetensors"
    run = "results/digits_fc/lr={lr}/seed={seed}"
    parts = files["parts"]
    # Replicates are of every run, the others of the reference rate.
    assert [part[:2] for part in parts["replicates/exact"]] == [
        [lr, seed] for lr in ("3e-4", "1e-3", "3e-3") for seed in (0, 1)
    ]
    assert parts["classes"][1] == [
        "1e-3",
        1,
        f"{run.format(lr='1e-3', seed=1)}/measures/exact/epochs=0000-0030/classes.parquet",
    ]
    assert len(parts["whole_set"]) == 2
    assert "layer_stiffness/summary" not in parts, "it is not measured"
    assert set(claims.evidence_files("digits_cnn")["parts"]) == {
        "replicates/exact",
        "classes",
        "whole_set",
        "layer_stiffness/summary",
        "layer_stiffness/distance",
        "layer_stiffness/critical_length",
    }


def leaves(value: object) -> set[str]:
    """Paths at any depth."""
    if isinstance(value, dict):
        return set().union(*map(leaves, value.values()))
    if isinstance(value, list):
        return set().union(*map(leaves, value))
    return {value} if isinstance(value, str) and "/" in value else set()


def test_every_file_that_the_claims_read_is_an_input(claims):
    told = {name: entry["files"] for name, entry in claims.about(None).items()}
    assert set(claims.files()) == leaves(told)


def test_what_has_been_run_before_is_read_as_it_is(settings):
    for name in targets.CLAIMS_TABLES:
        path = Path(f"results/mnist_fc/tables/exact/{name}.parquet")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before = Claims(Needs(settings))
    assert before.experiments == ["digits_fc", "digits_cnn", "mnist_fc"]
    files = before.evidence_files("mnist_fc")
    read = leaves(files)
    # No rule makes a file of this name, and nothing is read that is not there.
    assert {os.path.normpath(path) for path in read} == {
        f"results/mnist_fc/tables/exact/{name}.parquet" for name in targets.CLAIMS_TABLES
    }
    assert all(path.startswith("results/../results/") for path in read)
    assert files["arrays"] is None
    assert read < set(before.files())


def test_a_second_arithmetic_is_read_too(settings):
    settings["experiments"]["digits_fc"]["arithmetic"] = ["exact", "float32"]
    files = Claims(Needs(settings)).evidence_files("digits_fc")
    assert list(files["tables"]["float32"]) == ["summary"]
    assert len(files["parts"]["replicates/float32"]) == 3


def test_pictures_are_those_that_the_page_can_link_to(claims, settings):
    pictures = claims.about(None)["digits_fc"]["pictures"]
    assert pictures["distance"] == "results/digits_fc/figures/distance.png"
    assert not {"class_matrix", "layers", "label_noise", "claims"} & set(pictures)
    assert set(claims.pictures(None)) == {
        path for entry in claims.about(None).values() for path in entry["pictures"].values()
    }


def test_studies_by_the_kind_of_figure_that_they_are_for(claims):
    studies = claims.studies(None)
    assert studies["arithmetic_axes"] == ["arithmetic_cnn", "arithmetic_fc", "arithmetic_resnet"]
    assert list(studies) == sorted(studies)
