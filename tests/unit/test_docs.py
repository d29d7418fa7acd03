"""README.md and the pages of docs/ name files, headings, commands and settings that exist."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml

from stiffness.plan import paths
from stiffness.plan.config import read_settings
from stiffness.plan.kinds import KINDS, Kind

REPOSITORY = Path(__file__).parents[2]
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "results/README.md",
    REPOSITORY / "benchmarks/README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
]
CONFIG = yaml.safe_load((REPOSITORY / "config.yaml").read_text())


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site both spell them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in kept}


def examples(page: Path) -> list[str]:
    """The YAML blocks of a page that are whole configurations to lay over config.yaml."""
    blocks = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [block for block in blocks if re.match(r"# \w+\.yaml\n", block)]


def laid_over(base: object, over: object) -> object:
    """As Snakemake lays a --configfile over config.yaml."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return base | {key: laid_over(base.get(key), value) for key, value in over.items()}


def commands(page: Path, program: str) -> list[list[str]]:
    """The commands of a page's indented blocks and inline code that call a program."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^    (.+)$", text, re.MULTILINE)
    inline = re.findall(rf"`({program} [^`]*)`", text)
    lines = (re.sub(r"\s+#.*$", "", line).split() for line in [*blocks, *inline])
    return [words[words.index(program) + 1 :] for words in lines if program in words]


@each_page
def test_every_link_and_picture_exists(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name_of(page)}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{name_of(page)}: {target}"


def test_every_picture_is_shown():
    shown = "".join(page.read_text() for page in PAGES)
    folders = (REPOSITORY / "docs/pictures", REPOSITORY / "docs/figures")
    pictures = [path.name for folder in folders for path in folder.iterdir()]
    assert len(pictures) > 20
    assert [name for name in pictures if name not in shown] == []


@each_page
def test_every_path_of_the_repository_exists(page):
    # Inline code that begins with a folder of the repository, without placeholders.
    folders = r"(?:workflow|tests|envs|profiles|docs|benchmarks|\.ci|\.github)"
    for path in re.findall(rf"`({folders}/[\w./-]*)`", page.read_text()):
        assert (REPOSITORY / path).exists(), f"{name_of(page)}: {path}"


@each_page
def test_make_targets_exist(page):
    makefile = (REPOSITORY / "Makefile").read_text()
    for words in commands(page, "make"):
        for word in words:
            assert re.search(rf"^{word}:", makefile, re.MULTILINE), f"{name_of(page)}: make {word}"


@each_page
def test_snakemake_targets_exist(page):
    config = CONFIG
    for block in examples(page):
        config = laid_over(config, yaml.safe_load(block))
    targets = {*config["paper"], *config["studies"], "paper", "studies", "claims", "archive"}
    for words in commands(page, "snakemake"):
        for option, value in pairwise(words):
            if option == "--profile":
                assert list((REPOSITORY / value).iterdir()), f"{name_of(page)}: {value}"
        for word in words_that_are_targets(words):
            figure = re.fullmatch(r"results/(\w+)/figures/(\w+)(/stage=\w+)?\.(pdf|png)", word)
            if figure:
                assert figure[1] in config["experiments"], f"{name_of(page)}: {word}"
                assert KINDS[figure[2]].by_stage == bool(figure[3]), f"{name_of(page)}: {word}"
            else:
                assert word in targets, f"{name_of(page)}: snakemake {word}"


def words_that_are_targets(words: list[str]) -> list[str]:
    """Arguments that are neither options nor their values."""
    if "--" in words:
        return words[words.index("--") + 1 :]
    flags = {"--dry-run", "--unlock", "--lint"}
    pairs = zip(["", *words], words, strict=False)
    return [
        word
        for before, word in pairs
        if not word.startswith("--") and (not before.startswith("--") or before in flags)
    ]


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{name_of(page)}-{number}")
        for page in PAGES
        for number, block in enumerate(examples(page))
    ],
)
def test_configurations_of_the_pages_are_valid(page, block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for python in re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        named = re.match(r"# (\w+\.py)\n", python)
        if named:
            Path(named[1]).write_text(python)
    config = yaml.safe_load(block)
    for experiment in config.get("experiments", {}).values():
        if "checkpoints" in experiment:
            file = Path(experiment["checkpoints"].format(lr="1e-3", seed=0, step=1, epoch=1))
            file.parent.mkdir(parents=True)
            file.touch()
    read_settings(laid_over(CONFIG, config))


@each_page
def test_python_of_the_pages_runs(page, tmp_path, monkeypatch):
    # Blocks marked `py` are parts of a program that needs another library, or files.
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    model = torch.nn.Linear(5, 3)
    inputs, targets = torch.randn(12, 5), torch.arange(12) % 3
    names = {"model": model, "inputs": inputs, "targets": targets, "batches": [(inputs, targets)]}
    names |= {"x": inputs, "y": targets, "x_val": inputs, "y_val": targets}
    for block in blocks:
        exec(block, names)


def test_the_readme_is_short_and_names_what_it_must():
    readme = (REPOSITORY / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    named = {" ".join(words) for words in commands(REPOSITORY / "README.md", "snakemake")}
    assert named >= {
        "--cores 8 fig12",
        "--cores 8 paper",
        "--cores 8 claims",
        "--profile profiles/slurm paper",
        "--report results/report.zip",
    }
    assert ["run"] in commands(REPOSITORY / "README.md", "make")
    assert ["test"] in commands(REPOSITORY / "README.md", "make")


def test_pages_are_in_the_site():
    site = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    pages = {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    notebooks = {f"examples/{path.name}" for path in (REPOSITORY / "examples").glob("*.ipynb")}
    assert set(site["nav"]) == pages | notebooks
    index = (REPOSITORY / "docs/index.md").read_text()
    readme = (REPOSITORY / "README.md").read_text()
    for page in pages - {"index.md"}:
        assert f"]({page})" in index, page
        assert f"](docs/{page})" in readme, page


def test_every_path_of_the_results_is_described():
    described = (REPOSITORY / "results/README.md").read_text()
    patterns = [value for value in vars(paths).values() if str(value).startswith("results/")]
    assert len(patterns) > 15
    for pattern in patterns:
        fixed = [part for part in pattern.split("/")[1:] if "{" not in part]
        assert all(part in described for part in fixed), pattern


def test_every_script_and_room_is_described():
    described = (REPOSITORY / "docs/architecture.md").read_text()
    names = [path.stem for path in (REPOSITORY / "workflow/scripts").glob("*.py")]
    names += [
        path.parent.name for path in (REPOSITORY / "workflow/stiffness").glob("*/__init__.py")
    ]
    assert len(names) > 20
    assert [name for name in names if f"`{name}`" not in described] == []


def test_every_kind_with_conditions_is_described():
    described = (REPOSITORY / "docs/figures.md").read_text()
    conditional = [kind.name for kind in KINDS.values() if kind.lacking is not Kind.lacking]
    assert len(conditional) > 5
    assert [name for name in conditional if f"`{name}`" not in described] == []
