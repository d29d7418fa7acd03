"""Judge the paper's claims on everything that has been run."""

import os
from pathlib import Path

from stiffness.figures.claims import draw
from stiffness.files import write_csv, write_text
from stiffness.job import job
from stiffness.report.evidence import Evidence
from stiffness.report.verdicts import judge, page, table


def pictures(experiment: str, folder: Path) -> dict[str, str]:
    """Paths, relative to the page, of the experiment's pictures by kind."""
    found = sorted((folder / experiment / "figures").glob("*.png"))
    return {path.stem: os.path.relpath(path, folder) for path in found}


if __name__ == "__main__":
    with job(snakemake):
        evidence = [
            Evidence(
                name,
                entry["settings"],
                [(lr, seed, segment) for lr, seed, segment in entry["segments"]],
                entry["source"],
                entry["has_hierarchy"],
            )
            for name, entry in snakemake.params.experiments.items()
        ]
        judged = judge(evidence, snakemake.params.paper)
        rows = table(judged)
        output = snakemake.output
        results = Path(output.page).parent
        figures = {one.name: pictures(one.name, results) for one in evidence}
        write_csv(output.csv, rows)
        write_text(output.page, page(judged, figures))
        texts = {one.claim.name: one.claim.text for one in judged}
        draw(rows, texts, snakemake.params.options, [output.pdf, output.png])
