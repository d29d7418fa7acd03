"""Draw the subset's stiffness against the whole training set's (section 3.2)."""

from stiffness.figures.whole_set import METRIC, PAIR_MODE, draw
from stiffness.files import read_table
from stiffness.jobs.job import job
from stiffness.training.runs import read_seed_tables
from stiffness.training.stages import read_matrices, reference_stages

if __name__ == "__main__":
    with job(snakemake):
        runs, history = read_table(snakemake.input.runs), read_table(snakemake.input.history)
        rate, stages = snakemake.params.learning_rate, snakemake.params.stages
        seeds = snakemake.params.seeds
        draw(
            runs=runs,
            history=history,
            summary=read_table(snakemake.input.summary),
            classes=read_matrices(
                snakemake.input.classes,
                seeds,
                reference_stages(runs, history, rate, stages),
                [METRIC],
                [PAIR_MODE],
            ),
            whole_set=read_seed_tables(snakemake.input.whole_set, seeds),
            learning_rate=rate,
            stages=stages,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
