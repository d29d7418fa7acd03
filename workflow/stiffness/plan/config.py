"""Checking config.yaml and filling in each experiment's defaults.

The schema says what a key may hold; what no schema can say (names that must exist, spellings that
mean the same number) is checked here. Every complaint names its key.
"""

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, ValidationError

from stiffness.errors import StiffnessError
from stiffness.plan.kinds import KINDS, check_figure

SCHEMA = Path(__file__).parents[2] / "schemas" / "config.schema.yaml"

STAGE_KINDS = tuple(name for name, kind in KINDS.items() if kind.by_stage)
"""Kinds of figures that show one stage of training, a file for each."""


def check_config(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the experiments by name, each with the defaults filled in.

    Raises:
        StiffnessError: the first thing that is wrong, by its key.
    """
    schema = yaml.safe_load(SCHEMA.read_text())
    _validate(config, schema)
    keys = schema["$defs"]["experiment"]["properties"]
    experiments = {}
    for name, given in config["experiments"].items():
        merged = _merged(config["defaults"], given)
        _require(merged, keys, f"experiments.{name}")
        for part in ("model", "optimizer", "evaluation", "bootstrap"):
            _require(merged[part], keys[part]["properties"], f"experiments.{name}.{part}")
        _check_experiment(f"experiments.{name}", merged, config["datasets"])
        experiments[name] = merged
    for name in config["run"]:
        _known(name, experiments, "run", "experiment")
    known = {**config, "experiments": experiments}
    for figure, entry in config["paper"].items():
        for name in entry["experiments"]:
            _known(name, experiments, f"paper.{figure}.experiments", "experiment")
            check_figure(f"paper.{figure}", known, name, entry["kind"], entry.get("stage"))
    _check_studies(config, experiments)
    return experiments


def read_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that config.yaml decides, checked, with every default filled in.

    Returns:
        Plain values under the keys of config.yaml: "experiments" holds whole experiments, and
        "figures" the options of every kind of figure.

    Raises:
        StiffnessError: the first thing that is wrong, by its key.
    """
    experiments = check_config(config)
    given = {**config["figures"], **config["study_figures"]}
    figures = {name: kind.looks(**given.get(name, {})).model_dump() for name, kind in KINDS.items()}
    figures["claims"] = config["figures"]["claims"]
    return {**config, "experiments": experiments, "figures": figures}


def _check_studies(config: Mapping[str, Any], experiments: Mapping[str, Any]) -> None:
    studies, taken = config["studies"], rule_names()
    for study, entry in studies.items():
        if study in taken:
            raise StiffnessError(f"studies.{study}: a rule has this name; take another")
        for name in entry["experiments"]:
            _known(name, experiments, f"studies.{study}.experiments", "experiment")
            known = {**config, "experiments": experiments}
            check_figure(f"studies.{study}", known, name, entry["kind"])
        layers = {experiments[name]["distance_layers"][0] for name in entry["experiments"]}
        if entry["kind"] == "critical_lengths" and len(layers) > 1:
            raise StiffnessError(
                f"studies.{study}: the experiments measure distance in different layers "
                f"({', '.join(sorted(layers))}); set the same first of distance_layers"
            )


def rule_names() -> set[str]:
    """Names of the workflow's rules, which are commands too."""
    texts = [path.read_text() for path in (SCHEMA.parents[1] / "rules").glob("*.smk")]
    return {"all", *re.findall(r"^(?:use rule \w+ as|rule) (\w+)", "\n".join(texts), re.MULTILINE)}


def _check_experiment(key: str, experiment: Mapping[str, Any], datasets: Mapping[str, Any]) -> None:
    _known(experiment["dataset"], datasets, f"{key}.dataset", "data set")
    _check_inputs(key, experiment, datasets[experiment["dataset"]]["source"] == "text")
    _check_shards(f"{key}.evaluation", experiment["evaluation"])
    spellings: dict[float, str] = {}
    for rate in experiment["learning_rates"]:
        number = float(rate)
        if not 0 < number < math.inf:
            raise StiffnessError(f"{key}.learning_rates: {rate!r} is not a positive number")
        if number in spellings:
            raise StiffnessError(
                f"{key}.learning_rates: {spellings[number]!r} and {rate!r} are the same rate; "
                "keep one"
            )
        spellings[number] = rate
    if experiment["reference_learning_rate"] not in experiment["learning_rates"]:
        raise StiffnessError(
            f"{key}.reference_learning_rate: {experiment['reference_learning_rate']!r} is not one "
            f"of learning_rates ({', '.join(experiment['learning_rates'])})"
        )


def _check_shards(key: str, subset: Mapping[str, Any]) -> None:
    examples = subset["train"] + subset["validation"]
    if subset["shards"] > examples:
        raise StiffnessError(
            f"{key}.shards: {subset['shards']} of {examples} examples; take {examples} at most"
        )


def _check_inputs(key: str, experiment: Mapping[str, Any], text: bool) -> None:
    """Tokens and images take different networks and different options."""
    name = experiment["model"]["name"]
    if text != (name == "transformer"):
        fit = "transformer" if text else "fc, cnn or resnet20v1"
        kind = "texts" if text else "images"
        raise StiffnessError(f"{key}.model.name: {name!r} does not take {kind}; take {fit}")
    if text and not experiment["model"]["path"]:
        raise StiffnessError(
            f"{key}.model.path: a transformer needs one: a folder below data_dir, or a name on the "
            "Hugging Face hub"
        )
    if text and experiment["augmentation"] != "none":
        raise StiffnessError(f"{key}.augmentation: is for images; set it to none")
    if text and "input" in experiment["distance_layers"]:
        raise StiffnessError(
            f"{key}.distance_layers: tokens have no distance; name layers of the network, such as "
            "[bert.embeddings]"
        )


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), Mapping):
            merged[key] = _merged(merged[key], value)
        else:
            merged[key] = value
    return merged


