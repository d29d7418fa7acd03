"""Check a hierarchy against the classes of its data set, and keep a copy of it."""

import shutil

from stiffness.data.hierarchy import read_hierarchy
from stiffness.files import atomic_write, read_metadata
from stiffness.jobs.job import job


def main(hierarchy: str, arrays: str, output: str) -> None:
    class_names = read_metadata(arrays)["class_names"]
    read_hierarchy(hierarchy).check_classes(class_names, hierarchy)
    with atomic_write(output) as temporary:
        shutil.copyfile(hierarchy, temporary)


if __name__ == "__main__":
    with job(snakemake):
        main(
            hierarchy=snakemake.input.hierarchy,
            arrays=snakemake.input.arrays,
            output=snakemake.output.hierarchy,
        )
