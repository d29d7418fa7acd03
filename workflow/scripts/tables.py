"""One tidy table of each kind for an experiment."""

from pathlib import Path

from stiffness.files import write_table
from stiffness.job import job
from stiffness.stiffness.runs import collect


def main(
    experiment: str,
    epochs: int,
    segments: list[list[str]],
    checkpoints: list[str],
    parts: dict[str, list[str]],
    outputs: dict[str, str],
) -> None:
    """``segments`` holds (learning rate, seed, segment) for each of the files in the lists."""
    runs = list(dict.fromkeys((lr, seed) for lr, seed, _ in segments))

    def by_run(files: list[str]) -> list[list[str]]:
        named = list(zip(segments, files, strict=True))
        return [[file for (lr, seed, _), file in named if (lr, seed) == run] for run in runs]

    histories = [str(Path(folder) / "history.parquet") for folder in checkpoints]
    grouped = {name: by_run(files) for name, files in parts.items()}
    tables = collect(experiment, epochs, runs, by_run(histories), grouped)
    for name, path in outputs.items():
        write_table(path, tables[name])


if __name__ == "__main__":
    with job(snakemake):
        outputs = dict(snakemake.output.items())
        main(
            experiment=snakemake.wildcards.experiment,
            epochs=snakemake.params.epochs,
            segments=snakemake.params.runs,
            checkpoints=list(snakemake.input.checkpoints),
            parts={
                name: list(snakemake.input[name]) for name in outputs if name in snakemake.input
            },
            outputs=outputs,
        )
