"""Tidy stiffness tables of one segment."""

from stiffness.data.evaluation import Evaluation
from stiffness.data.hierarchy import read_hierarchy
from stiffness.files import write_table
from stiffness.job import job
from stiffness.stiffness.tables import segment_tables


def main(
    cosines: str,
    evaluation: str,
    hierarchy: str | None,
    distance_bins: int,
    layers: list[str],
    representations: str | None,
    outputs: dict[str, str],
) -> None:
    tables = segment_tables(
        cosines,
        Evaluation.load(evaluation),
        distance_bins,
        read_hierarchy(hierarchy) if hierarchy else None,
        layers,
        representations,
    )
    for name, path in outputs.items():
        write_table(path, tables[name])


if __name__ == "__main__":
    with job(snakemake):
        main(
            cosines=snakemake.input.cosines,
            evaluation=snakemake.input.evaluation,
            hierarchy=next(iter(snakemake.input.hierarchy), None),
            distance_bins=snakemake.params.distance_bins,
            layers=snakemake.params.layers,
            representations=next(iter(snakemake.input.representations), None),
            outputs=dict(snakemake.output.items()),
        )
