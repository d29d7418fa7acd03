"""Draw the stiffest and the least stiff examples and pairs of each class."""

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import Evaluation
from stiffness.figures.contact_sheet import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import read_seed_tables

if __name__ == "__main__":
    with job(snakemake):
        params, inputs = snakemake.params, snakemake.input
        draw(
            runs=read_table(inputs.runs),
            history=read_table(inputs.history),
            extremes=read_seed_tables(inputs.extremes, params.seeds),
            images=Evaluation.load(inputs.evaluation).raw_images(Arrays.load(inputs.arrays)),
            learning_rate=params.learning_rate,
            stages=params.stages,
            options=params.options,
            outputs=list(snakemake.output),
        )
