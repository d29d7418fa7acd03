"""From the files of a figure to the arguments of the function that draws it."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from types import ModuleType
from typing import Any

import pandas as pd

from stiffness.files import read_table
from stiffness.training.runs import concatenate_tables, read_seed_tables, select_layer
from stiffness.training.stages import read_matrices, reference_stages

Files = str | Sequence[str]


def load_arguments(
    module: ModuleType,
    files: Mapping[str, Files],
    settings: Mapping[str, Any],
    options: Mapping[str, Any],
    parts: Sequence[Any],
) -> dict[str, Any]:
    """Collect, by name, everything that the functions of a figure's module may ask for.

    Args:
        module: the module of the kind of figure. Its ``prepare``, where it has one, gets the
            arguments that it names and returns further ones.
        files: by name: a table, several (of experiments, or of segments), or another file, whose
            path is the argument. "by_layer/summary" is ``by_layer["summary"]``.
        settings: values by argument. Where there is a layer ``space``, its rows are taken of
            tables that tell layers apart.
        options: the looks of this kind of figure.
        parts: what the files of segments belong to: the seed of each, or its experiment and seed.
    """
    found: dict[str, Any] = {**settings, "options": options, "parts": parts}
    for name, given in files.items():
        if name != "classes":
            group, _, entry = name.rpartition("/")
            (found.setdefault(group, {}) if group else found)[entry] = _read(
                given, parts, settings.get("space")
            )
    if "classes" in files:
        found["classes"] = read_matrices(
            files["classes"],
            parts,
            reference_stages(
                found["runs"], found["history"], settings["learning_rate"], settings["stages"]
            ),
            options.get("metrics") or [options.get("metric") or module.METRIC],
            options.get("pair_modes") or [options.get("pair_mode") or module.PAIR_MODE],
        )
    if hasattr(module, "prepare"):
        found |= call(module.prepare, found)
    return found


def call(function: Callable[..., Any], arguments: Mapping[str, Any], **further: Any) -> Any:
    """Call a function with those of the arguments that it names."""
    known = {**arguments, **further}
    return function(**{name: known[name] for name in signature(function).parameters})


def _read(files: Files, parts: Sequence[Any], space: str | None) -> pd.DataFrame | Files:
    if not str(files if isinstance(files, str) else files[0]).endswith(".parquet"):
        return files
    if isinstance(files, str):
        table = read_table(files)
    elif len(files) == len(parts) and not isinstance(parts[0], Sequence):
        table = read_seed_tables(files, parts)
    elif len(files) == len(parts):
        table = concatenate_tables(
            [
                read_table(file).assign(experiment=experiment, seed=seed)
                for file, (experiment, seed) in zip(files, parts, strict=True)
            ]
        )
    else:
        table = concatenate_tables([read_table(file) for file in files])
    return select_layer(table, space) if space and "layer" in table else table
