"""Learning rates at equal epoch and equal training loss, and early stopping."""

from stiffness.files import read_table, write_table
from stiffness.jobs.job import job
from stiffness.measures.comparison import compare
from stiffness.measures.distance import ESTIMATORS
from stiffness.measures.pairs import METRICS, PAIR_MODES
from stiffness.measures.replicates import Replicates
from stiffness.measures.stopping import stopping_table


def main(
    replicates: Replicates, quantities: list[str], layer: str, seed: int, outputs: dict[str, str]
) -> None:
    compared = {
        (quantity, mode, metric): replicates.stiffness(quantity, mode, metric)
        for quantity in quantities
        for mode in PAIR_MODES
        for metric in METRICS
    }
    for estimator in ESTIMATORS:
        for mode in PAIR_MODES:
            for metric in METRICS:
                lengths = replicates.critical_lengths(estimator, layer, mode, metric)
                compared[f"xi {estimator}", mode, metric] = lengths
    levels, order = compare(compared, seed)
    watched = {
        f"{metric} stiffness": compared["within", "train-train", metric] for metric in METRICS
    }
    tables = {
        "levels": levels,
        "order": order,
        "stopping": stopping_table(watched, replicates.history),
    }
    for name, path in outputs.items():
        write_table(path, tables[name])


if __name__ == "__main__":
    with job(snakemake):
        summary = read_table(snakemake.input.summary)
        main(
            Replicates.from_files(
                [(lr, seed) for lr, seed, _ in snakemake.params.runs],
                list(snakemake.input.replicates),
                read_table(snakemake.input.history),
                summary,
            ),
            quantities=["within", "between"],
            layer=snakemake.params.layer,
            seed=snakemake.params.seed,
            outputs=dict(snakemake.output.items()),
        )
