"""What layers make of the evaluation subset, at every checkpoint of a segment."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.gradients.representations import represent_segment
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.models import ModelSpec

if __name__ == "__main__":
    with job(snakemake):
        params, resources = snakemake.params, snakemake.resources
        represent_segment(
            Path(snakemake.input.state).parent,
            Evaluation.load(snakemake.input.evaluation),
            ModelSpec(**params.model),
            params.layers,
            snakemake.output.vectors,
            choose_device(resources.device, resources.jobs_per_gpu),
            resources.data_dir,
        )
