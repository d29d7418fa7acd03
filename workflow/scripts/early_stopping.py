"""Draw where stiffness and the validation loss would stop training."""

from stiffness.figures.early_stopping import draw
from stiffness.files import read_table
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            stopping=read_table(snakemake.input.stopping),
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
