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
    wildcard_constraints:
        segment=r"epochs=\d+-\d+",
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


# Checkpoints that were made elsewhere, in the place of a training.
rule imported:
    input:
        arrays=needs.arrays,
        files=refusing(needs.imported("path")),
        own=needs.own_code("model", "loss"),
        library=library("imported"),
    output:
        checkpoints=directory(paths.CHECKPOINTS),
        state=paths.STATE,
        history=paths.HISTORY,
    log:
        paths.log("imported", paths.OF_RUN),
    wildcard_constraints:
        segment="imported",
    conda:
        ENVIRONMENT
    threads: needs.training_threads
    resources:
        **ON_DEVICE,
        **requested(needs.training_request),
    params:
        **{key: setting(key) for key in ("model", "loss", "batch_size", "history_examples")},
        points=needs.imported("point"),
        pretrained=needs.pretrained,
    message:
        "Importing the checkpoints of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}"
    script:
        "../scripts/imported.py"
