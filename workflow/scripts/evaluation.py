"""Draw the evaluation subset."""

from stiffness.data.arrays import Arrays
from stiffness.data.evaluation import draw_evaluation
from stiffness.jobs.job import job


def main(arrays: str, train: int, validation: int, seed: int, output: str) -> None:
    draw_evaluation(Arrays.load(arrays), train, validation, seed).save(output)


if __name__ == "__main__":
    with job(snakemake):
        main(
            arrays=snakemake.input.arrays,
            train=snakemake.params.train,
            validation=snakemake.params.validation,
            seed=snakemake.params.seed,
            output=snakemake.output.evaluation,
        )
