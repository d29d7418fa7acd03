"""Draw the class stiffness matrix at one stage or several (figures 6, 7, S3 to S6)."""

from stiffness.figures.class_matrix import draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.stages import read_matrices, reference_stages

if __name__ == "__main__":
    with job(snakemake):
        runs, history = read_table(snakemake.input.runs), read_table(snakemake.input.history)
        rate, stages = snakemake.params.learning_rate, snakemake.params.stages
        options = snakemake.params.options
        draw(
            runs=runs,
            history=history,
            classes=read_matrices(
                snakemake.input.classes,
                snakemake.params.seeds,
                reference_stages(runs, history, rate, stages),
                [options["metric"]],
                [options["pair_mode"]],
            ),
            learning_rate=rate,
            stages=stages,
            options=options,
            outputs=list(snakemake.output),
        )
