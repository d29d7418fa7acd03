"""Results packed for others: what the zip holds, and a figure drawn from it without training."""

import hashlib
import json
import shutil
import zipfile
from urllib.parse import unquote

import pytest
import yaml

from stiffness.report.archive import CONFIGURATION, MANIFEST, METADATA

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def archive(tiny, tmp_path_factory):
    """The zip of the tiny experiment's results."""
    project = type(tiny)(shutil.copytree(tiny.folder, tmp_path_factory.mktemp("packed") / "tiny"))
    assert "MB: results/archive.zip" in project.build("archive").output
    return project.folder / "results/archive.zip"


def test_every_file_is_listed_with_its_digest(archive, tiny):
    with zipfile.ZipFile(archive) as packed:
        contents = {name: packed.read(name) for name in packed.namelist()}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    lines = [line.split("  ") for line in contents[MANIFEST].decode().splitlines()]
    assert {name: digest for digest, name in lines} == {
        name: digest for name, digest in digests.items() if name not in (MANIFEST, METADATA)
    }
    described = {unquote(one["@id"]): one for one in json.loads(contents[METADATA])["@graph"]}
    for digest, name in lines:
        assert described[name]["sha256"] == digest
        assert described[name]["contentSize"] == str(len(contents[name]))
    for name in ("tiny/tables/exact/summary.parquet", "tiny/figures/distance.png", "claims.csv"):
        assert contents[name] == (tiny.folder / "results" / name).read_bytes()
    assert not [name for name in contents if "/step=" in name or "arrays" in name.split("/")[-1]]
    configuration = yaml.safe_load(contents[CONFIGURATION])
    assert configuration["experiments"]["tiny"]["learning_rates"] == ["1e-3", "3e-3"]


def test_a_figure_is_drawn_from_an_archive_without_training(archive, fresh):
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(fresh.folder / "results")
    picture = "results/tiny/figures/distance.png"
    before = (fresh.folder / picture).read_bytes()
    (fresh.folder / picture).unlink()
    assert fresh.plan(picture) == {"figure distance": 1}
    fresh.build(picture)
    assert (fresh.folder / picture).read_bytes() == before
    fresh.edit("workflow/stiffness/figures/training_curves.py")
    assert fresh.plan("results/tiny/figures/training_curves.png") == {"figure training_curves": 1}


def test_checkpoints_are_packed_where_they_are_asked_for(archive, tiny, tmp_path):
    folder = shutil.copytree(archive.parents[1], tmp_path / "with_checkpoints")
    project = type(tiny)(folder)
    project.build("archive", "--config", "archive_checkpoints=true")
    with zipfile.ZipFile(folder / "results/archive.zip") as packed:
        weights = [name for name in packed.namelist() if "/step=" in name]
    assert len(weights) == 10, "two rates with five checkpoints each, and no cosines"
    assert all("/checkpoints/" in name for name in weights)
