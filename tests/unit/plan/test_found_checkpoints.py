"""Checkpoints that were made elsewhere: which files are meant, and what their names tell."""

from pathlib import Path

import pytest
import yaml

from stiffness.errors import StiffnessError
from stiffness.plan.checkpoints import find_checkpoints, of_run
from stiffness.plan.config import read_settings
from stiffness.plan.needs import Needs

PATTERN = "runs/lr={lr}/seed={seed}/step={step}.pt"
CONFIG = Path(__file__).parents[3] / "config.yaml"


@pytest.fixture
def put(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def create(*names: str) -> None:
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return create


@pytest.fixture
def settings(put):
    """Read a configuration with an experiment of these keys."""

    def read(**keys):
        config = yaml.safe_load(CONFIG.read_text())
        config["experiments"]["mine"] = {"dataset": "digits", "model": {"name": "fc"}, **keys}
        return read_settings(config)

    return read


def complaint(function, *args, **kwargs) -> str:
    with pytest.raises(StiffnessError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_files_come_in_the_order_of_training(put):
    put("a/step=9.pt", "a/step=10.pt", "a/step=100.pt", "a/step=x.pt", "a/step=1.pt.tmp")
    found = find_checkpoints("a/step={step}.pt", "key")
    assert [one.step for one in found] == [9, 10, 100]
    assert [one.point for one in found] == [[9, None], [10, None], [100, None]]


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("{lr}-{seed}/{step}.pt", "1e-3-4/07.pt", ("1e-3", "4", 7, None)),
        ("lr{lr}/e{epoch}.pt", "lr0.01/e2.5.pt", ("0.01", "", None, 2.5)),
        ("*/epoch=*-step={step}.ckpt", "x/epoch=3-step=40.ckpt", ("", "", 40, None)),
        ("[a]/{seed}/{seed}-{step}.pt", "[a]/3/3-1.pt", ("", "3", 1, None)),
        ("e{epoch}-s{step}.pt", "e1-s20.pt", ("", "", 20, 1.0)),
    ],
)
def test_names_of_many_kinds(put, pattern, name, expected):
    put(name)
    (found,) = find_checkpoints(pattern, "key")
    assert found[:4] == expected
    assert found.path == name


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("runs/{lr}.pt", "key: no {step} and no {epoch} in 'runs/{lr}.pt'; write it like runs/"),
        ("runs/{rate}/{step}.pt", "key: unknown {rate} in 'runs/{rate}/{step}.pt'; write it like"),
        ("none/{step}.pt", "key: no file is named like 'none/{step}.pt'; a relative path begins"),
        ("*/{step}.pt", "key: a/1.pt and b/1.pt have one place; keep one"),
    ],
)
def test_patterns_that_mean_nothing(put, pattern, message):
    put("a/1.pt", "b/1.pt")
    assert complaint(find_checkpoints, pattern, "key").startswith(message)


def test_rates_seeds_and_parts_follow_from_the_files(put, settings, wildcards):
    put(
        *(
            f"runs/lr={lr}/seed={s}/step={n}.pt"
            for lr in ("1e-2", "3e-4")
            for s in (1, 0)
            for n in (0, 5)
        )
    )
    found = settings(checkpoints=PATTERN)
    experiment = found["experiments"]["mine"]
    assert experiment["learning_rates"] == ["3e-4", "1e-2"]
    assert experiment["reference_learning_rate"] == "3e-4"
    assert experiment["seeds"] == [0, 1]
    needs = Needs(found)
    assert needs.parts("mine")[:2] == [("3e-4", 0, "imported"), ("3e-4", 1, "imported")]
    of = wildcards(experiment="mine", lr="1e-2", seed="1", segment="imported")
    assert needs.imported("path")(of) == [f"runs/lr=1e-2/seed=1/step={n}.pt" for n in (0, 5)]
    assert needs.imported("point")(of) == [[0, None], [5, None]]
    assert needs.gradients_request("runtime")(of, 1) > 0
    assert [one.step for one in of_run(find_checkpoints(PATTERN, ""), "1e-2", 1)] == [0, 5]


def test_what_the_experiment_sets_itself_stays(put, settings):
    put("runs/e1.pt", "runs/e7.5.pt")
    found = settings(checkpoints="runs/e{epoch}.pt", learning_rates=["0.1"])["experiments"]["mine"]
    assert (found["learning_rates"], found["seeds"], found["epochs"]) == (["0.1"], [0], 8)
    fewer = settings(checkpoints="runs/e{epoch}.pt", learning_rates=["0.1"], epochs=2)
    assert fewer["experiments"]["mine"]["epochs"] == 2


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"checkpoints": "runs/e{epoch}.pt"},
            "experiments.mine.learning_rates: checkpoints has no {lr}; set the one that they were ",
        ),
        (
            {"checkpoints": "runs/e{epoch}.pt", "learning_rates": ["1", "2"]},
            "experiments.mine.learning_rates: checkpoints has no {lr}; set the one that they were ",
        ),
        (
            {"checkpoints": "runs/{lr}/{step}.pt", "learning_rates": ["1e-3"]},
            "experiments.mine.learning_rates: 'runs/{lr}/{step}.pt' names no file of '1e-3'",
        ),
        ({"checkpoints": "no/{step}.pt"}, "experiments.mine.checkpoints: no file is named like"),
        ({"checkpoints": 3}, "experiments.mine"),
    ],
)
def test_what_cannot_be_told_is_asked_for(put, settings, keys, message):
    put("runs/e1.pt", "runs/0.1/5.pt")
    assert complaint(settings, **keys).startswith(message)
