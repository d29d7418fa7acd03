"""One tidy table of each kind for an experiment."""

from stiffness.files import write_table
from stiffness.jobs.job import job
from stiffness.training.runs import collect_tables

if __name__ == "__main__":
    with job(snakemake):
        inputs, params = snakemake.input, snakemake.params
        outputs = dict(snakemake.output.items())
        runs = [(lr, seed) for lr, seed, _ in params.runs]

        def by_run(files: list[str]) -> list[list[str]]:
            """The files of segments, those of each run together."""
            grouped: dict[tuple[str, int], list[str]] = {run: [] for run in runs}
            for run, file in zip(runs, files, strict=True):
                grouped[run].append(file)
            return list(grouped.values())

        tables = collect_tables(
            snakemake.wildcards.experiment,
            params.epochs,
            list(dict.fromkeys(runs)),
            by_run(inputs.histories),
            {name: by_run(files) for name, files in inputs.items() if name in outputs},
            snakemake.wildcards.arithmetic,
        )
        for name, path in outputs.items():
            write_table(path, tables[name])
