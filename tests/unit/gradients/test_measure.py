import json
from pathlib import Path

import pytest
import torch

from stiffness.data.evaluation import Evaluation
from stiffness.data.shards import tile_block
from stiffness.errors import StiffnessError
from stiffness.files import read_tensors, write_tensors
from stiffness.gradients.gram import gradient_cosines
from stiffness.gradients.measure import measure_segment
from stiffness.training.models import ModelSpec, build_model

SPEC = ModelSpec("cnn", padding="same")
SHAPE = (1, 8, 8)
STEPS = {"step=00000000": (0, 0.0), "step=00000012": (12, 0.75)}


@pytest.fixture
def evaluation() -> Evaluation:
    torch.manual_seed(0)
    inputs = torch.randn(10, *SHAPE)
    return Evaluation(inputs, torch.arange(10) % 3, torch.arange(10), 6, ["a", "b", "c"])


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoints"
    for seed, (name, (step, epoch)) in enumerate(STEPS.items()):
        weights = build_model(SPEC, SHAPE, 3, seed).state_dict()
        write_tensors(folder / f"{name}.safetensors", weights, {"step": step, "epoch": epoch})
    return folder


def measure(checkpoints: Path, evaluation: Evaluation, output: Path, device: str = "cpu") -> None:
    measure_segment(checkpoints, evaluation, SPEC, output, torch.device(device), "1GiB", "exact")


