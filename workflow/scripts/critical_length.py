"""Draw the critical length of all learning rates (figure 12)."""

from stiffness.figures.critical_length import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import select_layer, select_line_fit

if __name__ == "__main__":
    with job(snakemake):
        layer = snakemake.params.layer
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            critical_length=select_line_fit(
                select_layer(read_table(snakemake.input.critical_length), layer)
            ),
            learning_rates=snakemake.params.learning_rates,
            space=layer,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
