"""Draw stiffness against epoch for all learning rates (figure 5)."""

from stiffness.figures.stiffness_curves import draw
from stiffness.files import read_table
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            summary=read_table(snakemake.input.summary),
            learning_rates=snakemake.params.learning_rates,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
