"""Bad input: not exit code 0, one line that names the cause, and nothing half-written."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from PIL import Image
from project import Outcome, Project, first_of, of_tiny

from stiffness.files import read_tensors, write_tensors

FIRST = "results/tiny/lr=1e-3/seed=0/{}/epochs=0000-0001"


def refused(outcome: Outcome) -> str:
    """The one line a failed command says to its user."""
    assert outcome.code != 0, outcome.output
    assert len(outcome.errors) == 1, outcome.output
    assert "Traceback" not in outcome.output, outcome.output
    return outcome.errors[0]


CONFIGURATIONS = {
    "a data set": (of_tiny(dataset="digit"), ["experiments.tiny.dataset", "'digit'", "'digits'"]),
    "a key": (of_tiny(epoch=3), ["experiments.tiny", "'epoch'", "'epochs'"]),
    "a rate without quotes": (
        of_tiny(learning_rates=[0.001]),
        ["experiments.tiny.learning_rates", "0.001", "quotes"],
    ),
    "a stage": (
        {"paper": {"fig4": {"kind": "class_matrix", "stage": 5}}},
        ["paper.fig4", "tiny has no stage 5", "1 to 4"],
    ),
    "a hierarchy": (
        {"datasets": {"digits": {"hierarchy": "no/groups.yaml"}}},
        ["no/groups.yaml", "no such hierarchy file"],
    ),
}


@pytest.mark.parametrize("name", first_of(CONFIGURATIONS))
def test_configuration_with_an_unknown_or_impossible(fresh, name):
    changes, named = CONFIGURATIONS[name]
    fresh.configure(changes)
    message = refused(fresh.run())
    assert message.startswith("error in the configuration: ")
    assert [part for part in named if part not in message] == [], message
    assert not (fresh.folder / "results").exists()


def test_an_unknown_target(fresh):
    message = refused(fresh.run("fig99"))
    assert "fig99" in message
    assert "fig4" in message, "names the figures there are"
    assert not (fresh.folder / "results").exists()


FIGURES = {
    "results/plain/figures/hierarchy_curves.pdf": ["hierarchy_curves", "datasets.mnist.hierarchy"],
    "results/plain/figures/hierarchy_matrix/stage=1.png": ["plain", "datasets.mnist.hierarchy"],
    "results/tiny/figures/class_matrix/stage=5.pdf": ["tiny has no stage 5", "1 to 4, or last"],
}


@pytest.mark.parametrize("target", first_of(FIGURES))
def test_a_figure_that_the_experiment_cannot_have(fresh, target):
    fresh.configure(
        {"experiments": {"plain": {"dataset": "mnist", "model": {"name": "fc"}, "epochs": 1}}}
    )
    message = refused(fresh.run(target))
    assert [part for part in FIGURES[target] if part not in message] == [], message
    assert not (fresh.folder / "results").exists()


def test_groups_that_lack_a_class(built):
    before = built.results()
    groups = built.folder / "groups.yaml"
    groups.write_text(groups.read_text().replace("[1, 4, 7]", "[1, 4]"))
    message = refused(built.run())
    assert message == (
        "error in hierarchy: groups.yaml: the class '7' is in no super-class; "
        "add it to one of super_classes"
    )
    kept = {name: time for name, time in before.items() if "hierarchy.yaml" not in name}
    assert built.results() == kept
    assert built.half_written() == []


@pytest.mark.slow
def test_more_evaluation_examples_than_a_class_has(built):
    before = built.results()
    built.configure(of_tiny(evaluation={"train": 5000, "validation": 40}))
    message = refused(built.run())
    assert message.startswith("error in evaluation: ")
    assert "train: 5000 examples" in message
    assert "class '0'" in message
    assert built.results() == before
    assert built.half_written() == []


IDX = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
IDX += ["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]
IDX_HEADER = bytes.fromhex("00000803 0000ea60 0000001c 0000001c")  # 60,000 images of 28 x 28
RAW = {
    "mnist": ["MNIST/raw/train-images-idx3-ubyte", "corrupt"],
    "fashion_mnist": ["FashionMNIST/raw/train-images-idx3-ubyte", "truncated"],
    "cifar10": ["cifar-10-batches-py", "corrupt"],
    "one_class": ["one_class/train", "one class only (cat)"],
    "other_classes": ["other_classes", "cat, dog"],
    "no_picture": ["no_picture/train/cat/1.png", "not a readable image"],
}


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def draw_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)


def write_broken_data(folder: Path) -> None:
    for name in IDX:
        write(folder / "MNIST/raw" / name, b"not what it was" * 1000)
        write(folder / "FashionMNIST/raw" / name, IDX_HEADER + bytes(28 * 28 * 10))
    write(folder / "cifar-10-batches-py/data_batch_1", b"not a batch")
    for place in ("one_class/train/cat", "one_class/test/cat"):
        draw_image(folder / place / "0.png")
    for place in ("train/bird", "train/cat", "test/bird", "test/dog"):
        draw_image(folder / "other_classes" / place / "0.png")
    for place in ("train/bird", "train/cat", "test/bird", "test/cat"):
        draw_image(folder / "no_picture" / place / "0.png")
    write(folder / "no_picture/train/cat/1.png", b"no png")


@pytest.fixture(scope="module")
def broken_data(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """All broken data sets at once: each has to fail by itself."""
    folder = tmp_path_factory.mktemp("broken") / "project"
    subprocess.run(["cp", "-a", source, folder], check=True)
    write_broken_data(folder / "raw")
    project = Project(folder)
    own = ("one_class", "other_classes", "no_picture")
    folders = {name: {"source": "image_folder", "path": name} for name in own}
    project.configure({"data_dir": "raw", "datasets": folders})
    targets = [f"results/data/{name}/arrays.safetensors" for name in RAW]
    return project, project.run(*targets, "--keep-going")


@pytest.mark.slow
@pytest.mark.parametrize("name", RAW)
def test_broken_raw_data(broken_data, name):
    _, outcome = broken_data
    file, reason = RAW[name]
    (message,) = [line for line in outcome.errors if f"raw/{file}" in line]
    assert message.startswith("error in arrays: ")
    assert reason in message


@pytest.mark.slow
def test_broken_raw_data_leave_nothing_behind(broken_data):
    project, outcome = broken_data
    assert outcome.code != 0
    assert len(outcome.errors) == len(RAW), outcome.output
    assert "Traceback" not in outcome.output
    assert project.results() == {}
    assert project.half_written() == []


@pytest.mark.slow
def test_absent_raw_data_without_a_network(fresh):
    fresh.configure({"data_dir": "raw", **of_tiny(dataset="mnist")})
    nowhere = "http://127.0.0.1:9"
    message = refused(fresh.run(https_proxy=nowhere, http_proxy=nowhere))
    assert message.startswith("error in arrays: MNIST: ")
    assert "raw/MNIST/raw" in message
    assert "data_dir" in message
    assert all(name in message for name in IDX)
    assert fresh.results() == {}
    assert [path for path in (fresh.folder / "raw").rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_a_checkpoint_of_another_model(built):
    output = built.folder / FIRST.format("gradients/exact") / "cosines"
    file = f"{FIRST.format('checkpoints')}/step=00000006.safetensors"
    tensors, metadata = read_tensors(built.folder / file)
    tensors["1.weight"] = torch.zeros(500, 784)
    write_tensors(built.folder / file, tensors, metadata)
    message = refused(
        built.run(f"{FIRST.format('gradients/exact')}/cosines", "--forcerun", "gradients")
    )
    assert message.startswith("error in gradients: ")
    assert file in message
    assert "1.weight is (500, 784) there" in message
    assert not output.exists()
    assert built.half_written() == []


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_where_there_is_none(built):
    before = built.results()
    built.configure({"device": "cuda", **of_tiny(learning_rates=["1e-3", "3e-3", "1e-2"])})
    message = refused(built.run("results/tiny/lr=1e-2/seed=0/checkpoints/epochs=0000-0001"))
    assert message.startswith("error in training: device: cuda")
    assert built.results() == before
    assert built.half_written() == []


@pytest.fixture
def small_disk(fresh):
    """Results on a file system with room for logs, not for arrays."""
    disk = fresh.folder / "results"
    disk.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_no_room_on_the_disk(fresh, small_disk):
    target = "results/data/digits/arrays.safetensors"
    message = refused(fresh.run(target))
    assert message.startswith("error in arrays: no room on the disk")
    assert target in message
    assert fresh.results() == {}
    assert fresh.half_written() == []
    # As the message says: with some space the same command goes on.
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    fresh.build(target)
    assert set(fresh.results()) == {target}
