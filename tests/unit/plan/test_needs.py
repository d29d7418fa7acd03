"""What jobs read, from the settings and from what has been made before."""

from pathlib import Path

import pytest

from stiffness.errors import StiffnessError
from stiffness.plan import needs as module
from stiffness.plan.kinds import KINDS
from stiffness.plan.needs import Needs

RUN = {"experiment": "digits_fc", "lr": "1e-3", "seed": "0", "segment": "epochs=0020-0030"}
CNN = "results/digits_cnn"


@pytest.fixture
def needs(settings) -> Needs:
    settings["experiments"]["digits_fc"]["epochs_per_job"] = 20
    return Needs(settings)


def test_a_segment_goes_on_from_the_one_before_it(needs, wildcards):
    before = "results/digits_fc/lr=1e-3/seed=0/checkpoints/epochs=0000-0020/state.safetensors"
    assert needs.previous(wildcards(**RUN)) == [before]
    assert needs.previous(wildcards(**RUN | {"segment": "epochs=0000-0020"})) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segment": "epochs=0000-0030"}, "its parts are epochs=0000-0020, epochs=0020-0030"),
        ({"lr": "7"}, "no such run"),
        ({"seed": "7"}, "no such run"),
    ],
)
def test_a_segment_that_the_training_does_not_have(needs, wildcards, change, said):
    with pytest.raises(StiffnessError, match=said):
        needs.previous(wildcards(**RUN | change))


def test_a_finished_segment_stays_and_the_disk_is_asked_once(needs, wildcards, monkeypatch):
    done = Path("results/digits_fc/lr=1e-3/seed=0/checkpoints/epochs=0000-0025")
    done.mkdir(parents=True)
    runs = needs.segments("digits_fc")
    assert runs["1e-3", 0] == [done.name, "epochs=0025-0030"]
    assert runs["3e-3", 0] == ["epochs=0000-0020", "epochs=0020-0030"]
    monkeypatch.setattr(module, "finished_segments", None)
    assert needs.segments("digits_fc") == runs
    assert needs.histories("evaluation", "all")(wildcards(**RUN)) == [
        f"{done}/history.parquet",
        f"{done.with_name('epochs=0025-0030')}/history.parquet",
    ]


def test_what_is_measured_at_every_checkpoint_needs_no_histories(needs, settings, wildcards):
    settings["experiments"]["digits_fc"]["evaluation"]["all"] = "checkpoints"
    assert needs.histories("evaluation", "all")(wildcards(**RUN)) == []
    assert needs.stages("evaluation", "all")(wildcards(**RUN)) == []
    settings["experiments"]["digits_fc"]["evaluation"]["all"] = "stages"
    assert needs.stages("evaluation", "all")(wildcards(**RUN)) == [0, 0.2, 1, "last"]


def test_files_of_all_segments_come_run_by_run(needs, wildcards):
    files = needs.segment_files("{lr} {seed} {segment} {arithmetic}")
    found = files(wildcards(experiment="digits_fc", arithmetic="float32"))
    assert found[:3] == [
        "3e-4 0 epochs=0000-0020 float32",
        "3e-4 0 epochs=0020-0030 float32",
        "1e-3 0 epochs=0000-0020 float32",
    ]
    assert len(found) == len(needs.runs(wildcards(experiment="digits_fc"))) == 6


def test_experiments_share_data_and_subset(needs, wildcards):
    names = [wildcards(experiment=name) for name in ("digits_fc", "digits_cnn")]
    assert {needs.arrays(name) for name in names} == {"results/data/digits/arrays.safetensors"}
    (subset,) = {needs.evaluation(name) for name in names}
    assert subset.endswith("evaluation/train=500_validation=500_seed=0.safetensors")
    assert needs.hierarchy(wildcards(experiment="digits_fc")) == []
    assert needs.hierarchy(wildcards(experiment="cifar100_fc")) == [
        "results/data/cifar100/hierarchy.yaml"
    ]


def test_gradients_are_one_folder_or_one_for_each_tile(needs, settings, wildcards):
    given = wildcards(**RUN, arithmetic="exact")
    folder = "results/digits_fc/lr=1e-3/seed=0/gradients/exact/epochs=0020-0030"
    assert needs.gradients("cosines")(given) == [f"{folder}/cosines"]
    settings["experiments"]["digits_fc"]["evaluation"]["shards"] = 2
    tiles = ["0000-0000", "0000-0001", "0001-0001"]
    assert needs.gradients("x")(given) == [f"{folder}/tiles/{tile}/x" for tile in tiles]


def test_representations_are_needed_for_inner_layers_only(needs, wildcards):
    assert needs.representations(wildcards(**RUN)) == []
    text = RUN | {"experiment": "mnli_bert"}
    assert needs.inner_layers(wildcards(**text))[0] == "bert.encoder.layer.11"
    assert len(needs.representations(wildcards(**text))) == 1


def test_a_setting_is_one_key(needs, wildcards):
    given = wildcards(experiment="digits_fc")
    assert needs.setting("bootstrap", "resamples")(given) == 200
    assert needs.setting("distance_layers", 0)(given) == "input"
    assert needs.dataset(given)["name"] == "digits"


def test_a_network_without_weights_of_its_own_has_no_digest(needs, wildcards):
    assert needs.pretrained(wildcards(experiment="digits_fc")) == ""
    before = needs.pretrained(wildcards(experiment="mnli_bert"))
    weights = Path("data/google-bert/bert-base-uncased/model.safetensors")
    weights.parent.mkdir(parents=True)
    weights.write_text("weights")
    assert needs.pretrained(wildcards(experiment="mnli_bert")) != before


