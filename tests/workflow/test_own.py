"""Networks, losses, data and checkpoints of other people, from a file to a figure."""

import pytest
import torch
from project import merged, of_tiny
from test_bad_input import refused

NETS = """
from torch import nn
from blocks import width

def build(input_shape, num_classes, factor=1):
    channels, height, edge = input_shape
    hidden = factor * width
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * edge, hidden),
                         nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
"""
LOSSES = """
from torch.nn import functional as F

def focal(outputs, targets):
    losses = F.cross_entropy(outputs, targets, reduction="none")
    return (1 - (-losses).exp()) ** 2 * losses
"""
LOADERS = """
from sklearn.datasets import load_digits

def load(divisor):
    inputs, labels = load_digits(return_X_y=True)
    inputs = (inputs / divisor).reshape(-1, 1, 8, 8)
    return inputs[:1200], labels[:1200], inputs[1200:], labels[1200:]
"""
OWN = {
    "run": ["tiny"],
    "datasets": {"own": {"source": "loaders.py:load", "arguments": {"divisor": 16}}},
    **of_tiny(
        dataset="own",
        model={"name": "nets.py:build", "arguments": {"factor": 2}},
        loss="losses.py:focal",
        learning_rates=["1e-2"],
        epochs=1,
        stages=[0, "last"],
    ),
}


@pytest.fixture
def own(fresh):
    """The workflow beside somebody's own files."""
    files = {"nets": NETS, "losses": LOSSES, "loaders": LOADERS, "blocks": "width = 8\n"}
    for name, text in files.items():
        (fresh.folder / f"{name}.py").write_text(text)
    fresh.configure(OWN)
    return fresh


def test_wrong_names_are_refused_before_anything_runs(own):
    own.configure(merged(OWN, of_tiny(model={"name": "nets.py:biuld"})))
    message = refused(own.run("-n"))
    assert "experiments.tiny.model.name: nets.py has no 'biuld'; it has " in message
    assert not (own.folder / "results").exists()


@pytest.mark.slow
def test_from_files_to_figures_and_an_edit_reruns_what_reads_it(own):
    figure = "results/tiny/figures/class_matrices.png"
    own.build(figure)
    assert (own.folder / figure).is_file()
    assert own.plan(figure) == {}
    for name, rules in {
        "loaders.py": {"arrays", "evaluation", "training", "gradients"},
        "nets.py": {"training", "gradients"},
        "blocks.py": {"training", "gradients"},
        "losses.py": {"training", "gradients"},
    }.items():
        file = own.folder / name
        before = file.read_text()
        file.write_text(before + "# edited\n")
        assert rules <= set(own.plan(figure)), name
        if name != "loaders.py":
            assert "arrays" not in own.plan(figure)
        file.write_text(before)
    assert own.plan(figure) == {}, "as before"


@pytest.mark.slow
def test_checkpoints_take_the_place_of_training(own):
    namespace: dict = {}
    exec(NETS.replace("from blocks import width", "width = 8"), namespace)
    for lr in ("1e-2", "1e-1"):
        for step in (0, 1, 40):
            model = torch.nn.DataParallel(namespace["build"]((1, 8, 8), 10, 2))
            file = own.folder / f"runs/{lr}/{step}.pt"
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"state_dict": model.state_dict()}, file)
    changes = of_tiny(
        checkpoints="runs/{lr}/{step}.pt",
        learning_rates=["1e-2", "1e-1"],
        stages=[0, "last"],
    )
    own.configure(merged(OWN, changes))
    plan = own.plan()
    assert plan["imported"] == 2
    assert "training" not in plan
    drawn = [f"results/tiny/figures/{kind}.png" for kind in ("training_curves", "distance")]
    own.build(*drawn)
    assert set(drawn) <= set(own.results())
    weights = torch.load(own.folder / "runs/1e-2/40.pt", weights_only=True)
    weights["state_dict"]["module.1.wieght"] = weights["state_dict"].pop("module.1.weight")
    torch.save(weights, own.folder / "runs/1e-2/40.pt")
    message = refused(own.run("results/tiny/lr=1e-2/seed=0/checkpoints/imported/state.safetensors"))
    assert "runs/1e-2/40.pt: does not fit the network: it lacks 1.weight; it has also " in message
    assert "module.1.wieght" in message