def _require(given: Mapping[str, Any], keys: Mapping[str, Any], where: str) -> None:
    for key in keys:
        if key not in given:
            raise StiffnessError(f"{where}: the key {key!r} is missing, here and in defaults")


def _known(name: str, known: Mapping[str, Any], key: str, what: str) -> None:
    if name not in known:
        raise StiffnessError(f"{key}: unknown {what} {name!r}{_hint(name, known)}")


def _hint(name: str, known: Mapping[str, Any] | list[Any]) -> str:
    near = difflib.get_close_matches(name, [str(entry) for entry in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(map(str, known))}"


def _validate(config: Mapping[str, Any], schema: Mapping[str, Any]) -> None:
    errors = Draft202012Validator(schema).iter_errors(config)
    # The deepest complaint is the one that names the wrong key, not the parts around it.
    error = max(errors, key=lambda error: len(error.absolute_path), default=None)
    if error is not None:
        raise StiffnessError(_described(error))


def _described(error: ValidationError) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "config"
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = sorted(map(str, set(error.instance) - set(known)))[0]
        return f"{where}: unknown key {unknown!r}{_hint(unknown, known)}"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"{where}: the key {missing!r} is missing"
    if error.validator == "dependentRequired":
        return f"{where}: seed is that of train_examples; set that too, or leave seed out"
    if error.validator == "anyOf" and where.startswith("datasets."):
        return f"{where}: set path, a folder below data_dir, or hub, a name on the Hugging Face hub"
    if error.validator == "enum" and isinstance(error.instance, str):
        return f"{where}: unknown {error.instance!r}{_hint(error.instance, error.validator_value)}"
    if error.validator == "anyOf" and "stage" in where:
        known = (
            'an epoch, "last" or {accuracy: 0.35}' if "stages" in where else '1, 2, ... or "last"'
        )
        return f"{where}: {error.instance!r} is no stage; give {known}"
    in_list = len(error.schema_path) > 1 and error.schema_path[-2] == "items"
    if in_list and "learning_rates" in where:
        return f'{where}: {error.instance!r} is not a positive number in quotes, such as "1e-3"'
    if error.validator == "pattern" and "learning_rate" in where:
        return f'{where}: {error.instance!r} is not a positive number, such as "1e-3"'
    return f"{where}: {error.message}"
