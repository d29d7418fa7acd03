"""How many loss gradients of the evaluation subset float32 gets wrong, checkpoint by checkpoint."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.files import write_table
from stiffness.gradients.rounding import measure_rounding
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.losses import LossSpec, build_loss
from stiffness.training.models import ModelSpec

if __name__ == "__main__":
    with job(snakemake):
        resources = snakemake.resources
        table = measure_rounding(
            checkpoints=Path(snakemake.input.state).parent,
            evaluation=Evaluation.load(snakemake.input.evaluation),
            model_spec=ModelSpec(**snakemake.params.model),
            device=choose_device(resources.device, resources.jobs_per_gpu),
            data_dir=resources.data_dir,
            loss=build_loss(LossSpec(**snakemake.params.loss)),
        )
        write_table(snakemake.output.table, table)
