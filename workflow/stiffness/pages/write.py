"""The pages with their pictures, made of docs/data, and whether anything has fallen behind."""

from collections.abc import Iterator
from pathlib import Path

from stiffness.digests import file_digest, json_digest
from stiffness.pages import pictures
from stiffness.pages.blocks import (
    all_pictures,
    fill_blocks,
    pages_with_blocks,
    pictures_of,
    read_blocks,
    read_digest,
    with_digest,
)
from stiffness.pages.committed import ALWAYS, CLAIMS, DATA, FIGURES, PAGES, Committed, Picture, flat
from stiffness.pages.render import render
from stiffness.plan import paths
from stiffness.plan.kinds import KINDS

LARGEST = 10_000_000
"""Bytes of docs/data."""
_REDRAW = "make results-page"
_LIBRARY = Path(__file__).parents[1]
_MAKERS = (
    *("pages/blocks", "pages/committed", "pages/costs", "pages/numbers", "pages/render"),
    *("figures/arithmetic", "measures/seeds", "report/predictions"),
)
"""The modules whose edits change the numbers of blocks that take time."""


def write_pages(root: str | Path, everything: bool = False) -> Iterator[str]:
    """Draw what docs/data holds, and make the blocks of all pages anew.

    Args:
        root: the folder of the repository.
        everything: also draw pictures that are as they should be.

    Yields:
        The name of each picture and page that was changed.
    """
    committed = Committed(root)
    pages = pages_with_blocks(committed.root)
    wanted = all_pictures(pages.values(), committed.settings)
    yield from pictures.redraw(committed, wanted, everything)
    for page, text in pages.items():
        new = fill_blocks(text, lambda name: render(committed, name))
        new = with_digest(new, page_digest(committed, new))
        if new != text:
            page.write_text(new, encoding="utf-8")
            yield f"written: {page.name}"


def drift(root: str | Path, everything: bool = False) -> list[str]:
    """What is not as docs/data and the code give it; each line says what to do.

    Args:
        everything: make every block anew and compare it, in place of comparing the digest of the
            page where a block takes time.
    """
    committed = Committed(root)
    pages = pages_with_blocks(committed.root)
    wanted = all_pictures(pages.values(), committed.settings)
    there = [picture for picture in wanted if committed.is_there(picture)]
    found = [
        line for page, text in pages.items() for line in _behind(committed, page, text, everything)
    ]
    drawn = {pictures.picture_path(committed.root, picture): picture for picture in there}
    for path, picture in drawn.items():
        if pictures.digest_within(path) != pictures.picture_digest(committed, picture):
            found.append(f"{path.name} is not of its tables and its code: {_REDRAW}")
    figures = [*(committed.root / FIGURES).glob("*")]
    found += [f"{path.name} is in no page: {_REDRAW}" for path in figures if path not in drawn]
    sizes = [path.stat().st_size for path in figures]
    if sizes and (max(sizes) > pictures.LARGEST or sum(sizes) > pictures.LARGEST_TOGETHER):
        found.append(f"{FIGURES}: a picture has {max(sizes)} bytes, all have {sum(sizes)}")
    read = _files_in_use(committed, there)
    texts = "".join(
        page.read_text(encoding="utf-8") for page in (committed.root / PAGES).glob("*.md")
    )
    files = _files(committed)
    for path in sorted(set(files) - read):
        name = path.relative_to(committed.root).as_posix()
        if name not in texts:
            found.append(f"{name}: no figure reads it and no page names it; delete it")
    size = sum(path.stat().st_size for path in files)
    if size > LARGEST:
        found.append(f"{DATA}: {size} bytes; the most is {LARGEST}")
    return found


def page_digest(committed: Committed, text: str) -> str:
    """A digest of a page's blocks that take time, and of all that they are made of."""
    blocks = [(name, own) for name, own in read_blocks(text) if _takes_time(name)]
    kinds = {one.kind for name, _ in blocks for one in pictures_of(name, committed.settings)}
    figures = committed.settings["figures"]
    return json_digest(
        [
            blocks,
            {
                path.relative_to(committed.data).as_posix(): file_digest(path)
                for path in _files(committed)
            },
            {name: file_digest(_LIBRARY / f"{name}.py") for name in _MAKERS},
            {kind: [KINDS[kind].caption, figures[kind]] for kind in sorted(kinds)},
            {name: committed.settings["experiments"][name] for name in committed.experiments},
        ]
    )


def _takes_time(name: str) -> bool:
    return name.startswith(("figure ", "epochs ", "predictions "))


def _behind(committed: Committed, page: Path, text: str, everything: bool = False) -> list[str]:
    """What a page has otherwise than docs/data gives it."""
    found = [
        f"{page.name}, block {name!r} is not what {DATA} gives: {_REDRAW}"
        for name, own in read_blocks(text)
        if (everything or not _takes_time(name)) and own != render(committed, name)
    ]
    if read_digest(text) != page_digest(committed, text):
        found.append(f"{page.name} is not of its tables, its code or its blocks: {_REDRAW}")
    return found


def _files(committed: Committed) -> list[Path]:
    return sorted(path for path in committed.data.rglob("*") if path.is_file())


def _files_in_use(committed: Committed, there: list[Picture]) -> set[Path]:
    """The files of docs/data that pictures and blocks read."""
    found = {Path(file) for picture in there for file in flat(committed.files(picture))}
    for name in committed.experiments:
        arithmetic = committed.settings["experiments"][name]["arithmetic"][0]
        for own in ALWAYS:
            pattern = paths.fill(paths.TABLE, experiment=name, arithmetic=arithmetic, name=own)
            found.add(Path(committed.path(pattern)))
        folder = committed.data / name
        found |= {committed.data / f"{name}.yaml", folder / "provenance.yaml", folder / CLAIMS}
    return found
