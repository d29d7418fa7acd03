"""Cosine class stiffness of the whole training set, at a segment's checkpoints or its stages."""

from pathlib import Path

from stiffness.data.arrays import Arrays
from stiffness.files import write_table
from stiffness.gradients.whole_set import measure_whole_set
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.losses import LossSpec, build_loss
from stiffness.training.models import ModelSpec
from stiffness.training.stages import stage_steps

if __name__ == "__main__":
    with job(snakemake):
        params, resources = snakemake.params, snakemake.resources
        table = measure_whole_set(
            checkpoints=Path(snakemake.input.state).parent,
            arrays=Arrays.load(snakemake.input.arrays),
            model_spec=ModelSpec(**params.model),
            device=choose_device(resources.device, resources.jobs_per_gpu),
            memory_budget=resources.memory_budget,
            steps=stage_steps(snakemake.input.histories, params.epochs, params.stages)
            if params.stages
            else None,
            data_dir=resources.data_dir,
            loss=build_loss(LossSpec(**params.loss)),
        )
        write_table(snakemake.output.table, table)
