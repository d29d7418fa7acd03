from snakemake.utils import min_version

min_version("9.19")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/training.smk"
include: "workflow/rules/gradients.smk"


localrules:
    all,


rule all:
    input:
        [
            f"{RUN.format(experiment=e, lr=lr, seed=s)}/gradients/exact/{seg}"
            for e in config["run"]
            for lr, s, seg in run_segments(e)
        ],
