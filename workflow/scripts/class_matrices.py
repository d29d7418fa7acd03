"""Draw class stiffness matrices at four stages (figure 4)."""

import pandas as pd

from stiffness.figures.class_matrices import draw
from stiffness.files import read_table
from stiffness.job import job
from stiffness.stiffness.runs import concatenated


def read_classes(files: list[str], seeds: list[int]) -> pd.DataFrame:
    named = zip(files, seeds, strict=True)
    return concatenated([read_table(file).assign(seed=seed) for file, seed in named])


if __name__ == "__main__":
    with job(snakemake):
        draw(
            runs=read_table(snakemake.input.runs),
            history=read_table(snakemake.input.history),
            classes=read_classes(snakemake.input.classes, snakemake.params.seeds),
            learning_rate=snakemake.params.learning_rate,
            stages=snakemake.params.stages,
            options=snakemake.params.options,
            outputs=list(snakemake.output),
        )
