"""Draw one figure, of any kind, and write its numbers where it has a table of them."""

from importlib import import_module

from stiffness.figures.load import call, load_arguments
from stiffness.figures.style import use_looks
from stiffness.files import write_csv, write_text
from stiffness.jobs.job import job

if __name__ == "__main__":
    params, output = snakemake.params, snakemake.output
    module = import_module(f"stiffness.figures.{params.module}")
    with job(snakemake):
        use_looks()
        files = {name: given for name, given in snakemake.input.items() if name != "library"}
        arguments = load_arguments(module, files, params.settings, params.options, params.parts)
        if output.get("csv"):
            write_csv(output.csv, call(module.numbers, arguments))
        if output.get("html"):
            write_text(output.html, call(module.page, arguments))
        call(module.draw, arguments, outputs=[output.pdf, output.png])
