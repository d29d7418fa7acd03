"""Gradient cosines to tidy tables: a segment at a time, then one set for an experiment."""

SEGMENT_TABLES = ("summary", "classes", "distance", "critical_length", "extremes")
LAYER_TABLES = ("summary", "distance", "critical_length")
EXPERIMENT_TABLES = ("runs", "history", "summary", "distance", "critical_length")
COMPARISON_TABLES = ("levels", "order", "stopping")


rule measures:
    input:
        # A folder has no checksum; the digests say whether what is in it has changed.
        cosines=ancient(gradients_parts("cosines")),
        digests=gradients_parts("digests.json"),
        evaluation=evaluation_path,
        hierarchy=hierarchy_path,
        representations=representations_path,
        library=library("measures"),
    output:
        **{
            name: f"{RUN}/measures/{{precision}}/{{segment}}/{name}.parquet"
            for name in SEGMENT_TABLES
        },
        replicates=f"{RUN}/measures/{{precision}}/{{segment}}/replicates.safetensors",
    log:
        "results/logs/measures/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.log",
    benchmark:
        "results/benchmarks/measures/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.tsv"
    # Before more gradients are computed: their files may go once the tables exist.
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=stiffness_needs("mem_mb"),
        runtime=stiffness_needs("runtime"),
    params:
        distance_bins=setting("distance_bins"),
        bootstrap=setting("bootstrap"),
        layers=setting("distance_layers"),
    message:
        "Stiffness of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/measures.py"


rule layer_stiffness:
    input:
        layers=rules.layer_gradients.output.layers,
        evaluation=evaluation_path,
        library=library("layer_stiffness"),
    output:
        **{
            name: f"{RUN}/layer_stiffness/{{precision}}/{{segment}}/{name}.parquet"
            for name in LAYER_TABLES
        },
    log:
        "results/logs/layer_stiffness/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.log",
    benchmark:
        "results/benchmarks/layer_stiffness/{experiment}/lr={lr}/seed={seed}/{precision}/{segment}.tsv"
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        mem_mb=lambda wildcards, attempt: 12000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        distance_bins=setting("distance_bins"),
        bootstrap=setting("bootstrap"),
    message:
        "Stiffness by layer of {wildcards.experiment}, learning rate {wildcards.lr}, seed {wildcards.seed}, {wildcards.segment}"
    script:
        "../scripts/layer_stiffness.py"


rule tables:
    input:
        **{
            name: experiment_parts(f"{RUN}/measures/{{precision}}/{{segment}}/{name}.parquet")
            for name in SEGMENT_TABLES
            if name in EXPERIMENT_TABLES
        },
        histories=experiment_parts(f"{RUN}/checkpoints/{{segment}}/history.parquet"),
        library=library("tables"),
    output:
        **{
            name: f"results/{{experiment}}/tables/{{precision}}/{name}.parquet"
            for name in EXPERIMENT_TABLES
        },
    log:
        "results/logs/tables/{experiment}/{precision}.log",
    benchmark:
        "results/benchmarks/tables/{experiment}/{precision}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        epochs=setting("epochs"),
        runs=lambda wildcards: [list(run) for run in run_segments(wildcards.experiment)],
    message:
        "Putting together the tables of {wildcards.experiment}"
    script:
        "../scripts/tables.py"


rule comparison:
    input:
        replicates=experiment_parts(
            f"{RUN}/measures/{{precision}}/{{segment}}/replicates.safetensors"
        ),
        history=rules.tables.output.history,
        summary=rules.tables.output.summary,
        library=library("comparison"),
    output:
        **{
            name: f"results/{{experiment}}/tables/{{precision}}/{name}.parquet"
            for name in COMPARISON_TABLES
        },
    log:
        "results/logs/comparison/{experiment}/{precision}.log",
    benchmark:
        "results/benchmarks/comparison/{experiment}/{precision}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        runs=lambda wildcards: [list(run) for run in run_segments(wildcards.experiment)],
        layer=first_layer,
        seed=setting("bootstrap", "seed"),
    message:
        "Comparing the learning rates of {wildcards.experiment}"
    script:
        "../scripts/comparison.py"


rule provenance:
    input:
        tables=table("summary"),
        library=library("provenance"),
    output:
        provenance="results/{experiment}/provenance.yaml",
    log:
        "results/logs/provenance/{experiment}.log",
    benchmark:
        "results/benchmarks/provenance/{experiment}.tsv"
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        runtime=5,
    params:
        configuration=whole_experiment,
        dataset=whole_dataset,
    message:
        "Writing down what the tables of {wildcards.experiment} were made with"
    script:
        "../scripts/provenance.py"
