"""Gradient cosines and distances by layer, at a segment's checkpoints or its stages."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.gradients.layer_gradients import measure_layers
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.losses import LossSpec, build_loss
from stiffness.training.models import ModelSpec
from stiffness.training.stages import stage_steps

if __name__ == "__main__":
    with job(snakemake):
        params, resources = snakemake.params, snakemake.resources
        measure_layers(
            checkpoints=Path(snakemake.input.state).parent,
            evaluation=Evaluation.load(snakemake.input.evaluation),
            model_spec=ModelSpec(**params.model),
            output=snakemake.output.layers,
            device=choose_device(resources.device, resources.jobs_per_gpu),
            memory_budget=resources.memory_budget,
            arithmetic=snakemake.wildcards.arithmetic,
            steps=stage_steps(snakemake.input.histories, params.epochs, params.stages)
            if params.stages
            else None,
            data_dir=resources.data_dir,
            loss=build_loss(LossSpec(**params.loss)),
        )
