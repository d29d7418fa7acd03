"""Judge the paper's claims on everything that has been run."""

import os
from pathlib import Path

from stiffness.figures.claims import draw
from stiffness.figures.style import extent, use_looks
from stiffness.files import write_csv, write_text
from stiffness.jobs.job import job
from stiffness.report.evidence import Evidence
from stiffness.report.verdicts import claims_page, claims_table, judge

if __name__ == "__main__":
    with job(snakemake):
        use_looks()
        params, output = snakemake.params, snakemake.output
        keys = ("settings", "files", "source", "has_hierarchy")
        evidence = [
            Evidence(name, *(entry[key] for key in keys))
            for name, entry in params.experiments.items()
        ]
        judged = judge(evidence, params.paper, studies=params.studies)
        rows = claims_table(judged)
        folder = Path(output.page).parent
        links = {
            name: {kind: os.path.relpath(path, folder) for kind, path in entry["pictures"].items()}
            for name, entry in params.experiments.items()
        }
        write_csv(output.csv, rows)
        write_text(output.page, claims_page(judged, links))
        texts = {one.claim.name: one.claim.text for one in judged}
        extents = {one.name: extent(one.runs) for one in evidence}
        draw(rows, texts, extents, params.options, [output.pdf, output.png])
