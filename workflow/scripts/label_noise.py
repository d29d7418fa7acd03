"""Draw stiffness under wrong training labels, and write down its numbers."""

from stiffness.figures.label_noise import draw, numbers
from stiffness.files import read_table, write_csv
from stiffness.jobs.job import job
from stiffness.measures.studies import rows_of_columns, stiffness_gaps
from stiffness.training.runs import concatenate_tables

if __name__ == "__main__":
    with job(snakemake):
        columns, options = snakemake.params.columns, snakemake.params.options
        tables = {
            name: rows_of_columns(concatenate_tables([read_table(file) for file in files]), columns)
            for name, files in snakemake.input.items()
            if name in ("runs", "history", "summary")
        }
        gaps = stiffness_gaps(
            tables["summary"],
            snakemake.input.replicates,
            snakemake.params.replicates_of,
            options["pair_mode"],
        )
        table = numbers(columns, **tables, gaps=gaps, options=options)
        write_csv(snakemake.output.csv, table)
        outputs = [snakemake.output.pdf, snakemake.output.png]
        draw(columns, **tables, options=options, outputs=outputs)
