"""Checkpoints to gradient cosines and log-norms, and to layers' representations."""


rule gradients:
    input:
        state=paths.STATE,
        evaluation=needs.evaluation,
        own=needs.own_code("model", "loss"),
        library=library("gradients"),
    output:
        cosines=kept(directory(f"{paths.GRADIENTS}/cosines")),
        digests=f"{paths.GRADIENTS}/digests.json",
        performance=f"{paths.GRADIENTS}/performance.json",
    log:
        paths.log("gradients", paths.OF_ARITHMETIC),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **ON_DEVICE,
        **requested(needs.gradients_request),
    params:
        model=setting("model"),
        loss=setting("loss"),
    message:
        "Gradients of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/gradients.py"


# Of a pair of shards of the evaluation subset, where there are several.
use rule gradients as gradient_tile with:
    output:
        cosines=kept(directory(f"{paths.TILE}/cosines")),
        digests=f"{paths.TILE}/digests.json",
        performance=f"{paths.TILE}/performance.json",
    log:
        paths.log("gradient_tile", f"{paths.OF_ARITHMETIC}/{{tile}}"),
    params:
        model=setting("model"),
        loss=setting("loss"),
        shards=setting("evaluation", "shards"),
    message:
        "Gradients of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}, shards {wildcards.tile}"


rule representations:
    input:
        state=paths.STATE,
        evaluation=needs.evaluation,
        own=needs.own_code("model"),
        library=library("representations"),
    output:
        vectors=kept(directory(paths.REPRESENTATIONS)),
    log:
        paths.log("representations", paths.OF_RUN),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **ON_DEVICE,
        **more(mem_mb=8000, runtime=60),
    params:
        model=setting("model"),
        layers=needs.inner_layers,
    message:
        "Representations in {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/representations.py"


rule whole_set:
    input:
        state=paths.STATE,
        histories=needs.histories("evaluation", "all"),
        arrays=needs.arrays,
        own=needs.own_code("model", "loss"),
        library=library("whole_set"),
    output:
        table=paths.WHOLE_SET,
    log:
        paths.log("whole_set", paths.OF_RUN),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **ON_DEVICE,
        **more(mem_mb=12000, runtime=120),
    params:
        model=setting("model"),
        loss=setting("loss"),
        epochs=setting("epochs"),
        stages=needs.stages("evaluation", "all"),
    message:
        "Stiffness over the whole training set of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/whole_set.py"


rule layer_gradients:
    input:
        state=paths.STATE,
        histories=needs.histories("layer_stiffness"),
        evaluation=needs.evaluation,
        own=needs.own_code("model", "loss"),
        library=library("layer_gradients"),
    output:
        layers=kept(directory(paths.LAYER_GRADIENTS)),
    log:
        paths.log("layer_gradients", paths.OF_ARITHMETIC),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **ON_DEVICE,
        **more(mem_mb=12000, runtime=120),
    params:
        model=setting("model"),
        loss=setting("loss"),
        epochs=setting("epochs"),
        stages=needs.stages("layer_stiffness"),
    message:
        "Gradients by layer of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/layer_gradients.py"