# --- figures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if not kind.across])
def test_every_kind_of_figure_reads_what_its_entry_says(needs, settings, wildcards, kind):
    settings["datasets"]["digits"]["hierarchy"] = "groups.yaml"
    settings["experiments"]["digits_cnn"]["arithmetic"] = ["exact", "keras"]
    given = wildcards(experiment="digits_cnn", kind=kind, stage="2")
    entry = KINDS[kind]
    if not entry.by_stage:
        given = wildcards(experiment="digits_cnn", kind=kind)
    files = needs.figure(given)
    assert set(files) == {*entry.tables, *entry.by_arithmetic, *entry.files, *entry.parts}
    for name, found in files.items():
        several = name in entry.parts
        assert isinstance(found, list) == (several or name in entry.by_arithmetic)
        assert not several or len(found) == len(needs.figure_parts(given))
        assert "{" not in str(found)
        assert "lr=" not in str(found) or "lr=3e-3" in str(found), "the reference rate"
    assert needs.figure_parts(given) == ([0] if entry.parts else [])
    assert set(needs.figure_settings(given)) == set(entry.settings)
    if entry.by_stage:
        assert needs.figure_settings(given)["stages"] == [0.2]


def test_the_tables_of_a_figure_are_of_the_first_arithmetic(needs, settings, wildcards):
    settings["experiments"]["digits_cnn"]["arithmetic"] = ["keras", "exact"]
    files = needs.figure(wildcards(experiment="digits_cnn", kind="arithmetic_axes"))
    assert files["runs"] == f"{CNN}/tables/keras/runs.parquet"
    assert files["summaries"] == [
        f"{CNN}/tables/keras/summary.parquet",
        f"{CNN}/tables/exact/summary.parquet",
    ]


@pytest.mark.parametrize(
    ("experiment", "kind", "stage", "said"),
    [
        ("mnist_fc", "hierarchy_curves", None, "datasets.mnist.hierarchy"),
        ("mnist_fc", "hierarchy_matrix", "1", "datasets.mnist.hierarchy"),
        ("mnist_fc", "whole_set", None, "experiments.mnist_fc.evaluation.all"),
        ("mnist_fc", "layers", None, "experiments.mnist_fc.layer_stiffness"),
        ("mnist_fc", "arithmetic_axes", None, "experiments.mnist_fc.arithmetic"),
        ("arithmetic_fc", "equal_loss", None, "experiments.arithmetic_fc.learning_rates"),
        ("mnli_bert", "contact_sheet", "last", "texts"),
        ("digits_fc", "class_matrix", "5", "has no stage 5; take 1 to 4, or last"),
    ],
)
def test_a_figure_that_the_experiment_cannot_have(needs, wildcards, experiment, kind, stage, said):
    given = {"experiment": experiment, "kind": kind} | ({"stage": stage} if stage else {})
    with pytest.raises(StiffnessError, match=f"the command: .*{said}"):
        needs.figure(wildcards(**given))


def test_other_settings_of_an_experiment_do_not_redraw_a_kind(needs, settings, wildcards):
    given = wildcards(experiment="digits_fc", kind="stiffness_curves")
    before = needs.figure_settings(given)
    settings["experiments"]["digits_fc"] |= {"stages": [0], "reference_learning_rate": "3e-3"}
    assert needs.figure_settings(given) == before == {"learning_rates": ["3e-4", "1e-3", "3e-3"]}


def test_a_study_reads_all_its_experiments(needs, settings, wildcards):
    given = wildcards(study="random_labels")
    names = settings["studies"]["random_labels"]["experiments"]
    files = needs.study(given)
    assert files["runs"] == [f"results/{name}/tables/exact/runs.parquet" for name in names]
    assert len(files["replicates"]) == len(needs.study_parts(given)) == len(names)
    assert needs.study_parts(given)[1] == [names[1], 0]
    columns = needs.study_settings(given)["columns"]
    assert [column["share"] for column in columns] == [0, 0.25, 0.5, 0.9]
    assert columns[0] == {"experiment": names[0], "lr": "1e-3", "share": 0}


def test_a_study_of_optimisers_measures_in_one_space(needs, wildcards):
    given = wildcards(study="optimizers")
    found = needs.study_settings(given)
    assert found["space"] == "input"
    assert set(found["experiments"][0]) == {
        "experiment",
        "learning_rates",
        "optimizer",
        "batch_size",
    }
    assert needs.study_parts(given) == []


# --- what is asked of a scheduler ----------------------------------------------------------------


def test_requests_follow_from_the_experiment(needs, settings, wildcards, tmp_path):
    given = wildcards(**RUN)
    file = tmp_path / "arrays"
    file.write_bytes(bytes(10**6))

    class Files:
        arrays = str(file)

    once, twice = (needs.training_request("mem_mb")(given, Files, one) for one in (1, 2))
    assert twice == 2 * once > 0
    small = needs.gradients_request("mem_mb")(given, 1)
    assert Needs(settings, memory_budget=8 * 2**30).gradients_request("mem_mb")(given, 1) > small
    assert Needs(settings, gpu=True).gradients_request("mem_mb")(given, 1) > small
    before = needs.measures_request("runtime")(given, 1)
    settings["experiments"]["digits_fc"]["evaluation"]["train"] = 5000
    assert needs.measures_request("runtime")(given, 1) > before


def test_runs_of_an_experiment_share_the_cores(settings, wildcards):
    given = wildcards(**RUN)
    assert Needs(settings, cores=7).training_threads(given) == 2
    assert Needs(settings).training_threads(given) == 1
