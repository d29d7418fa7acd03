"""Train one segment of a run."""

import re
from pathlib import Path

from stiffness.data.arrays import Arrays
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.losses import LossSpec
from stiffness.training.models import ModelSpec
from stiffness.training.specs import OptimizerSpec, TrainingSpec
from stiffness.training.train import train_segment

if __name__ == "__main__":
    with job(snakemake):
        wildcards, resources = snakemake.wildcards, snakemake.resources
        settings = dict(snakemake.params.items())
        del settings["pretrained"]  # there to rerun the job when the folder changes
        settings["model"] = ModelSpec(**settings["model"])
        settings["loss"] = LossSpec(**settings["loss"])
        settings["optimizer"] = OptimizerSpec(**settings["optimizer"])
        start, end = map(int, re.findall(r"\d+", wildcards.segment))
        train_segment(
            Arrays.load(snakemake.input.arrays),
            TrainingSpec(learning_rate=wildcards.lr, seed=int(wildcards.seed), **settings),
            start,
            end,
            next((Path(file).parent for file in snakemake.input.previous), None),
            snakemake.output.checkpoints,
            choose_device(resources.device, resources.jobs_per_gpu),
            resources.data_dir,
        )
