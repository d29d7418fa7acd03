"""Tidy stiffness tables of one segment."""

from stiffness.data.evaluation import Evaluation
from stiffness.data.hierarchy import read_hierarchy
from stiffness.files import write_table, write_tensors
from stiffness.jobs.job import job
from stiffness.measures.tables import measure_segment


def main(
    cosines: list[str],
    evaluation: str,
    hierarchy: str | None,
    distance_bins: int,
    bootstrap: dict[str, int],
    layers: list[str],
    representations: str | None,
    replicates: str,
    outputs: dict[str, str],
) -> None:
    measured = measure_segment(
        cosines,
        Evaluation.load(evaluation),
        distance_bins,
        bootstrap["resamples"],
        bootstrap["seed"],
        read_hierarchy(hierarchy) if hierarchy else None,
        layers,
        representations,
    )
    for name, path in outputs.items():
        write_table(path, measured.tables[name])
    write_tensors(replicates, measured.replicates, {})


if __name__ == "__main__":
    with job(snakemake):
        outputs = dict(snakemake.output.items())
        main(
            cosines=list(snakemake.input.cosines),
            evaluation=snakemake.input.evaluation,
            hierarchy=next(iter(snakemake.input.hierarchy), None),
            distance_bins=snakemake.params.distance_bins,
            bootstrap=snakemake.params.bootstrap,
            layers=snakemake.params.layers,
            representations=next(iter(snakemake.input.representations), None),
            replicates=outputs.pop("replicates"),
            outputs=outputs,
        )
