"""Tables of several experiments to pictures: a rule a kind of study, and a target a study."""


rule label_noise:
    input:
        runs=study_tables("runs"),
        history=study_tables("history"),
        summary=study_tables("summary"),
        replicates=study_replicates,
        library=library("label_noise"),
    output:
        pdf="results/studies/{study}.pdf",
        png=study_png("label_noise"),
        csv="results/studies/{study}.csv",
    log:
        "results/logs/label_noise/{study}.log",
    benchmark:
        "results/benchmarks/label_noise/{study}.tsv"
    wildcard_constraints:
        study=studies_of("label_noise"),
    # Seconds; in one group with the tables it would join the jobs of all its experiments.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        columns=noise_columns,
        replicates_of=study_replicates_of,
        options=config["study_figures"]["label_noise"],
    message:
        "Drawing stiffness under wrong labels, {wildcards.study}"
    script:
        "../scripts/label_noise.py"


rule critical_lengths:
    input:
        runs=study_tables("runs"),
        history=study_tables("history"),
        summary=study_tables("summary"),
        critical_length=study_tables("critical_length"),
        library=library("critical_lengths"),
    output:
        pdf="results/studies/{study}.pdf",
        png=study_png("critical_lengths"),
        csv="results/studies/{study}.csv",
    log:
        "results/logs/critical_lengths/{study}.log",
    benchmark:
        "results/benchmarks/critical_lengths/{study}.tsv"
    wildcard_constraints:
        study=studies_of("critical_lengths"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        experiments=study_settings,
        layer=study_layer,
        options=config["study_figures"]["critical_lengths"],
    message:
        "Drawing critical lengths at equal loss, {wildcards.study}"
    script:
        "../scripts/critical_lengths.py"


for name in config["studies"]:

    rule:
        name:
            name
        input:
            study_files(name),
        localrule: True


rule studies:
    input:
        [study_files(name) for name in config["studies"]],
    localrule: True
