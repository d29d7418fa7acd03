"""Tables to verdicts on the paper's claims."""


rule claims:
    input:
        claims_tables,
        # Only linked to: a new colour judges nothing again.
        pictures=ancient(claims_pictures),
        library=library("claims"),
    output:
        page="results/claims.md",
        csv="results/claims.csv",
        pdf="results/claims.pdf",
        png=report(
            "results/claims.png",
            caption="../report/claims.rst",
            category="Claims of the paper",
            labels={"figure": "verdicts"},
        ),
    log:
        "results/logs/claims.log",
    benchmark:
        "results/benchmarks/claims.tsv"
    # Half a minute; in one group with the tables it would join the jobs of all experiments.
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        mem_mb=8000,
        runtime=30,
    params:
        experiments=claims_experiments,
        paper=sorted({name for entry in config["paper"].values() for name in entry["experiments"]}),
        studies=claims_studies,
        options=config["figures"]["claims"],
        made=claims_made,
    message:
        "Judging the paper's claims"
    script:
        "../scripts/claims.py"
