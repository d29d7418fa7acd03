"""One set of pinned packages, wherever the workflow runs."""

import re
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[2]


def pins() -> list[str]:
    lines = (REPOSITORY / "envs/requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_conda_gets_the_same_packages():
    dependencies = yaml.safe_load((REPOSITORY / "envs/environment.yaml").read_text())[
        "dependencies"
    ]
    (packages,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert packages == pins()
    assert len(packages) > 50
    assert all(re.match(r"[\w.-]+==\d", package) for package in packages)


def test_the_image_gets_them_too_and_nothing_else_of_this_folder():
    instructions = (REPOSITORY / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+)", instructions, re.MULTILINE)
    assert copied == ["envs/requirements.txt"]
    let_through = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert [line[1:] for line in let_through if line.startswith("!")] == copied
    assert re.search(r"^FROM python:\d+\.\d+\.\d+-", instructions, re.MULTILINE), "pinned"
    assert re.search(r"^USER (?!root)", instructions, re.MULTILINE)


def test_no_package_is_pinned_twice_differently():
    # They are installed into one environment, one file after another.
    versions: dict[str, str] = {}
    files = sorted((REPOSITORY / "envs").glob("requirements*.txt"))
    assert len(files) > 2
    for file in files:
        for name, version in re.findall(r"^([\w.\[\]-]+)==(\S+)", file.read_text(), re.MULTILINE):
            assert versions.setdefault(name, version) == version, f"{file.name}: {name}"
