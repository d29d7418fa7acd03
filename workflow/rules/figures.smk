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


rule class_matrix:
    input:
        runs=table("runs"),
        history=table("history"),
        classes=reference_classes,
        library=library("class_matrix"),
    output:
        pdf=pdf("class_matrix"),
        png=png("class_matrix"),
    log:
        "results/logs/class_matrix/{experiment}/stage={stage}.log",
    benchmark:
        "results/benchmarks/class_matrix/{experiment}/stage={stage}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=stage_of_figure("class_matrix"),
        seeds=reference_seeds,
        options=config["figures"]["class_matrix"],
    message:
        "Drawing the class stiffness matrix of {wildcards.experiment}, stage {wildcards.stage}"
    script:
        "../scripts/class_matrix.py"


rule class_matrix_stages:
    input:
        runs=table("runs"),
        history=table("history"),
        classes=reference_classes,
        library=library("class_matrix"),
    output:
        pdf=pdf("class_matrix_stages"),
        png=png("class_matrix_stages"),
    log:
        "results/logs/class_matrix_stages/{experiment}.log",
    benchmark:
        "results/benchmarks/class_matrix_stages/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=setting("stages"),
        seeds=reference_seeds,
        options=config["figures"]["class_matrix_stages"],
    message:
        "Drawing the class stiffness matrix of {wildcards.experiment} by stage"
    script:
        "../scripts/class_matrix.py"


rule hierarchy_matrix:
    input:
        runs=table("runs"),
        history=table("history"),
        classes=reference_classes,
        hierarchy=hierarchy_of_figure,
        library=library("hierarchy_matrix"),
    output:
        pdf=pdf("hierarchy_matrix"),
        png=png("hierarchy_matrix"),
    log:
        "results/logs/hierarchy_matrix/{experiment}/stage={stage}.log",
    benchmark:
        "results/benchmarks/hierarchy_matrix/{experiment}/stage={stage}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=stage_of_figure("hierarchy_matrix"),
        seeds=reference_seeds,
        options=config["figures"]["hierarchy_matrix"],
    message:
        "Drawing the sorted class stiffness matrix of {wildcards.experiment}, stage {wildcards.stage}"
    script:
        "../scripts/hierarchy_matrix.py"


rule hierarchy_curves:
    input:
        runs=table("runs"),
        summary=table("summary"),
        hierarchy=hierarchy_of_figure,
        library=library("hierarchy_curves"),
    output:
        pdf=pdf("hierarchy_curves"),
        png=png("hierarchy_curves"),
    log:
        "results/logs/hierarchy_curves/{experiment}.log",
    benchmark:
        "results/benchmarks/hierarchy_curves/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        options=config["figures"]["hierarchy_curves"],
    message:
        "Drawing stiffness within groups of classes of {wildcards.experiment}"
    script:
        "../scripts/hierarchy_curves.py"


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
        layer=first_layer,
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
        layer=first_layer,
        options=config["figures"]["critical_length"],
    message:
        "Drawing critical lengths of {wildcards.experiment}"
    script:
        "../scripts/critical_length.py"


rule whole_set_figure:
    input:
        runs=table("runs"),
        history=table("history"),
        summary=table("summary"),
        classes=reference_classes,
        whole_set=reference_files(f"{RUN}/whole_set/{{segment}}.parquet", "whole_set"),
        library=library("whole_set_figure"),
    output:
        pdf=pdf("whole_set"),
        png=png("whole_set"),
    log:
        "results/logs/whole_set_figure/{experiment}.log",
    benchmark:
        "results/benchmarks/whole_set_figure/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=setting("stages"),
        seeds=reference_seeds,
        options=config["figures"]["whole_set"],
    message:
        "Drawing the subset's stiffness of {wildcards.experiment} against the whole training set's"
    script:
        "../scripts/whole_set_figure.py"


