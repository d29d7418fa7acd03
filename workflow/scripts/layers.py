"""Draw stiffness by layer (first version of the paper)."""

from stiffness.figures.layers import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import read_seed_tables

if __name__ == "__main__":
    with job(snakemake):
        params, inputs = snakemake.params, snakemake.input
        draw(
            runs=read_table(inputs.runs),
            history=read_table(inputs.history),
            summary=read_table(inputs.summary),
            by_layer={
                name: read_seed_tables(inputs[f"by_layer_{name}"], params.seeds)
                for name in ("summary", "distance", "critical_length")
            },
            learning_rate=params.learning_rate,
            stages=params.stages,
            options=params.options,
            outputs=list(snakemake.output),
        )
