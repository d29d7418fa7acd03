"""What layers make of the evaluation subset, at every checkpoint of a segment."""

from pathlib import Path

from stiffness.data.evaluation import Evaluation
from stiffness.gradients.representations import represent_segment
from stiffness.jobs.gpus import choose_device
from stiffness.jobs.job import job
from stiffness.training.models import ModelSpec


def main(
    checkpoints: str,
    evaluation: str,
    model: dict,
    layers: list[str],
    device: str,
    jobs_per_gpu: int,
    data_dir: str,
    output: str,
) -> None:
    represent_segment(
        checkpoints,
        Evaluation.load(evaluation),
        ModelSpec(**model),
        layers,
        output,
        choose_device(device, jobs_per_gpu),
        data_dir,
    )


if __name__ == "__main__":
    with job(snakemake):
        main(
            checkpoints=str(Path(snakemake.input.state).parent),
            evaluation=snakemake.input.evaluation,
            model=snakemake.params.model,
            layers=snakemake.params.layers,
            device=snakemake.resources.device,
            jobs_per_gpu=snakemake.resources.jobs_per_gpu,
            data_dir=snakemake.resources.data_dir,
            output=snakemake.output.vectors,
        )
