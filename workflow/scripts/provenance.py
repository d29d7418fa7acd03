"""What an experiment's tables were made with."""

from stiffness.jobs.job import job
from stiffness.jobs.provenance import summarise, write_summary

if __name__ == "__main__":
    with job(snakemake):
        summary = summarise(
            snakemake.wildcards.experiment,
            snakemake.params.configuration,
            snakemake.params.dataset,
            [snakemake.input.tables],
        )
        write_summary(snakemake.output.provenance, summary)
