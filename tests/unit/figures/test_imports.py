"""A process that draws starts with what drawing needs: torch alone would double its start."""

import subprocess
import sys
from pathlib import Path

import stiffness.figures

MODULES = {path.stem for path in Path(stiffness.figures.__path__[0]).glob("*.py")} - {"__init__"}
TENSORS = {"contact_sheet"}  # reads images, which are tensors in the files of the data room
HEAVY = ("torch", "seaborn", "scipy")


def test_modules_that_draw_import_no_torch_and_no_scipy():
    names = [f"stiffness.figures.{name}" for name in sorted(MODULES - TENSORS)]
    program = (
        f"import sys, {', '.join(names)}\nprint([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
