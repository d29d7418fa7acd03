"""What all sections of config.yaml have in common."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator
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


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the known one that is meant, or all of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
