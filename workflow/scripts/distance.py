"""Draw stiffness against distance at four stages (figure 11)."""

from stiffness.figures.distance import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import select_layer

if __name__ == "__main__":
    with job(snakemake):
        layer = snakemake.params.layer
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            distance=select_layer(read_table(snakemake.input.distance), layer),
            critical_length=select_layer(read_table(snakemake.input.critical_length), layer),
            learning_rate=snakemake.params.learning_rate,
            stages=snakemake.params.stages,
            space=layer,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
