"""Draw stiffness and xi against the learning rate at equal epoch and equal loss."""

from stiffness.figures.equal_loss import draw
from stiffness.files import read_table
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            levels=read_table(snakemake.input.levels),
            order=read_table(snakemake.input.order),
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
