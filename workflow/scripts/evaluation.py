"""Draw the evaluation subset."""

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import draw_evaluation
from stiffness.jobs.job import job

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        arrays = Arrays.load(snakemake.input.arrays)
        subset = draw_evaluation(arrays, params.train, params.validation, params.seed)
        subset.save(snakemake.output.evaluation)
