"""Draw class stiffness matrices by stage, pair mode and metric (figure 4)."""

from stiffness.figures.class_matrices import draw
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
                options["metrics"],
                options["pair_modes"],
            ),
            learning_rate=rate,
            stages=stages,
            options=options,
            outputs=list(snakemake.output),
        )
