"""What breaks is found, named and mended: docs/faults.md says how; every line of it is a test."""

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from project import REPOSITORY, Project

RUN = "results/tiny/lr=1e-3/seed=0"
FIRST = "epochs=0000-0001"
STEP = "step=00000006.safetensors"
# A file, what reads it, and what has to be made again: the file, or the folder it belongs to.
DAMAGED = {
    "the data set": (
        "results/data/digits/arrays.safetensors",
        f"{RUN}/checkpoints/{FIRST}/state.safetensors",
        "results/data/digits/arrays.safetensors",
    ),
    "a checkpoint": (
        f"{RUN}/checkpoints/{FIRST}/{STEP}",
        f"{RUN}/gradients/exact/{FIRST}/digests.json",
        f"{RUN}/checkpoints/{FIRST}",
    ),
    "cosines": (
        f"{RUN}/gradients/exact/{FIRST}/cosines/{STEP}",
        f"{RUN}/measures/exact/{FIRST}/summary.parquet",
        f"{RUN}/gradients/exact/{FIRST}/cosines",
    ),
    "a table": (
        "results/tiny/tables/exact/distance.parquet",
        "results/tiny/figures/distance.pdf",
        "results/tiny/tables/exact/distance.parquet",
    ),
}


def flip(path: Path) -> None:
    """One bit of the values that the file holds; the time of change stays."""
    content, times = bytearray(path.read_bytes()), path.stat()
    place = len(content) // 3
    if path.suffix == ".parquet":  # the end of a column: a page's head holds no values
        table = pq.ParquetFile(path).metadata
        column = table.row_group(0).column(table.schema.names.index("value"))
        begin = column.dictionary_page_offset or column.data_page_offset
        place = begin + column.total_compressed_size - 2
    content[place] ^= 16
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.slow
@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_file_is_named_and_made_again_by_the_command_it_names(built, what):
    file, reader, made = DAMAGED[what]
    whole = (built.folder / file).read_bytes()
    flip(built.folder / file)
    (built.folder / reader).unlink()
    failed = built.run(reader)
    assert failed.code != 0
    (message,) = failed.errors
    assert f"{file}: not a readable file of this workflow" in message
    assert f"delete {made}, make it again with `snakemake --cores 1 {made}`" in message
    subprocess.run(["rm", "-r", made], cwd=built.folder, check=True)
    built.build(made)
    assert (built.folder / file).read_bytes() == whole
    built.build(reader)
    # What others had made of the file as it was is not out of date.
    before = built.results()
    assert built.plan(reader) == {}
    assert built.results() == before
    assert built.half_written() == []


@pytest.fixture
def shut(fresh: Project) -> Iterator[Path]:
    """Results on a file system that cannot be written."""
    folder = fresh.folder / "results"
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    mount = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_results_that_cannot_be_written(fresh, shut):
    target = "results/data/digits/arrays.safetensors"
    outcome = fresh.run(target)
    assert outcome.code != 0
    assert "Read-only file system" in outcome.output
    assert "results" in outcome.output
    assert fresh.results() == {}
    subprocess.run(["mount", "-o", "remount,rw", str(shut)], check=True)
    fresh.build(target)
    assert set(fresh.results()) == {target}


def rows() -> list[list[str]]:
    lines = (REPOSITORY / "docs/faults.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ") and "| `tests/" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_every_line_of_the_table_of_faults_is_a_test():
    assert len(rows()) > 12
    for fault, outcome, test in rows():
        assert fault
        assert outcome
        for file, name in re.findall(r"`(tests/\S+?\.py)::(\w+)`", test) or [("", "")]:
            assert file, f"no test for {fault}"
            tree = ast.parse((REPOSITORY / file).read_text())
            found = [node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
            assert name in found, f"{file} has no {name}"
