"""Pictures of the committed tables, drawn as the workflow draws them, with a digest of each."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stiffness.digests import file_digest, json_digest
from stiffness.errors import StiffnessError
from stiffness.figures.load import Files, call
from stiffness.figures.style import use_looks
from stiffness.files import atomic_write
from stiffness.pages.committed import FIGURES, Committed, Picture
from stiffness.plan.modules import library_modules

KEY = "stiffness"
"""Of the digest in a picture's metadata."""
LARGEST, LARGEST_TOGETHER = 250_000, 5_000_000
_DPIS = (200, 150, 110)
"""Dots per inch: the first that makes a picture small enough."""
_COLORS = 256
_WORKFLOW = Path(__file__).parents[2]


def picture_path(root: Path, picture: Picture) -> Path:
    """Where a picture lies."""
    return root / FIGURES / f"{picture.name}.png"


def picture_digest(committed: Committed, picture: Picture) -> str:
    """A digest of all that decides a picture: tables, settings, and the modules that draw.

    Of the library, modules of the room ``figures`` count: others hardly change what is drawn, and
    each edit of one would ask for new pictures.
    """
    module = Path(str(picture.module.__file__))
    sources = map(Path, library_modules(_WORKFLOW, module))
    files = {
        name: [
            [Path(file).relative_to(committed.data).as_posix(), file_digest(file)] for file in given
        ]
        for name, given in _lists(committed.files(picture)).items()
    }
    code = {one.name: file_digest(one) for one in sources if one.parent.name == "figures"}
    return json_digest([picture.kind, files, committed.shows(picture), code])


def digest_within(path: Path) -> str:
    """The digest in a picture's metadata; "" where there is none."""
    from PIL import Image

    if not path.is_file():
        return ""
    with Image.open(path) as image:
        return str(image.info.get(KEY, ""))


def draw(committed: Committed, picture: Picture, path: Path, digest: str) -> None:
    """Draw a picture, with few colours so that it is small, and with its digest.

    Raises:
        StiffnessError: it is larger than ``LARGEST`` all the same.
    """
    import matplotlib.pyplot as plt
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    use_looks()
    about = PngInfo()
    about.add_text(KEY, digest)
    for dpi in _DPIS:
        with tempfile.TemporaryDirectory() as folder, plt.rc_context({"savefig.dpi": dpi}):
            drawn = Path(folder) / "drawn.png"
            call(picture.module.draw, committed.arguments(picture), outputs=[drawn])
            with Image.open(drawn) as image, atomic_write(path) as temporary:
                few = image.convert("RGB").quantize(_COLORS, dither=Image.Dither.NONE)
                few.save(temporary, pnginfo=about, optimize=True)
        if path.stat().st_size <= LARGEST:
            return
    raise StiffnessError(f"{path}: {path.stat().st_size} bytes; the most is {LARGEST}")


def redraw(
    committed: Committed, pictures: list[Picture], everything: bool = False
) -> Iterator[str]:
    """Draw those pictures that are not what the tables and the code give; remove other files.

    Args:
        everything: draw all of them.

    Yields:
        The name of each picture that was drawn or removed.
    """
    there = [picture for picture in pictures if committed.is_there(picture)]
    paths = {picture_path(committed.root, picture): picture for picture in there}
    for path, picture in paths.items():
        digest = picture_digest(committed, picture)
        if everything or digest != digest_within(path):
            draw(committed, picture, path, digest)
            yield f"drawn: {path.name}"
    for path in sorted((committed.root / FIGURES).glob("*")):
        if path not in paths:
            path.unlink()
            yield f"removed: {path.name}"


def _lists(files: Mapping[str, Files]) -> dict[str, list[Any]]:
    return {name: [one] if isinstance(one, str) else list(one) for name, one in files.items()}
