"""The report as a reader sees it: a page that needs no network, with every figure in its place."""

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from project import KINDS, Project

WHY_NOT = "no websockets: pip install -r envs/requirements-dev.txt"
if importlib.util.find_spec("websockets"):
    from chromium import Page, page, reason_not_to, served

    WHY_NOT = reason_not_to()
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]

OTHER = {"dataset": "digits", "model": {"name": "fc"}, "learning_rates": ["1e-3"], "epochs": 1}
OTHER_KINDS = ("training_curves", "distance")
FIGURES = {"Experiment tiny": set(KINDS), "Experiment other": set(OTHER_KINDS)}


@pytest.fixture(scope="module")
def report(tiny: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report on two experiments, unpacked."""
    project = Project(tmp_path_factory.mktemp("report") / "project")
    shutil.copytree(tiny.folder, project.folder)
    entry = OTHER | {"evaluation": {"train": 40, "validation": 40}}
    project.configure({"experiments": {"other": entry}})
    targets = ["all", *(f"results/other/figures/{kind}.png" for kind in OTHER_KINDS)]
    project.build(*targets)
    project.build(*targets, "--report", "results/report.zip")
    with zipfile.ZipFile(project.folder / "results/report.zip") as archive:
        archive.extractall(project.folder / "unpacked")
    return project.folder / "unpacked/report"


@pytest.fixture(scope="module")
def opened(report: Path) -> "Iterator[Page]":
    with served(report) as address, page() as tab:
        tab.open(f"{address}/report.html")
        tab.until("document.querySelectorAll('nav li a').length > 3")
        yield tab


def click(tab: "Page", selector: str, text: str = "") -> None:
    """Click on the element, the first one with that text where one is given."""
    found = f"[...document.querySelectorAll({json.dumps(selector)})]"
    wanted = f"{found}.find(one => one.textContent.includes({json.dumps(text)}))"
    tab.until(f"!!{wanted}")
    tab.value(f"{wanted}.click()")


def rows(tab: "Page") -> list[list[str]]:
    """The table of a category's figures: what each row says."""
    cells = "[...row.querySelectorAll('td')].slice(0, -1).map(cell => cell.textContent)"
    tab.until("document.querySelectorAll('nav tbody tr').length > 0")
    found = tab.value(f"[...document.querySelectorAll('nav tbody tr')].map(row => {cells})")
    assert isinstance(found, list)
    return found


def test_the_front_page_explains_and_lists_every_category(opened: "Page") -> None:
    text = opened.value("document.body.innerText")
    assert "If one gradient step on an example lowers its own loss" in text
    items = opened.value("[...document.querySelectorAll('nav li a')].map(a => a.textContent)")
    listed = [item for item in items if item.startswith("Experiment")]
    assert listed == sorted(FIGURES)


def test_the_front_page_shows_pictures_that_open(opened: "Page") -> None:
    opened.value("app.setView({content: 'rulegraph'})")
    shown = "[...document.querySelectorAll('#pictures a')]"
    opened.until(f"{shown}.length > 3")
    opened.until(
        f"{shown}.every(one => !one.querySelector('img')"
        " || one.querySelector('img').naturalWidth > 100)"
    )
    named = opened.value(f"{shown}.map(one => one.textContent.trim())")
    assert any(name.startswith("fig. 03") for name in named)
    top = opened.value("document.querySelector('#pictures img').getBoundingClientRect().top")
    tangle = opened.value("document.querySelector('#rulegraph').getBoundingClientRect().top")
    assert 0 < top < tangle
    opened.value(f"{shown}.find(one => one.textContent.includes('fig. 03')).click()")
    opened.until("document.querySelector('#app .p-3 > img')?.naturalWidth > 500")


def test_a_cell_of_a_class_matrix_says_what_it_is(opened: "Page", report: Path) -> None:
    opened.value("app.setView({content: 'rulegraph'})")
    shown = "[...document.querySelectorAll('#pictures a')]"
    opened.until(f"{shown}.length > 3")
    opened.value(f"{shown}.find(one => one.textContent.includes('cell by cell')).click()")
    inside = "document.querySelector('iframe').contentDocument"
    opened.until(f"!!{inside}?.getElementById('matrix')?.width")
    assert opened.value(f"{inside}.querySelectorAll('#controls select').length") == 3
    opened.value(
        f"(() => {{ const canvas = {inside}.getElementById('matrix');"
        " const box = canvas.getBoundingClientRect();"
        " const view = canvas.ownerDocument.defaultView;"
        " const at = {clientX: box.left + 1, clientY: box.top + 1, bubbles: true};"
        " canvas.dispatchEvent(new view.MouseEvent('mousemove', at)); })()"
    )
    said = opened.value(f"{inside}.getElementById('about').innerText")
    assert " × " in said
    assert " to " in said
    assert "pairs" in said


@pytest.mark.parametrize("category", sorted(FIGURES))
def test_every_figure_can_be_seen_and_has_a_caption(opened: "Page", category: str) -> None:
    opened.value("app.setView({navbarMode: 'menu'})")
    click(opened, "nav li a", category)
    opened.until(f"app.state.category == {json.dumps(category)}")
    table = [row for row in rows(opened) if "cell by cell" not in row[0]]
    named = [row[0].split(": ")[1].split(",")[0].replace(" ", "_") for row in table]
    assert sorted(named) == sorted(FIGURES[category])
    numbers = [row[0].split(": ")[0] for row in table]
    assert numbers == sorted(numbers), "the paper's order, new ones last"
    assert numbers[0] == "fig. 03"
    pictures = [number for number, row in enumerate(rows(opened)) if "cell by cell" not in row[0]]
    for number in pictures:
        buttons = f"document.querySelectorAll('nav tbody tr')[{number}].querySelectorAll('a')"
        before = opened.value("app.state.contentPath || ''")
        opened.value(f"{buttons}[0].click()")
        opened.until(f"app.state.contentPath != {json.dumps(before)}")
        source = opened.until("document.querySelector('#app img[src^=data], #app .p-3 > img')?.src")
        width = opened.value(
            "(async () => { const image = document.querySelector('#app .p-3 > img');"
            " await image.decode(); return image.naturalWidth; })()"
        )
        assert width > 500, source
    captions = opened.value(
        f"Object.values(categories[{json.dumps(category)}]).flat()"
        ".map(path => results[path].caption)"
    )
    assert all("Look for" in caption or "?" in caption for caption in captions)


def test_a_caption_is_shown_beside_its_figure(opened: "Page") -> None:
    opened.value("app.setView({navbarMode: 'menu'})")
    click(opened, "nav li a", "Experiment other")
    rows(opened)
    opened.value("document.querySelectorAll('nav tbody tr')[0].querySelectorAll('a')[1].click()")
    opened.until("document.querySelector('nav').innerText.includes('onset of over-fitting')")


def test_nothing_goes_wrong_and_nothing_comes_from_elsewhere(opened: "Page") -> None:
    origin = opened.value("location.origin")
    assert opened.errors == []
    assert opened.requests
    assert all(url.startswith(origin) for url in opened.requests)
