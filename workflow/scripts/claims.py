"""Judge the paper's claims on everything that has been run."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stiffness.figures.claims import draw
from stiffness.files import write_csv, write_text
from stiffness.jobs.job import job
from stiffness.report.evidence import Evidence
from stiffness.report.verdicts import claims_page, claims_table, judge


def relative(pictures: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Return paths by kind as the page in ``folder`` links to them."""
    return {kind: os.path.relpath(path, folder) for kind, path in pictures.items()}


def evidence_files(name: str, entry: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """Name the files that an experiment offers to the claims, as ``Evidence`` takes them."""
    settings, folder = entry["settings"], results / name

    def existing(pattern: str) -> list[tuple[str, int, Path]]:
        paths = [
            (lr, seed, folder / f"lr={lr}/seed={seed}" / pattern.format(segment=segment))
            for lr, seed, segment in entry["segments"]
        ]
        return [(lr, seed, path) for lr, seed, path in paths if path.exists()]

    arrays = results / "data" / settings["dataset"] / "arrays.safetensors"
    patterns = {
        "classes": "measures/exact/{segment}/classes.parquet",
        "whole_set": "whole_set/{segment}.parquet",
    }
    patterns |= {
        f"replicates/{precision}": f"measures/{precision}/{{segment}}/replicates.safetensors"
        for precision in settings["precisions"]
    }
    patterns |= {
        f"layer_stiffness/{table}": f"layer_stiffness/exact/{{segment}}/{table}.parquet"
        for table in ("summary", "distance", "critical_length")
    }
    return {
        "tables": {
            precision: {path.stem: path for path in folder.glob(f"tables/{precision}/*.parquet")}
            for precision in settings["precisions"]
        },
        "parts": {part: existing(pattern) for part, pattern in patterns.items()},
        "arrays": arrays if arrays.exists() else None,
    }


if __name__ == "__main__":
    with job(snakemake):
        output = snakemake.output
        results = Path(output.page).parent
        evidence = [
            Evidence(
                name,
                entry["settings"],
                entry["files"] if "files" in entry else evidence_files(name, entry, results),
                entry["source"],
                entry["has_hierarchy"],
            )
            for name, entry in snakemake.params.experiments.items()
        ]
        judged = judge(evidence, snakemake.params.paper, studies=snakemake.params.studies)
        rows = claims_table(judged)
        figures = {
            name: relative(entry["pictures"], results)
            for name, entry in snakemake.params.experiments.items()
        }
        write_csv(output.csv, rows)
        write_text(output.page, claims_page(judged, figures))
        texts = {one.claim.name: one.claim.text for one in judged}
        draw(rows, texts, snakemake.params.options, [output.pdf, output.png])
