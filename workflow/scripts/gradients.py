"""Gradient cosines and log-norms of every checkpoint of a segment, or a tile of them."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.data.shards import tile_block
from stiffness.gradients.measure import measure_segment
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.models import ModelSpec


def main(
    checkpoints: str,
    evaluation: str,
    model: dict,
    device: str,
    jobs_per_gpu: int,
    memory_budget: str,
    precision: str,
    label: str,
    data_dir: str,
    output: str,
    tile: str | None,
    shards: int,
) -> None:
    subset = Evaluation.load(evaluation)
    measure_segment(
        checkpoints,
        subset,
        ModelSpec(**model),
        output,
        choose_device(device, jobs_per_gpu),
        memory_budget,
        precision,
        label,
        data_dir,
        tile_block(tile, len(subset.targets), shards) if tile else None,
    )


if __name__ == "__main__":
    with job(snakemake):
        wildcards = snakemake.wildcards
        main(
            checkpoints=str(Path(snakemake.input.state).parent),
            evaluation=snakemake.input.evaluation,
            model=snakemake.params.model,
            device=snakemake.resources.device,
            jobs_per_gpu=snakemake.resources.jobs_per_gpu,
            memory_budget=snakemake.resources.memory_budget,
            precision=wildcards.precision,
            label=f"{wildcards.experiment} lr={wildcards.lr} seed={wildcards.seed}",
            data_dir=snakemake.resources.data_dir,
            output=str(Path(snakemake.output.digests).parent),
            tile=wildcards.get("tile"),
            shards=snakemake.params.get("shards", 1),
        )
