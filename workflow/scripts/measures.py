"""Tidy stiffness tables of one segment."""

from stiffness.data.evaluation import Evaluation
from stiffness.data.hierarchy import read_hierarchy
from stiffness.files import write_table, write_tensors
from stiffness.jobs.job import job
from stiffness.measures.tables import measure_segment

if __name__ == "__main__":
    with job(snakemake):
        inputs, params, outputs = snakemake.input, snakemake.params, dict(snakemake.output.items())
        measured = measure_segment(
            list(inputs.cosines),
            Evaluation.load(inputs.evaluation),
            params.distance_bins,
            params.bootstrap["resamples"],
            params.bootstrap["seed"],
            next(map(read_hierarchy, inputs.hierarchy), None),
            params.layers,
            next(iter(inputs.representations), None),
            snakemake.wildcards.arithmetic,
        )
        write_tensors(outputs.pop("replicates"), measured.replicates, {})
        for name, path in outputs.items():
            write_table(path, measured.tables[name])
