"""Arrays to checkpoints: a training is a chain of segments, each going on from the one before."""

TRAINING_KEYS = (
    "model",
    "batch_size",
    "early_checkpoints",
    "checkpoint_interval",
    "augmentation",
    "optimizer",
    "mixed_precision",
    "training_arithmetic",
    "history_examples",
    "loss",
)


rule training:
    input:
        arrays=needs.arrays,
        previous=refusing(needs.previous),
        own=needs.own_code("model", "loss"),
        library=library("training"),
    output:
        checkpoints=directory(paths.CHECKPOINTS),
        state=paths.STATE,
        history=paths.HISTORY,
    log:
        paths.log("training", paths.OF_RUN),
    conda:
        ENVIRONMENT
    threads: needs.training_threads
    resources:
        **ON_DEVICE,
        **requested(needs.training_request),
    params:
        **{key: setting(key) for key in TRAINING_KEYS},
        pretrained=needs.pretrained,
    message:
        "Training {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/training.py"
