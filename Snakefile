from pathlib import Path

from snakemake.utils import min_version

min_version("9.19")


# With --directory the working folder may have one of its own.
configfile: "config.yaml" if Path("config.yaml").exists() else f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/gradients.smk"
include: "workflow/rules/measures.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        targets.figures_of(SETTINGS, SETTINGS["run"], KINDS),
        targets.tables_of(SETTINGS, SETTINGS["run"]),
        rules.claims.output,
    localrule: True
