"""The commands ``make results-data`` and ``make results-page``.

python -m stiffness.pages collect --results results --configfile mine.yaml arithmetic_fc
python -m stiffness.pages draw
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stiffness.errors import StiffnessError
from stiffness.pages.collect import collect
from stiffness.pages.write import drift, write_pages

ROOT = Path(__file__).parents[3]


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stiffness.pages", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    new = commands.add_parser("collect", help="copy the tables of experiments into docs/data")
    new.add_argument("experiments", nargs="*", help="their names; all that have tables if none")
    new.add_argument("--results", default="results", help="the folder of results")
    new.add_argument("--configfile", nargs="*", default=[], help="as given to snakemake")
    redraw = commands.add_parser("draw", help="draw pictures and write the blocks of pages")
    redraw.add_argument("--all", action="store_true", help="also what is as it should be")
    given = parser.parse_args(arguments)
    try:
        if given.command == "collect":
            lines = collect(ROOT, given.results, given.experiments, given.configfile)
        else:
            lines = write_pages(ROOT, given.all)
        for line in lines:
            print(line)
        if given.command == "draw":
            left = drift(ROOT)
            if left:
                raise StiffnessError("\n".join(left))
    except StiffnessError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
