"""The pages of results, their pictures and the tables in docs/data belong together."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

from stiffness.errors import StiffnessError
from stiffness.pages.blocks import pages_with_blocks, pictures_of, read_blocks
from stiffness.pages.committed import FIGURES, Committed
from stiffness.pages.render import render
from stiffness.pages.write import drift, write_pages
from stiffness.report.claims import CLAIMS

REPOSITORY = Path(__file__).parents[3]


def test_nothing_has_drifted():
    assert drift(REPOSITORY) == []


def test_the_page_has_every_figure_of_the_paper_and_every_claim():
    texts = pages_with_blocks(REPOSITORY)
    names = [name for name, _ in read_blocks(texts[REPOSITORY / "docs/results.md"])]
    shown = {re.split(r"[ :]", name)[1] for name in names if name.startswith("figure ")}
    paper = yaml.safe_load((REPOSITORY / "config.yaml").read_text())["paper"]
    assert len(paper) == 19
    assert set(paper) <= shown
    assert {f"claim {claim.name}" for claim in CLAIMS} <= set(names)
    assert {"runs", "verdicts"} <= set(names)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("figure fig99", "fig99 is no figure"),
        ("figure fig3: nobody", "unknown experiment 'nobody'"),
        ("figure hierarchy_curves: mnist_fc", "needs a hierarchy"),
        ("claim C99", "there is no such claim"),
        ("weather", "unknown block 'weather'"),
    ],
)
def test_a_block_that_cannot_be_made_is_refused(block, message, committed):
    with pytest.raises(StiffnessError, match=message):
        render(committed, block)


@pytest.fixture(scope="module")
def committed():
    return Committed(REPOSITORY)


def test_a_figure_with_one_stage_shows_the_stage_of_the_paper(committed):
    (picture,) = pictures_of("figure figS4", committed.settings)
    assert picture.name == "cifar100_resnet_class_matrix_2"
    (study,) = pictures_of("figure arithmetic", committed.settings)
    assert study.name == "arithmetic"


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"device": "cpu", "experiments": {"mnist_fc": {}}}, "only experiments and datasets"),
        ({"experiments": {"mnist_cnn": {}}}, "about experiments.mnist_fc and no other"),
        ({"experiments": {"mnist_fc": {"epoch": 3}}}, "unknown key 'epoch'"),
    ],
)
def test_an_overlay_is_a_valid_configuration_of_its_experiment(overlay, message):
    with pytest.raises(StiffnessError, match=message):
        Committed(REPOSITORY, {"mnist_fc": overlay})


@pytest.mark.slow  # it draws every picture
def test_every_picture_and_every_block_is_made_anew(tmp_path):
    for name in ("config.yaml", "docs"):
        source = REPOSITORY / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    for name in ("figures", "pictures", "examples"):
        shutil.rmtree(tmp_path / "docs" / name, ignore_errors=True)
    list(write_pages(tmp_path, everything=True))
    assert drift(tmp_path, everything=True) == []
    figures = (REPOSITORY / FIGURES).glob("*.png")
    assert {path.name for path in (tmp_path / FIGURES).glob("*.png")} == {p.name for p in figures}
    for page, text in pages_with_blocks(tmp_path).items():
        assert text == (REPOSITORY / "docs" / page.name).read_text(), page.name
