"""Tables to pictures: a rule a kind of figure, and a target a figure of the paper."""


rule training_curves:
    input:
        runs=table("runs"),
        history=table("history"),
        summary=table("summary"),
        library=library("training_curves"),
    output:
        pdf=pdf("training_curves"),
        png=png("training_curves"),
    log:
        "results/logs/training_curves/{experiment}.log",
    benchmark:
        "results/benchmarks/training_curves/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        options=config["figures"]["training_curves"],
    message:
        "Drawing losses and stiffness of {wildcards.experiment}"
    script:
        "../scripts/training_curves.py"


rule class_matrices:
    input:
        runs=table("runs"),
        history=table("history"),
        classes=reference_classes,
        library=library("class_matrices"),
    output:
        pdf=pdf("class_matrices"),
        png=png("class_matrices"),
    log:
        "results/logs/class_matrices/{experiment}.log",
    benchmark:
        "results/benchmarks/class_matrices/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=setting("stages"),
        seeds=reference_seeds,
        options=config["figures"]["class_matrices"],
    message:
        "Drawing class stiffness matrices of {wildcards.experiment}"
    script:
        "../scripts/class_matrices.py"


rule stiffness_curves:
    input:
        runs=table("runs"),
        summary=table("summary"),
        library=library("stiffness_curves"),
    output:
        pdf=pdf("stiffness_curves"),
        png=png("stiffness_curves"),
    log:
        "results/logs/stiffness_curves/{experiment}.log",
    benchmark:
        "results/benchmarks/stiffness_curves/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rates=setting("learning_rates"),
        options=config["figures"]["stiffness_curves"],
    message:
        "Drawing stiffness against epoch of {wildcards.experiment}"
    script:
        "../scripts/stiffness_curves.py"


rule distance:
    input:
        runs=table("runs"),
        history=table("history"),
        distance=table("distance"),
        critical_length=table("critical_length"),
        library=library("distance"),
    output:
        pdf=pdf("distance"),
        png=png("distance"),
    log:
        "results/logs/distance/{experiment}.log",
    benchmark:
        "results/benchmarks/distance/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=setting("stages"),
        options=config["figures"]["distance"],
    message:
        "Drawing stiffness against distance of {wildcards.experiment}"
    script:
        "../scripts/distance.py"


rule critical_length:
    input:
        runs=table("runs"),
        history=table("history"),
        critical_length=table("critical_length"),
        library=library("critical_length"),
    output:
        pdf=pdf("critical_length"),
        png=png("critical_length"),
    log:
        "results/logs/critical_length/{experiment}.log",
    benchmark:
        "results/benchmarks/critical_length/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rates=setting("learning_rates"),
        options=config["figures"]["critical_length"],
    message:
        "Drawing critical lengths of {wildcards.experiment}"
    script:
        "../scripts/critical_length.py"


for name, entry in config["paper"].items():

    rule:
        name:
            name
        input:
            figures_of(entry["experiments"], [entry["kind"]]),
        localrule: True


rule paper:
    input:
        [figures_of(entry["experiments"], [entry["kind"]]) for entry in config["paper"].values()],
    localrule: True


rule unknown_figure:
    input:
        unknown_figure,
    output:
        "fig{unknown,[A-Za-z0-9]+}",
    localrule: True
