"""Read a data set's raw files and write its arrays."""

from stiffness.data.sources import load
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        options = dict(snakemake.params.dataset)
        arrays = load(options.pop("source"), options, snakemake.resources.data_dir)
        arrays.save(snakemake.output.arrays)
