"""Arrays to checkpoints: a training is a chain of segments, each going on from the one before."""

TRAINING_KEYS = (
    "model",
    "batch_size",
    "early_checkpoints",
    "checkpoint_interval",
    "augmentation",
    "optimizer",
    "mixed_precision",
    "history_examples",
)


def threads_of_training(wildcards):
    """As many as the machine has for each run of the experiment."""
    entry = EXPERIMENTS[wildcards.experiment]
    here = workflow.local_exec and not workflow.remote_exec
    cores = workflow.resource_settings.cores if here else None
    return training_threads(cores, len(entry["learning_rates"]) * len(entry["seeds"]), bool(GPU))


rule training:
    input:
        arrays=arrays_path,
        previous=previous_segment,
        library=library("training"),
    output:
        checkpoints=directory(f"{RUN}/checkpoints/{{segment}}"),
        state=f"{RUN}/checkpoints/{{segment}}/state.safetensors",
        history=f"{RUN}/checkpoints/{{segment}}/history.parquet",
    log:
        "results/logs/training/{experiment}/lr={lr}/seed={seed}/{segment}.log",
    benchmark:
        "results/benchmarks/training/{experiment}/lr={lr}/seed={seed}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: threads_of_training
    resources:
        mem_mb=training_needs("mem_mb"),
        runtime=training_needs("runtime"),
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        data_dir=config["data_dir"],
    params:
        **{key: setting(key) for key in TRAINING_KEYS},
        pretrained=pretrained_fingerprint,
    message:
        "Training {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/training.py"
