"""Read a data set's raw files and write its arrays."""

from stiffness.data.sources import load
from stiffness.jobs.job import job


def main(dataset: dict, data_dir: str, output: str) -> None:
    source = dataset["source"]
    options = {key: value for key, value in dataset.items() if key != "source"}
    load(source, options, data_dir).save(output)


if __name__ == "__main__":
    with job(snakemake):
        main(
            dataset=snakemake.params.dataset,
            data_dir=snakemake.resources.data_dir,
            output=snakemake.output.arrays,
        )
