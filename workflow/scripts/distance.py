"""Draw stiffness against distance at four stages (figure 11)."""

from stiffness.figures.distance import draw
from stiffness.files import read_table
from stiffness.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            distance=read_table(snakemake.input.distance),
            critical_length=read_table(snakemake.input.critical_length),
            learning_rate=snakemake.params.learning_rate,
            stages=snakemake.params.stages,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
