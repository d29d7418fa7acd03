"""Raw data to arrays, and the subset that stiffness is measured on."""


rule arrays:
    input:
        own=lambda wildcards: source_files(SETTINGS["datasets"][wildcards.dataset]["source"]),
        library=library("arrays"),
    output:
        arrays=paths.ARRAYS,
    log:
        paths.log("arrays", "{dataset}"),
    # Light, and on a cluster the nodes that jobs run on often have no network to download from.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=60,
        data_dir=SETTINGS["data_dir"],
    params:
        # Groups of classes decide no arrays.
        dataset=lambda wildcards: {
            key: value
            for key, value in SETTINGS["datasets"][wildcards.dataset].items()
            if key != "hierarchy"
        },
        raw=lambda wildcards: data_set(SETTINGS["datasets"][wildcards.dataset]).fingerprint(
            Path(SETTINGS["data_dir"])
        ),
    message:
        "Reading the raw data of {wildcards.dataset}"
    script:
        "../scripts/arrays.py"


rule evaluation:
    input:
        arrays=rules.arrays.output.arrays,
        library=library("evaluation"),
    output:
        evaluation=paths.EVALUATION,
    log:
        paths.log(
            "evaluation", "{dataset}/train={train}_validation={validation}_seed={subset_seed}"
        ),
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
        hierarchy=paths.HIERARCHY,
    log:
        paths.log("hierarchy", "{dataset}"),
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
