"""Tables to pictures: one rule for every kind of figure, and a target for each of the paper's."""


rule figure:
    input:
        unpack(refusing(needs.figure)),
        library=lambda wildcards: library("figure", module_of(wildcards.kind)),
    output:
        pdf=paths.fill(paths.FIGURE, suffix="pdf"),
        png=in_report(paths.fill(paths.FIGURE, suffix="png")),
    log:
        paths.log("figures", "{experiment}/{kind}"),
    wildcard_constraints:
        kind="|".join(targets.kinds_of_runs(page=False)),
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        module=lambda wildcards: module_of(wildcards.kind),
        settings=needs.figure_settings,
        parts=needs.figure_parts,
        options=lambda wildcards: SETTINGS["figures"][wildcards.kind],
        caption=lambda wildcards: targets.caption(SETTINGS, **wildcards),
    message:
        "Drawing {wildcards.kind} of {wildcards.experiment}"
    script:
        "../scripts/figure.py"


# With a page, where a cell of a matrix says what it is.
use rule figure as figure_and_page with:
    output:
        pdf=paths.fill(paths.FIGURE, suffix="pdf"),
        png=in_report(paths.fill(paths.FIGURE, suffix="png")),
        html=in_report(paths.fill(paths.FIGURE, suffix="html"), page=True),
    wildcard_constraints:
        kind="|".join(targets.kinds_of_runs(page=True)),


use rule figure as stage_figure with:
    output:
        pdf=paths.fill(paths.STAGE_FIGURE, suffix="pdf"),
        png=in_report(paths.fill(paths.STAGE_FIGURE, suffix="png")),
    log:
        paths.log("figures", "{experiment}/{kind}/stage={stage}"),
    wildcard_constraints:
        kind="|".join(name for name, kind in KINDS.items() if kind.by_stage),
    message:
        "Drawing {wildcards.kind} of {wildcards.experiment}, stage {wildcards.stage}"


# Of several experiments, with its numbers.
use rule figure as study_figure with:
    input:
        unpack(needs.study),
        library=lambda wildcards: library("figure", module_of(of_study(wildcards))),
    output:
        pdf=paths.fill(paths.STUDY, suffix="pdf"),
        png=report(
            paths.fill(paths.STUDY, suffix="png"),
            caption="../report/figure.rst",
            category="Studies across experiments",
            labels={"study": "{study}"},
        ),
        csv=paths.fill(paths.STUDY, suffix="csv"),
    log:
        paths.log("figures", "studies/{study}"),
    wildcard_constraints:
        study="|".join(targets.studies_across(SETTINGS)) or "(?!)",
    # Seconds; in one group with the tables it would join the jobs of all its experiments.
    localrule: True
    params:
        module=lambda wildcards: module_of(of_study(wildcards)),
        settings=needs.study_settings,
        parts=needs.study_parts,
        options=lambda wildcards: SETTINGS["figures"][of_study(wildcards)],
        caption=lambda wildcards: targets.caption(SETTINGS, of_study(wildcards)),
    message:
        "Drawing the study {wildcards.study}"


for name in SETTINGS["paper"]:

    rule:
        name:
            name
        input:
            targets.paper_files(SETTINGS, name),
        localrule: True


rule paper:
    input:
        [targets.paper_files(SETTINGS, name) for name in SETTINGS["paper"]],
    localrule: True


for name in SETTINGS["studies"]:

    rule:
        name:
            name
        input:
            targets.study_files(SETTINGS, name),
        localrule: True


rule studies:
    input:
        [targets.study_files(SETTINGS, name) for name in SETTINGS["studies"]],
    localrule: True


rule unknown_figure:
    input:
        refusing(lambda wildcards: targets.unknown_figure(SETTINGS, f"fig{wildcards.unknown}")),
    output:
        "fig{unknown,[A-Za-z0-9]+}",
    localrule: True
