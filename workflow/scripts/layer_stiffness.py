"""Tidy tables of stiffness by layer, of one segment."""

from stiffness.data.evaluation import Evaluation
from stiffness.files import write_table
from stiffness.jobs.job import job
from stiffness.measures.layers import layer_tables

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        tables = layer_tables(
            snakemake.input.layers,
            Evaluation.load(snakemake.input.evaluation),
            params.distance_bins,
            params.bootstrap["resamples"],
            params.bootstrap["seed"],
        )
        for name, path in snakemake.output.items():
            write_table(path, tables[name])
