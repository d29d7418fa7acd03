"""One zip of all results but weights and gradients."""

from pathlib import Path

from stiffness.jobs.job import job
from stiffness.report.archive import write_archive

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        folder = Path(params.archive).parent
        write_archive(params.archive, folder, params.configuration, params.checkpoints)
