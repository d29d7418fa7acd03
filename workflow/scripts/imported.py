"""Take over the checkpoints of a training that was done elsewhere."""

from stiffness.data.arrays import Arrays
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.imported import import_checkpoints
from stiffness.training.losses import LossSpec
from stiffness.training.models import ModelSpec
from stiffness.training.specs import TrainingSpec

if __name__ == "__main__":
    with job(snakemake):
        wildcards, params, resources = snakemake.wildcards, snakemake.params, snakemake.resources
        import_checkpoints(
            Arrays.load(snakemake.input.arrays),
            TrainingSpec(
                model=ModelSpec(**params.model),
                loss=LossSpec(**params.loss),
                learning_rate=wildcards.lr,
                seed=int(wildcards.seed),
                batch_size=params.batch_size,
                history_examples=params.history_examples,
                early_checkpoints=0,
            ),
            snakemake.input.files,
            params.points,
            snakemake.output.checkpoints,
            choose_device(resources.device, resources.jobs_per_gpu),
            resources.data_dir,
        )
