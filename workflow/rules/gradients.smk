"""Checkpoints to gradient cosines and log-norms, and to layers' representations."""


rule gradients:
    input:
        state=rules.training.output.state,
        evaluation=evaluation_path,
        library=library("gradients"),
    output:
        cosines=kept(directory(f"{RUN}/gradients/{{precision}}/{{segment}}/cosines")),
        digests=f"{RUN}/gradients/{{precision}}/{{segment}}/digests.json",
        performance=f"{RUN}/gradients/{{precision}}/{{segment}}/performance.json",
    log:
        "results/logs/gradients/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.log",
    benchmark:
        "results/benchmarks/gradients/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=gradients_needs("mem_mb"),
        runtime=gradients_needs("runtime"),
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        memory_budget=config["memory_budget"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
    message:
        "Gradients of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/gradients.py"


# The same of a pair of shards of the evaluation subset, where there are several.
rule gradient_tile:
    input:
        state=rules.training.output.state,
        evaluation=evaluation_path,
        library=library("gradients"),
    output:
        cosines=kept(directory(f"{TILE}/cosines")),
        digests=f"{TILE}/digests.json",
        performance=f"{TILE}/performance.json",
    log:
        "results/logs/gradient_tile/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}/{tile}.log",
    benchmark:
        "results/benchmarks/gradient_tile/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}/{tile}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=gradients_needs("mem_mb"),
        runtime=gradients_needs("runtime"),
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        memory_budget=config["memory_budget"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
        shards=setting("evaluation", "shards"),
    message:
        "Gradients of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}, shards {wildcards.tile}"
    script:
        "../scripts/gradients.py"


rule representations:
    input:
        state=rules.training.output.state,
        evaluation=evaluation_path,
        library=library("representations"),
    output:
        vectors=kept(directory(f"{RUN}/representations/{{segment}}")),
    log:
        "results/logs/representations/{experiment}/lr={lr}/seed={seed}/{segment}.log",
    benchmark:
        "results/benchmarks/representations/{experiment}/lr={lr}/seed={seed}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
        layers=inner_layers,
    message:
        "Representations in {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/representations.py"


rule whole_set:
    input:
        state=rules.training.output.state,
        histories=run_histories(whole_set_stages),
        arrays=arrays_path,
        library=library("whole_set"),
    output:
        table=f"{RUN}/whole_set/{{segment}}.parquet",
    log:
        "results/logs/whole_set/{experiment}/lr={lr}/seed={seed}/{segment}.log",
    benchmark:
        "results/benchmarks/whole_set/{experiment}/lr={lr}/seed={seed}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        memory_budget=config["memory_budget"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
        epochs=setting("epochs"),
        stages=whole_set_stages,
    message:
        "Stiffness over the whole training set of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/whole_set.py"


rule rounding:
    input:
        state=rules.training.output.state,
        evaluation=evaluation_path,
        library=library("rounding"),
    output:
        table=f"{RUN}/rounding/{{segment}}.parquet",
    log:
        "results/logs/rounding/{experiment}/lr={lr}/seed={seed}/{segment}.log",
    benchmark:
        "results/benchmarks/rounding/{experiment}/lr={lr}/seed={seed}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
    message:
        "Rounding errors of gradients of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/rounding.py"


rule layer_gradients:
    input:
        state=rules.training.output.state,
        histories=run_histories(layer_stages),
        evaluation=evaluation_path,
        library=library("layer_gradients"),
    output:
        layers=kept(directory(f"{RUN}/layer_gradients/{{precision}}/{{segment}}")),
    log:
        "results/logs/layer_gradients/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.log",
    benchmark:
        "results/benchmarks/layer_gradients/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.tsv"
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 120 * attempt,
        gpu=GPU,
        device=config["device"],
        jobs_per_gpu=config["jobs_per_gpu"],
        memory_budget=config["memory_budget"],
        data_dir=config["data_dir"],
    params:
        model=setting("model"),
        epochs=setting("epochs"),
        stages=layer_stages,
    message:
        "Gradients by layer of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/layer_gradients.py"
