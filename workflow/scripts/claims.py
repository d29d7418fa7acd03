"""Judge the paper's claims on everything that has been run."""

import os
from collections.abc import Mapping
from pathlib import Path

from stiffness.figures.claims import draw
from stiffness.files import write_csv, write_text
from stiffness.jobs.job import job
from stiffness.report.evidence import Evidence
from stiffness.report.verdicts import judge, page, table


def relative(pictures: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Paths by kind as the page in ``folder`` links to them."""
    return {kind: os.path.relpath(path, folder) for kind, path in pictures.items()}


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
        judged = judge(evidence, snakemake.params.paper, studies=snakemake.params.studies)
        rows = table(judged)
        output = snakemake.output
        results = Path(output.page).parent
        figures = {
            name: relative(entry["pictures"], results)
            for name, entry in snakemake.params.experiments.items()
        }
        write_csv(output.csv, rows)
        write_text(output.page, page(judged, figures))
        texts = {one.claim.name: one.claim.text for one in judged}
        draw(rows, texts, snakemake.params.options, [output.pdf, output.png])
