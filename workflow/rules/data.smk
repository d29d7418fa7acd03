"""Raw data to arrays, and the subset that stiffness is measured on."""


rule arrays:
    input:
        library=library("arrays"),
    output:
        arrays="results/data/{dataset}/arrays.safetensors",
    log:
        "results/logs/arrays/{dataset}.log",
    benchmark:
        "results/benchmarks/arrays/{dataset}.tsv"
    # Light, and on a cluster the nodes that jobs run on often have no network to download from.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=60,
        data_dir=config["data_dir"],
    params:
        dataset=dataset_options,
        raw=raw_fingerprint,
    message:
        "Reading the raw data of {wildcards.dataset}"
    script:
        "../scripts/arrays.py"


rule evaluation:
    input:
        arrays=rules.arrays.output.arrays,
        library=library("evaluation"),
    output:
        evaluation="results/data/{dataset}/evaluation/train={train}_validation={validation}_seed={subset_seed}.safetensors",
    log:
        "results/logs/evaluation/{dataset}/train={train}_validation={validation}_seed={subset_seed}.log",
    benchmark:
        "results/benchmarks/evaluation/{dataset}/train={train}_validation={validation}_seed={subset_seed}.tsv"
    wildcard_constraints:
        train=r"\d+",
        validation=r"\d+",
        subset_seed=r"\d+",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        train=lambda wildcards: int(wildcards.train),
        validation=lambda wildcards: int(wildcards.validation),
        seed=lambda wildcards: int(wildcards.subset_seed),
    message:
        "Drawing {wildcards.train} + {wildcards.validation} evaluation examples of {wildcards.dataset}"
    script:
        "../scripts/evaluation.py"


rule hierarchy:
    input:
        hierarchy=lambda wildcards: HIERARCHIES[wildcards.dataset],
        arrays=rules.arrays.output.arrays,
        library=library("hierarchy"),
    output:
        hierarchy="results/data/{dataset}/hierarchy.yaml",
    log:
        "results/logs/hierarchy/{dataset}.log",
    benchmark:
        "results/benchmarks/hierarchy/{dataset}.tsv"
    # Before a long training, not after it, it comes out that a class is missing.
    priority: 20
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "Checking the groups of the classes of {wildcards.dataset}"
    script:
        "../scripts/hierarchy.py"
