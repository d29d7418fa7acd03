"""What all sections of config.yaml have in common: kinds of values, and errors in one line."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError


class Section(BaseModel):
    """A section of config.yaml: values are not converted, unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", strict=True, regex_engine="python-re", use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            unknown = sorted(set(map(str, given)) - set(cls.model_fields))
            if unknown:
                message = f"unknown key {unknown[0]!r}{nearest(unknown[0], cls.model_fields)}"
                context = {"message": message, "key": unknown[0]}
                raise PydanticCustomError("unknown_key", "{message}", context)
        return given


def _unique(values: list[Any]) -> list[Any]:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice!r} is there twice; keep one")
    return values


T = TypeVar("T")
UNIQUE = AfterValidator(_unique)
Several = Annotated[list[T], Field(min_length=1), UNIQUE]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
# A whole number stays one, so that parameters of jobs are spelled as in config.yaml.
AS_GIVEN = WrapValidator(lambda value, handler: (handler(value), value)[1])
NotNegative = Annotated[float, Field(ge=0), AS_GIVEN]
Share = Annotated[float, Field(ge=0, lt=1), AS_GIVEN]


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is meant, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


_QUOTED = r"'([^']*)'"
_TYPES = {"dict": "mapping", "model": "mapping", "int": "integer", "float": "number"}
_TYPES |= {"bool": "boolean"}
_BOUNDS = {"ge": "{} or more", "gt": "more than {}", "le": "{} at most", "lt": "less than {}"}
_BOUNDS |= {"min_length": "{} or more of them", "max_length": "{} of them at most"}


def describe_errors(errors: ValidationError, config: Any) -> str:
    """One line about the deepest key of all that are complained about: the one that is wrong.

    Args:
        errors: what pydantic says of the whole configuration.
        config: the configuration as it was given, to tell whether ``defaults`` holds the key.
    """
    found = [one for one in errors.errors() if one["type"] != "default_factory_not_called"]
    error = max(found, key=lambda one: (one["loc"][-1:] == ("[key]",), len(_path(one["loc"]))))
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    path = _path(error["loc"])
    whole = [*path, context["key"]] if kind == "unknown_key" else path
    if path[:1] == ["experiments"] and not _holds(config, whole):
        below = ["defaults", *whole[2:]]
        path = ["defaults", *path[2:]] if _holds(config, below) else path
    if kind == "missing":
        both = ", here and in defaults" if path[0] == "experiments" and len(path) > 1 else ""
        return f"{'.'.join(path[:-1]) or 'config'}: the key {path[-1]!r} is missing{both}"
    if kind == "union_tag_invalid":
        path, value = [*path, "source"], value["source"]
    where = ".".join(path) or "config"
    if kind == "union_tag_not_found":
        return f"{where}: the key 'source' is missing"
    if kind in ("value_error", "unknown_key"):
        return f"{where}: {context.get('error', error['msg'])}"
    expected = context.get("expected_tags", context.get("expected", ""))
    if "'" in expected and isinstance(value, str):
        return f"{where}: unknown {value!r}{nearest(value, re.findall(_QUOTED, expected))}"
    if expected:
        return f"{where}: {value!r} cannot be; take {expected}"
    bounds = [bound.format(context[name]) for name, bound in _BOUNDS.items() if name in context]
    if bounds:
        return f"{where}: {value!r} cannot be; take {bounds[0]}"
    named = kind.removesuffix("_type").removesuffix("_from_float")
    return f"{where}: {value!r} is not of type {_TYPES.get(named, named)!r}"


def _path(place: tuple[int | str, ...]) -> list[str]:
    """The key of a complaint, without pydantic's additions to it."""
    keys = [str(key) for key in place]
    if keys[-1:] == ["[key]"]:
        return keys[:-2]
    return keys[:2] + keys[3:] if keys[:1] == ["datasets"] else keys


def _holds(config: Any, path: list[str]) -> bool:
    """Whether the configuration sets a key, or a list or a value around it."""
    for key in path:
        if not isinstance(config, Mapping):
            return True
        config = {str(name): value for name, value in config.items()}
        if key not in config:
            return False
        config = config[key]
    return True
