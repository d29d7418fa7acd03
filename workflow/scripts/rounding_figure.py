"""Draw stiffness with exact loss gradients beside plain float32."""

from stiffness.figures.rounding import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import concatenate_tables

if __name__ == "__main__":
    with job(snakemake):
        parts = zip(snakemake.input.rounding, snakemake.params.seeds, strict=True)
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            summaries={
                "exact": read_table(snakemake.input.exact),
                "plain": read_table(snakemake.input.plain),
            },
            rounding=concatenate_tables(
                [read_table(path).assign(seed=seed) for path, seed in parts]
            ),
            learning_rate=snakemake.params.learning_rate,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
