"""Draw the class stiffness matrix sorted by a hierarchy of classes (figure 8)."""

from stiffness.data.hierarchy import read_hierarchy
from stiffness.figures.hierarchy_matrix import draw
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
            hierarchy=read_hierarchy(snakemake.input.hierarchy[0]),
            learning_rate=rate,
            stages=stages,
            options=options,
            outputs=list(snakemake.output),
        )
