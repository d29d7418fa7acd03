"""Gradient cosines and log-norms of every checkpoint of a segment, or a tile of them."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.data.shards import tile_block
from stiffness.gradients.measure import measure_segment
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.losses import LossSpec, build_loss
from stiffness.training.models import ModelSpec

if __name__ == "__main__":
    with job(snakemake):
        wildcards, params, resources = snakemake.wildcards, snakemake.params, snakemake.resources
        evaluation, tile = Evaluation.load(snakemake.input.evaluation), wildcards.get("tile")
        measure_segment(
            checkpoints=Path(snakemake.input.state).parent,
            evaluation=evaluation,
            model_spec=ModelSpec(**params.model),
            output=Path(snakemake.output.digests).parent,
            device=choose_device(resources.device, resources.jobs_per_gpu),
            memory_budget=resources.memory_budget,
            arithmetic=wildcards.arithmetic,
            data_dir=resources.data_dir,
            loss=build_loss(LossSpec(**params.loss)),
            tile=tile_block(tile, len(evaluation.targets), params.shards) if tile else None,
        )
