"""Draw stiffness within classes and groups of classes against epoch (figure 9)."""

from stiffness.figures.hierarchy_curves import draw
from stiffness.files import read_table
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            summary=read_table(snakemake.input.summary),
            learning_rate=snakemake.params.learning_rate,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
