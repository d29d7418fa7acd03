"""Gradient cosines to tidy tables: first of each segment, then one set for an experiment."""


rule measures:
    input:
        # A folder has no checksum; the digests say whether what is in it has changed.
        cosines=ancient(needs.gradients("cosines")),
        digests=needs.gradients("digests.json"),
        evaluation=needs.evaluation,
        hierarchy=needs.hierarchy,
        representations=needs.representations,
        library=library("measures"),
    output:
        **paths.each(paths.MEASURE, paths.MEASURES),
        replicates=paths.REPLICATES,
    log:
        paths.log("measures", paths.OF_ARITHMETIC),
    # Before more gradients are computed: their files may go once the tables exist.
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        **requested(needs.measures_request),
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
        evaluation=needs.evaluation,
        library=library("layer_stiffness"),
    output:
        **paths.each(paths.LAYER_MEASURE, paths.LAYER_MEASURES),
    log:
        paths.log("layer_stiffness", paths.OF_ARITHMETIC),
    priority: 10
    conda:
        ENVIRONMENT
    resources:
        **more(mem_mb=12000, runtime=60),
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
            name: needs.segment_files(paths.fill(paths.MEASURE, name=name))
            for name in paths.MEASURES
            if name in paths.TABLES
        },
        histories=needs.segment_files(paths.HISTORY),
        library=library("tables"),
    output:
        **paths.each(paths.TABLE, paths.TABLES),
    log:
        paths.log("tables", "{experiment}/{arithmetic}"),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        epochs=setting("epochs"),
        runs=needs.runs,
    message:
        "Putting together the tables of {wildcards.experiment}"
    script:
        "../scripts/tables.py"


rule comparison:
    input:
        replicates=needs.segment_files(paths.REPLICATES),
        history=rules.tables.output.history,
        summary=rules.tables.output.summary,
        library=library("comparison"),
    output:
        **paths.each(paths.TABLE, paths.COMPARISONS),
    log:
        paths.log("comparison", "{experiment}/{arithmetic}"),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=4000,
        runtime=10,
    params:
        runs=needs.runs,
        layer=setting("distance_layers", 0),
        seed=setting("bootstrap", "seed"),
    message:
        "Comparing the learning rates of {wildcards.experiment}"
    script:
        "../scripts/comparison.py"


rule provenance:
    input:
        tables=needs.summary,
        library=library("provenance"),
    output:
        provenance=paths.PROVENANCE,
    log:
        paths.log("provenance", "{experiment}"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=500,
        runtime=5,
    params:
        configuration=setting(),
        dataset=needs.dataset,
    message:
        "Writing down what the tables of {wildcards.experiment} were made with"
    script:
        "../scripts/provenance.py"
