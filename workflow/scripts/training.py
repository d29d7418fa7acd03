"""Train one segment of a run."""

import re
from pathlib import Path

from stiffness.data.arrays import Arrays
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.models import ModelSpec
from stiffness.training.train import OptimizerSpec, TrainingSpec, train_segment


def main(
    arrays: str,
    previous: str | None,
    spec: TrainingSpec,
    segment: str,
    device: str,
    jobs_per_gpu: int,
    data_dir: str,
    output: str,
) -> None:
    start, end = map(int, re.findall(r"\d+", segment))
    train_segment(
        Arrays.load(arrays),
        spec,
        start,
        end,
        previous,
        output,
        choose_device(device, jobs_per_gpu),
        data_dir,
    )


if __name__ == "__main__":
    with job(snakemake):
        wildcards, settings = snakemake.wildcards, dict(snakemake.params.items())
        del settings["pretrained"]  # there to rerun the job when the folder changes
        settings["model"] = ModelSpec(**settings["model"])
        settings["optimizer"] = OptimizerSpec(**settings["optimizer"])
        main(
            arrays=snakemake.input.arrays,
            previous=next((str(Path(file).parent) for file in snakemake.input.previous), None),
            spec=TrainingSpec(learning_rate=wildcards.lr, seed=int(wildcards.seed), **settings),
            segment=wildcards.segment,
            device=snakemake.resources.device,
            jobs_per_gpu=snakemake.resources.jobs_per_gpu,
            data_dir=snakemake.resources.data_dir,
            output=snakemake.output.checkpoints,
        )
