"""Tables to verdicts on the paper's claims."""


rule claims:
    input:
        tables=evidence.files,
        # Only linked to: a new colour judges nothing again.
        pictures=ancient(evidence.pictures),
        library=library("claims"),
    output:
        page=paths.CLAIMS.format(suffix="md"),
        csv=paths.CLAIMS.format(suffix="csv"),
        pdf=paths.CLAIMS.format(suffix="pdf"),
        png=report(
            paths.CLAIMS.format(suffix="png"),
            caption="../report/claims.rst",
            category="Claims of the paper",
            labels={"figure": "verdicts"},
        ),
    log:
        "results/logs/claims.log",
    # Half a minute; in one group with the tables it would join the jobs of all experiments.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        experiments=evidence.about,
        paper=sorted(
            {name for entry in SETTINGS["paper"].values() for name in entry["experiments"]}
        ),
        studies=evidence.studies,
        options=SETTINGS["figures"]["claims"],
    message:
        "Judging the paper's claims"
    script:
        "../scripts/claims.py"


# Without an output it always runs: the zip is of what is there now, whatever has been run.
rule archive:
    input:
        lambda wildcards: rules.all.input,
    log:
        "results/logs/archive.log",
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        archive=paths.ARCHIVE,
        configuration=config,
        checkpoints=SETTINGS["archive_checkpoints"],
    message:
        "Packing results into one zip"
    script:
        "../scripts/archive.py"
