"""Stiffness from files of weights."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from stiffness import StiffnessError, StiffnessMonitor, measure_checkpoints, plot_stiffness
from stiffness.monitor.checkpoints import _point

NETS = """
from torch import nn

def build(input_shape, num_classes, width):
    return nn.Sequential(nn.Linear(*input_shape, width), nn.ReLU(), nn.Linear(width, num_classes))
"""


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def examples():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 3
    return {"train": (x[:20], y[:20]), "validation": (x[20:], y[20:]), "resamples": 40}


def test_files_in_the_usual_formats_give_the_monitors_table(examples, tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    save_file(network(2).state_dict(), tmp_path / "step=30.safetensors")
    torch.save({"state_dict": network(1).state_dict(), "epoch": 3}, tmp_path / "step=4.pt")
    torch.save(nn.DataParallel(network(0)).state_dict(), tmp_path / "step=0.pt")
    found = measure_checkpoints(
        f"{tmp_path}/nets.py:build", f"{tmp_path}/step=*", **examples, arguments={"width": 8}
    )
    monitor = StiffnessMonitor(**examples)
    for seed, step in enumerate((0, 4, 30)):
        monitor.measure(network(seed), step)
    assert found.equals(monitor.table)
    assert len(plot_stiffness(found).get_axes()) == 4
    again = measure_checkpoints(
        network(9), [tmp_path / "step=30.safetensors", tmp_path / "step=4.pt"], **examples
    )
    assert again["step"].unique().tolist() == [4, 30]


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("runs/step=00000120.safetensors", (120, None)),
        ("epoch=3-step=1200.ckpt", (1200, 3.0)),
        ("out/checkpoint-500/model.safetensors", (500, None)),
        ("model_12.pt", (12, None)),
        ("epoch_7.pt", (7, 7.0)),
        ("v2_step5_last.pt", (5, None)),
    ],
)
def test_a_name_tells_the_step_and_the_epoch(path, point):
    assert _point(Path(path)) == point


def test_what_is_wrong_with_a_file_is_said(examples, tmp_path):
    model = network(0)
    with pytest.raises(StiffnessError, match=r"files: there is no file .*none/\*\.pt"):
        measure_checkpoints(model, f"{tmp_path}/none/*.pt", **examples)
    for name in ("step=1.pt", "run_1.pt", "last.pt"):
        torch.save(nn.Linear(5, 3).state_dict(), tmp_path / name)
    with pytest.raises(StiffnessError, match=r"step=1.pt: does not fit the network: it lacks 0"):
        measure_checkpoints(model, tmp_path / "step=1.pt", **examples)
    with pytest.raises(StiffnessError, match=r"run_1.pt and .*step=1.pt are both of step 1"):
        measure_checkpoints(model, f"{tmp_path}/*1.pt", **examples)
    with pytest.raises(StiffnessError, match=r"no number of a step in the name of last.pt"):
        measure_checkpoints(model, ["last.pt"], **examples)
    torch.save(
        {name: value * torch.nan for name, value in model.state_dict().items()},
        tmp_path / "step=2.pt",
    )
    with pytest.raises(StiffnessError, match=r"step=2.pt: model: its outputs are not finite"):
        measure_checkpoints(model, tmp_path / "step=2.pt", **examples)
