"""Stages, figures and studies: what they can show."""

import pytest
from config_cases import check_config, complaint, put

# --- stages and hierarchies ----------------------------------------------------------------------

STAGES = [0, 0.5, "last", {"accuracy": 0.35}]


@pytest.mark.parametrize("stages", [STAGES, [{"accuracy": 1}], ["last"]], ids=str)
def test_stages_by_epoch_and_by_accuracy(config, stages):
    put(config, "experiments.digits_fc.stages", stages)
    assert check_config(config)["digits_fc"]["stages"] == stages


@pytest.mark.parametrize(
    "stage", [-1, "first", {"accuracy": 0}, {"accuracy": 1.1}, {"accuracy": "0.5"}, {}], ids=repr
)
def test_what_is_no_stage(config, stage):
    put(config, "experiments.digits_fc.stages", [0, stage])
    message = complaint(config)
    assert message.startswith("experiments.digits_fc.stages.1")
    assert "accuracy" in message or "epoch" in message


def figure(kind: str, experiment: str, **keys) -> dict:
    return {"kind": kind, "experiments": [experiment], **keys}


@pytest.mark.parametrize(
    "entry",
    [
        figure("class_matrix", "digits_fc"),
        figure("class_matrix", "digits_fc", stage="last"),
        figure("class_matrix", "digits_fc", stage=4),
        figure("hierarchy_matrix", "cifar100_resnet", stage=2),
        figure("hierarchy_curves", "cifar100_cnn"),
    ],
    ids=str,
)
def test_figures_that_exist(config, entry):
    put(config, "paper.fig1", entry)
    check_config(config)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (
            figure("hierarchy_curves", "digits_fc"),
            "hierarchy_curves needs a hierarchy of classes, which the data set of digits_fc has "
            "not; set datasets.digits.hierarchy",
        ),
        (
            figure("hierarchy_matrix", "digits_cnn", stage=1),
            "hierarchy_matrix needs a hierarchy of classes, which the data set of digits_cnn has "
            "not; set datasets.digits.hierarchy",
        ),
        (
            figure("distance", "digits_fc", stage=1),
            "distance has no single stage; the kinds that do: class_matrix, hierarchy_matrix, "
            "contact_sheet",
        ),
        (
            figure("layers", "mnist_cnn"),
            "layers needs stiffness by layer, which mnist_cnn does not measure; "
            "set experiments.mnist_cnn.layer_stiffness to stages",
        ),
        (
            figure("contact_sheet", "mnli_bert", stage=1),
            "contact_sheet shows images, and the examples of mnli_bert are texts; "
            "take another kind",
        ),
        (
            figure("class_matrix", "digits_fc", stage=5),
            "digits_fc has no stage 5; take 1 to 4, or last",
        ),
    ],
    ids=str,
)
def test_figures_that_do_not_exist(config, entry, message):
    put(config, "paper.fig1", entry)
    assert complaint(config) == f"paper.fig1: {message}"


def test_a_stage_of_a_figure_is_a_number_or_last(config):
    put(config, "paper.fig6.stage", "first")
    assert complaint(config) == "paper.fig6.stage: 'first' is no stage; give 1, 2, ... or \"last\""


# --- studies -------------------------------------------------------------------------------------


def study(*experiments: str, kind: str = "label_noise") -> dict:
    return {"kind": kind, "experiments": list(experiments)}


def test_a_study_of_any_experiments(config):
    put(config, "studies.mine", study("digits_cnn", "digits_fc", "mnli_bert"))
    put(config, "studies.other", study("digits_cnn", "digits_fc", kind="critical_lengths"))
    check_config(config)


@pytest.mark.parametrize("name", ["all", "paper", "studies", "training", "study_figure"])
def test_a_study_with_the_name_of_a_rule(config, name):
    put(config, f"studies.{name}", study("digits_fc"))
    assert complaint(config) == f"studies.{name}: a rule has this name; take another"


@pytest.mark.parametrize("name", ["fig3", "figure", "a-b", "3"])
def test_a_study_with_the_name_of_a_figure_or_none(config, name):
    put(config, f"studies.{name}", study("digits_fc"))
    assert complaint(config).startswith("studies: ")


def test_a_study_of_what_there_is_not(config):
    put(config, "studies.mine", study("digits_fc", "digit_cnn"))
    assert complaint(config) == (
        "studies.mine.experiments: unknown experiment 'digit_cnn'; did you mean 'digits_cnn'?"
    )
    put(config, "studies.mine", study("digits_fc", kind="label_noises"))
    assert complaint(config) == (
        "studies.mine.kind: unknown 'label_noises'; did you mean 'label_noise'?"
    )


def test_critical_lengths_in_different_spaces(config):
    put(config, "studies.mine", study("digits_fc", "mnli_bert", kind="critical_lengths"))
    assert complaint(config) == (
        "studies.mine: the experiments measure distance in different layers "
        "(bert.encoder.layer.11, input); set the same first of distance_layers"
    )


def test_no_experiment_hides_the_studies(config):
    put(config, "experiments.studies", {"dataset": "digits", "model": {"name": "fc"}})
    assert complaint(config).startswith("experiments: ")
