"""Write what follows from the models of config.yaml: the JSON schema by which editors complete and
check the file, and the tables of docs/configuration.md, which stand there between comments."""

import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "workflow"))
from stiffness.data import sources  # noqa: E402
from stiffness.plan import config  # noqa: E402
from stiffness.section import Section  # noqa: E402

SCHEMA, PAGE = "workflow/schemas/config.schema.json", "docs/configuration.md"
NAMES = "Config Experiment Model Loss Optimizer Evaluation Bootstrap PaperFigure Study"
_DATA = (sources.DataSet, sources.LabelNoise, *sources.SOURCES.values())
SECTIONS: dict[str, type[Section]] = {
    **{name: getattr(config, name) for name in NAMES.split()},
    **{kind.__name__: kind for kind in _DATA},
}


def schema() -> str:
    """The text of the JSON schema."""
    whole = config.Config.model_json_schema()
    whole["properties"]["defaults"] |= {"$ref": "#/$defs/Experiment"}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def page() -> str:
    """The text of docs/configuration.md, with its tables made anew."""
    text = (REPOSITORY / PAGE).read_text()
    tables = {name: table(section) for name, section in SECTIONS.items()}
    for name, rows in (tables | {"Figures": figures()}).items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, after = text.split(begin)
        text = before + begin + rows + end + after.split(end, 1)[1]
    return text


def table(section: type[Section]) -> str:
    """The keys of a section: values, default and meaning."""
    whole = section.model_json_schema()
    shared = sources.DataSet.model_fields if section.__base__ is sources.DataSet else {}
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, key in whole["properties"].items():
        field = section.model_fields[name]
        required = field.is_required()
        if name not in shared or required:
            default = "required" if required else key.get("x-default", _value(key.get("default")))
            meaning = " ".join((field.description or shared[name].description or "").split())
            rows.append(f"| `{name}` | {_values(key, whole)} | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def figures() -> str:
    """The options of every kind of figure, with their defaults."""
    rows = ["| kind | options and defaults |", "|---|---|"]
    for name, options in config.Figures().model_dump().items():
        pairs = ", ".join(f"{key}: {_yaml(value)}" for key, value in options.items())
        rows.append(f"| `{name}` | `{pairs}` |")
    return "\n".join(rows) + "\n"


def _yaml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    quoted = isinstance(value, str) and not re.match(r"[A-Za-z]", value)
    return json.dumps(value) if quoted or not isinstance(value, str) else value


def _value(default: Any) -> str:
    if default is None or isinstance(default, dict):
        return "see there" if default else ""
    return "" if default == "" else f"`{_yaml(default)}`"


def _values(key: dict[str, Any], whole: dict[str, Any]) -> str:
    """What a key may hold, in words."""
    if "anyOf" in key:
        parts = [_values(part, whole) for part in key["anyOf"] if part.get("type") != "null"]
        return " or ".join(parts)
    if "$ref" in key:
        name = key["$ref"].rpartition("/")[2]
        anchor = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()
        return "`{accuracy: ...}`" if name == "Accuracy" else f"[see there](#{anchor})"
    if "const" in key or "enum" in key:
        return ", ".join(f"`{_yaml(value)}`" for value in key.get("enum", [key.get("const")]))
    if key["type"] == "array":
        entries = re.sub(r"(integer|number|text)\b(?!`)", r"\1s", _values(key["items"], whole))
        return f"list of {entries}"
    if key["type"] == "object":
        return "mapping"
    kind = {
        "string": "text",
        "number": "number",
        "integer": "integer",
        "boolean": "`true`, `false`",
    }
    low, high = key.get("minimum", key.get("exclusiveMinimum")), key.get("maximum")
    bounds = f" from {low:,}" if low is not None else ""
    bounds += f" to {high:,}" if high is not None else ""
    bounds += f" to below {key['exclusiveMaximum']}" if "exclusiveMaximum" in key else ""
    return kind[key["type"]] + bounds


FILES = {SCHEMA: schema, PAGE: page}

if __name__ == "__main__":
    for path, text in FILES.items():
        (REPOSITORY / path).write_text(text())
