"""The generated blocks of pages, and the pictures that they show.

A block stands between two comments:

    <!-- generated: NAME -->
    <!-- end -->

NAME is one of

- ``runs``: the table of runs;
- ``costs``: what they took, room by room;
- ``verdicts``: the verdict on every claim;
- ``claim C3``: one claim with its numbers;
- ``figure WHAT`` or ``figure WHAT: EXPERIMENT ...``: pictures with captions and key numbers. WHAT
  is a figure of the paper (fig3), a study, or a kind of figure. Experiments after the colon come
  after those of the figure or study;
- ``epochs STUDY`` and ``predictions STUDY``, of studies of the kind ``arithmetic``: stiffness at
  some epochs, and the predictions of docs/arithmetic.md with what the tables say of them.

What the blocks of all pages ask for is what docs/data and docs/figures hold. Blocks may stand in
any page directly in docs/.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from stiffness.errors import StiffnessError
from stiffness.pages.committed import PAGES, Picture
from stiffness.plan.kinds import KINDS, lacking
from stiffness.plan.needs import Settings

_BLOCK = re.compile(r"(<!-- generated: ([^>\n]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


_DIGEST = re.compile(r"\n<!-- made of: (\w+) -->\n\Z")


def pages_with_blocks(root: Path) -> dict[Path, str]:
    """The text of every page that has generated blocks."""
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((root / PAGES).glob("*.md"))}
    return {path: text for path, text in texts.items() if _BLOCK.search(text)}


def read_blocks(text: str) -> list[tuple[str, str]]:
    """The name and the text of each of a page's blocks."""
    return [(name, own.strip()) for _, name, own, _ in _BLOCK.findall(text)]


def fill_blocks(text: str, render: Callable[[str], str]) -> str:
    """A page with its blocks made anew by ``render``, which gets a name and returns a text."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{render(found[2])}\n\n{found[4]}", text)


def read_digest(text: str) -> str:
    """The digest at the end of a page; "" where there is none."""
    found = _DIGEST.search(text)
    return found[1] if found else ""


def with_digest(text: str, digest: str) -> str:
    """A page with another digest at its end."""
    return f"{_DIGEST.sub('', text).rstrip()}\n\n<!-- made of: {digest} -->\n"


def split_figure(name: str) -> tuple[str, list[str]]:
    """What a block "figure WHAT: EXPERIMENT ..." shows, and its further experiments."""
    what, _, further = name.removeprefix("figure ").partition(":")
    return what.strip(), further.split()


def pictures_of(name: str, settings: Settings) -> list[Picture]:
    """The pictures that a block asks for, those of the paper's own experiments first.

    Raises:
        StiffnessError: the block names something that there is not.
    """
    if name.startswith(("epochs ", "predictions ")):
        study = name.partition(" ")[2]
        if settings["studies"].get(study, {}).get("kind") != "arithmetic":
            raise StiffnessError(f"block {name!r}: {study} is no study of the kind arithmetic")
        return [Picture("arithmetic", study=study)]
    if not name.startswith("figure "):
        return []
    what, further = split_figure(name)
    if what in settings["paper"]:
        entry = settings["paper"][what]
        kind, stage = entry["kind"], str(entry.get("stage") or "last")
        experiments = [*entry["experiments"], *further]
    elif what in settings["studies"]:
        entry = settings["studies"][what]
        kind, stage = entry["kind"], "last"
        if KINDS[kind].across:
            return [Picture(kind, study=what)]
        experiments = [*entry["experiments"], *further]
    elif what in KINDS and not KINDS[what].across:
        kind, stage, experiments = what, "last", further
    else:
        raise StiffnessError(f"block {name!r}: {what} is no figure, no study and no kind of figure")
    for experiment in experiments:
        if experiment not in settings["experiments"]:
            raise StiffnessError(f"block {name!r}: unknown experiment {experiment!r}")
        why = lacking(settings, experiment, kind)
        if why:
            raise StiffnessError(f"block {name!r}: {why}")
    stage = stage if KINDS[kind].by_stage else ""
    return [Picture(kind, experiment, stage) for experiment in experiments]


def all_pictures(texts: Iterable[str], settings: Settings) -> list[Picture]:
    """Every picture that the blocks of these pages ask for, once."""
    names = [name for text in texts for name, _ in read_blocks(text)]
    return list(dict.fromkeys(one for name in names for one in pictures_of(name, settings)))