rule rounding_figure:
    input:
        runs=table("runs"),
        history=table("history"),
        exact="results/{experiment}/tables/exact/summary.parquet",
        plain="results/{experiment}/tables/plain/summary.parquet",
        rounding=reference_files(f"{RUN}/rounding/{{segment}}.parquet", "rounding"),
        library=library("rounding_figure"),
    output:
        pdf=pdf("rounding"),
        png=png("rounding"),
    log:
        "results/logs/rounding_figure/{experiment}.log",
    benchmark:
        "results/benchmarks/rounding_figure/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        seeds=reference_seeds,
        options=config["figures"]["rounding"],
    message:
        "Drawing what rounding does to the stiffness of {wildcards.experiment}"
    script:
        "../scripts/rounding_figure.py"


rule equal_loss:
    input:
        runs=table("runs"),
        levels=table("levels"),
        order=table("order"),
        library=library("equal_loss"),
    output:
        pdf=pdf("equal_loss"),
        png=png("equal_loss"),
    log:
        "results/logs/equal_loss/{experiment}.log",
    benchmark:
        "results/benchmarks/equal_loss/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=config["figures"]["equal_loss"],
    message:
        "Drawing the learning rates of {wildcards.experiment} at equal loss"
    script:
        "../scripts/equal_loss.py"


rule early_stopping:
    input:
        runs=table("runs"),
        stopping=table("stopping"),
        library=library("early_stopping"),
    output:
        pdf=pdf("early_stopping"),
        png=png("early_stopping"),
    log:
        "results/logs/early_stopping/{experiment}.log",
    benchmark:
        "results/benchmarks/early_stopping/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        options=config["figures"]["early_stopping"],
    message:
        "Drawing early stopping of {wildcards.experiment}"
    script:
        "../scripts/early_stopping.py"


rule layers:
    input:
        **{
            f"by_layer_{name}": reference_files(
                f"{RUN}/layer_stiffness/{{precision}}/{{segment}}/{name}.parquet", "layers"
            )
            for name in LAYER_TABLES
        },
        runs=table("runs"),
        history=table("history"),
        summary=table("summary"),
        library=library("layers"),
    output:
        pdf=pdf("layers"),
        png=png("layers"),
    log:
        "results/logs/layers/{experiment}.log",
    benchmark:
        "results/benchmarks/layers/{experiment}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=setting("stages"),
        seeds=reference_seeds,
        options=config["figures"]["layers"],
    message:
        "Drawing stiffness by layer of {wildcards.experiment}"
    script:
        "../scripts/layers.py"


rule contact_sheet:
    input:
        runs=table("runs"),
        history=table("history"),
        extremes=reference_files(
            f"{RUN}/measures/{{precision}}/{{segment}}/extremes.parquet", "contact_sheet"
        ),
        arrays=arrays_path,
        evaluation=evaluation_path,
        library=library("contact_sheet"),
    output:
        pdf=pdf("contact_sheet"),
        png=png("contact_sheet"),
    log:
        "results/logs/contact_sheet/{experiment}/stage={stage}.log",
    benchmark:
        "results/benchmarks/contact_sheet/{experiment}/stage={stage}.tsv"
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        learning_rate=setting("reference_learning_rate"),
        stages=stage_of_figure("contact_sheet"),
        seeds=reference_seeds,
        options=config["figures"]["contact_sheet"],
    message:
        "Drawing the stiffest and the least stiff examples of {wildcards.experiment}, stage {wildcards.stage}"
    script:
        "../scripts/contact_sheet.py"


for name, entry in config["paper"].items():

    rule:
        name:
            name
        input:
            figures_of_paper(entry),
        localrule: True


rule paper:
    input:
        [figures_of_paper(entry) for entry in config["paper"].values()],
    localrule: True


rule unknown_figure:
    input:
        unknown_figure,
    output:
        "fig{unknown,[A-Za-z0-9]+}",
    localrule: True
