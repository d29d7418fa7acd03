"""Draw critical lengths at equal loss across experiments, and write down the numbers."""

from stiffness.figures.critical_lengths import draw, numbers
from stiffness.files import read_table, write_csv
from stiffness.jobs.job import job
from stiffness.training.runs import concatenate_tables, select_layer

if __name__ == "__main__":
    with job(snakemake):
        layer, options = snakemake.params.layer, snakemake.params.options
        tables = {
            name: concatenate_tables([read_table(file) for file in files])
            for name, files in snakemake.input.items()
            if name in ("runs", "history", "summary", "critical_length")
        }
        tables["critical_length"] = select_layer(tables["critical_length"], layer)
        runs = tables.pop("runs")
        write_csv(snakemake.output.csv, numbers(**tables, options=options))
        draw(
            snakemake.params.experiments,
            runs,
            **tables,
            space=layer,
            options=options,
            outputs=[snakemake.output.pdf, snakemake.output.png],
        )
