"""One tidy table of each kind for an experiment."""

from stiffness.files import write_table
from stiffness.jobs.job import job
from stiffness.training.runs import collect_tables


def main(
    experiment: str,
    epochs: int,
    segments: list[list[str]],
    histories: list[str],
    parts: dict[str, list[str]],
    outputs: dict[str, str],
) -> None:
    """``segments`` holds (learning rate, seed, segment) for each of the files in the lists."""
    runs = list(dict.fromkeys((lr, seed) for lr, seed, _ in segments))

    def by_run(files: list[str]) -> list[list[str]]:
        named = list(zip(segments, files, strict=True))
        return [[file for (lr, seed, _), file in named if (lr, seed) == run] for run in runs]

    grouped = {name: by_run(files) for name, files in parts.items()}
    tables = collect_tables(experiment, epochs, runs, by_run(histories), grouped)
    for name, path in outputs.items():
        write_table(path, tables[name])


if __name__ == "__main__":
    with job(snakemake):
        inputs, outputs = dict(snakemake.input.items()), dict(snakemake.output.items())
        main(
            experiment=snakemake.wildcards.experiment,
            epochs=snakemake.params.epochs,
            segments=snakemake.params.runs,
            histories=list(inputs["histories"]),
            parts={name: list(inputs[name]) for name in outputs if name in inputs},
            outputs=outputs,
        )
