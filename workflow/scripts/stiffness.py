"""Tidy stiffness tables of one segment."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.files import write_table
from stiffness.job import job
from stiffness.stiffness.tables import segment_tables


def main(gradients: str, evaluation: str, distance_bins: int, outputs: dict[str, str]) -> None:
    tables = segment_tables(gradients, Evaluation.load(evaluation), distance_bins)
    for name, path in outputs.items():
        write_table(path, tables[name])


if __name__ == "__main__":
    with job(snakemake):
        main(
            gradients=str(Path(snakemake.input.digests).parent),
            evaluation=snakemake.input.evaluation,
            distance_bins=snakemake.params.distance_bins,
            outputs=dict(snakemake.output.items()),
        )