def test_one_file_a_checkpoint(
    checkpoints: Path,
    evaluation: Evaluation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    output = tmp_path / "out" / "gradients"
    caplog.set_level("INFO", "stiffness")
    measure(checkpoints, evaluation, output)
    names = [f"{n}.safetensors" for n in STEPS]
    listed = sorted(path.name for path in output.iterdir())
    assert listed == ["cosines", "digests.json", "performance.json"]
    assert sorted(path.name for path in (output / "cosines").iterdir()) == names
    assert sorted(json.loads((output / "digests.json").read_text())) == names
    performance = json.loads((output / "performance.json").read_text())
    for seed, (name, (step, epoch)) in enumerate(STEPS.items()):
        tensors, metadata = read_tensors(output / "cosines" / f"{name}.safetensors")
        model = build_model(SPEC, SHAPE, 3, seed)
        cosines, log_norms = gradient_cosines(model, evaluation.inputs, evaluation.targets)
        assert torch.equal(tensors["cosines"], cosines)
        assert torch.equal(tensors["log_norms"], log_norms)
        assert torch.equal(tensors["outputs"], model(evaluation.inputs))
        assert torch.equal(tensors["predictions"], tensors["outputs"].argmax(1))
        assert metadata.keys() == {"step", "epoch", "arithmetic", "device"}
        assert (metadata["step"], metadata["epoch"]) == (step, epoch)
        assert (metadata["arithmetic"], metadata["device"]) == ("exact", "cpu")
        spent = performance[f"{name}.safetensors"]
        assert 0 < spent["seconds"] < 600
        # A process that has loaded torch holds more than 50 MiB.
        assert 50 < spent["peak_memory_mib"] < 2**16
    (message,) = caplog.messages
    assert message.startswith(f"{len(STEPS)} times 10 x 10 gradient cosines in ")


@pytest.mark.parametrize("name", ["0000-0000", "0000-0001", "0001-0001"])
def test_a_tile_is_a_block_of_the_whole(
    checkpoints: Path,
    evaluation: Evaluation,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    measure(checkpoints, evaluation, tmp_path / "whole")
    caplog.set_level("INFO", "stiffness")
    rows, columns = tile_block(name, 10, 2)
    measure_segment(
        checkpoints,
        evaluation,
        SPEC,
        tmp_path / "tile",
        torch.device("cpu"),
        "1GiB",
        "exact",
        tile=(rows, columns),
    )
    (message,) = caplog.messages
    assert message.startswith("2 times 5 x 5 gradient cosines in ")
    listed = sorted(path.name for path in (tmp_path / "tile").iterdir())
    assert listed == ["cosines", "digests.json", "performance.json"]
    digests = json.loads((tmp_path / "tile" / "digests.json").read_text())
    performance = json.loads((tmp_path / "tile" / "performance.json").read_text())
    for file, (step, epoch) in STEPS.items():
        file = f"{file}.safetensors"
        found, metadata = read_tensors(tmp_path / "tile" / "cosines" / file)
        expected, of_whole = read_tensors(tmp_path / "whole" / "cosines" / file)
        torch.testing.assert_close(
            found["cosines"], expected["cosines"][rows, columns], rtol=0, atol=2e-6
        )
        others = {"log_norms", "outputs", "predictions"} if rows == columns else set()
        assert found.keys() == digests[file].keys() == {"cosines", *others}
        for key in others:
            torch.testing.assert_close(found[key], expected[key][rows], rtol=0, atol=1e-6)
        assert (metadata["step"], metadata["epoch"]) == (step, epoch)
        assert metadata == of_whole | {
            "rows": [rows.start, rows.stop],
            "columns": [columns.start, columns.stop],
            "examples": 10,
        }
        assert performance[file]["examples"] == (5 if rows == columns else 10)


def test_a_segment_measured_again_replaces_the_old_files(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    output = tmp_path / "gradients"
    measure(checkpoints, evaluation, output)
    (checkpoints / "step=00000000.safetensors").unlink()
    measure(checkpoints, evaluation, output)
    assert [path.name for path in output.glob("cosines/*")] == ["step=00000012.safetensors"]


def test_no_checkpoints_give_an_empty_folder(evaluation: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    measure(tmp_path / "checkpoints", evaluation, tmp_path / "gradients")
    assert list((tmp_path / "gradients" / "cosines").iterdir()) == []


def test_files_that_are_no_checkpoints_are_left_alone(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    (checkpoints / "state.safetensors").write_bytes(b"of the optimiser")
    measure(checkpoints, evaluation, tmp_path / "gradients")
    assert len(list((tmp_path / "gradients" / "cosines").iterdir())) == len(STEPS)


def assert_nothing_left(tmp_path: Path) -> None:
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]


def test_a_checkpoint_of_another_model_leaves_nothing_behind(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    other = build_model(ModelSpec("fc"), SHAPE, 3, seed=0).state_dict()
    last = checkpoints / "step=00000099.safetensors"
    write_tensors(last, other, {"step": 99, "epoch": 1.0})
    with pytest.raises(StiffnessError, match="another model") as caught:
        measure(checkpoints, evaluation, tmp_path / "gradients")
    assert str(last) in str(caught.value)
    assert_nothing_left(tmp_path)


def test_a_truncated_checkpoint_leaves_nothing_behind(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    last = checkpoints / "step=00000012.safetensors"
    last.write_bytes(last.read_bytes()[:-8])
    with pytest.raises(StiffnessError, match="step=00000012"):
        measure(checkpoints, evaluation, tmp_path / "gradients")
    assert_nothing_left(tmp_path)


def test_a_diverged_checkpoint_is_named(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    weights = {
        name: torch.full_like(tensor, torch.nan)
        for name, tensor in build_model(SPEC, SHAPE, 3, seed=0).state_dict().items()
    }
    last = checkpoints / "step=00000099.safetensors"
    write_tensors(last, weights, {"step": 99, "epoch": 1.0})
    with pytest.raises(StiffnessError, match="not finite") as caught:
        measure(checkpoints, evaluation, tmp_path / "gradients")
    assert last.name in str(caught.value)
    assert_nothing_left(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpus_peak_is_recorded(
    checkpoints: Path, evaluation: Evaluation, tmp_path: Path
) -> None:
    measure(checkpoints, evaluation, tmp_path / "gradients", "cuda")
    # Of the last checkpoint: nothing has used the GPU since.
    peak = torch.cuda.max_memory_allocated() / 2**20
    measure(checkpoints, evaluation, tmp_path / "expected")
    for name in STEPS:
        tensors, metadata = read_tensors(tmp_path / "gradients" / "cosines" / f"{name}.safetensors")
        expected, _ = read_tensors(tmp_path / "expected" / "cosines" / f"{name}.safetensors")
        torch.testing.assert_close(tensors["cosines"], expected["cosines"], rtol=0, atol=1e-4)
        assert metadata["device"] == torch.cuda.get_device_name()
    performance = json.loads((tmp_path / "gradients" / "performance.json").read_text())
    spent = performance[f"{list(STEPS)[-1]}.safetensors"]
    assert spent["peak_memory_mib"] == pytest.approx(peak, abs=0.5)
    assert spent["peak_memory_mib"] > 0
