"""Draw losses and stiffness against epoch (figure 3)."""

from stiffness.figures.training_curves import draw
from stiffness.files import read_table
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            summary=read_table(snakemake.input.summary),
            learning_rate=snakemake.params.learning_rate,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
