"""Draw the critical length of all learning rates (figure 12)."""

from stiffness.figures.critical_length import draw
from stiffness.files import read_table
from stiffness.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            critical_length=read_table(snakemake.input.critical_length),
            learning_rates=snakemake.params.learning_rates,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
