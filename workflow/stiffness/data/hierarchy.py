"""Groups of classes, and groups of those: super-classes and super-super-classes (Section 2.4)."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from stiffness.errors import StiffnessError

SUPER_CLASSES, SUPER_SUPER_CLASSES = "super_classes", "super_super_classes"

Groups = dict[str, list[str]]


@dataclass(frozen=True)
class Hierarchy:
    """Every class in one super-class, and every super-class in one super-super-class or none.

    Attributes:
        super_classes: the classes of each super-class. Super-classes of one super-super-class
            follow each other.
        super_super_classes: the super-classes of each super-super-class; empty for a hierarchy of
            one level.
    """

    super_classes: Groups
    super_super_classes: Groups

    @property
    def class_names(self) -> list[str]:
        """All classes, group by group."""
        return [name for members in self.super_classes.values() for name in members]

    def cells(self, class_names: Sequence[str]) -> dict[str, npt.NDArray[np.bool_]]:
        """Which pairs of classes belong to each level (Section 4.2).

        Returns:
            bool [C, C] by level, in the order of ``class_names``. "super_class" has the pairs of
            two classes of one super-class. "super_super_class", which a hierarchy of one level
            lacks, has the pairs of classes of two super-classes in one super-super-class.
        """
        low = _group_numbers(class_names, self.super_classes)
        same_low = low[:, None] == low[None, :]
        masks = {"super_class": same_low & ~np.eye(len(low), dtype=bool)}
        if self.super_super_classes:
            high = _group_numbers(list(self.super_classes), self.super_super_classes)[low]
            masks["super_super_class"] = (high[:, None] == high[None, :]) & ~same_low
        return masks

    def check_classes(self, class_names: Iterable[str], path: str | Path) -> None:
        """Raise ``StiffnessError`` if the hierarchy in ``path`` is not one of exactly these."""
        known = list(class_names)
        unknown = [name for name in self.class_names if name not in known]
        if unknown:
            raise StiffnessError(
                f"{path}: the data set has no class {unknown[0]!r}{_more(unknown)}; "
                f"its classes are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
            )
        missing = sorted(set(known) - set(self.class_names))
        if missing:
            raise StiffnessError(
                f"{path}: the class {missing[0]!r} is in no super-class{_more(missing)}; "
                f"add it to one of {SUPER_CLASSES}"
            )


def read_hierarchy(path: str | Path) -> Hierarchy:
    """Read a YAML file with ``super_classes`` and, optionally, ``super_super_classes``.

    Each of them maps names of groups to lists of members. All names are read as text, also those
    that look like numbers.

    Raises:
        StiffnessError: the file is missing or not such a mapping; a group is empty or named twice;
            a class is in two super-classes, or a super-class in two super-super-classes or none.
    """
    try:
        given = yaml.load(Path(path).read_text(), _Loader)
    except FileNotFoundError:
        raise StiffnessError(f"{path}: no such hierarchy file") from None
    except _DuplicateKey as error:
        raise StiffnessError(f"{path}: {error} is named twice; keep one") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise StiffnessError(f"{path}: not a readable hierarchy file ({reason})") from None
    if not isinstance(given, Mapping) or SUPER_CLASSES not in given:
        raise StiffnessError(
            f"{path}: not a hierarchy; it needs {SUPER_CLASSES}, a list of classes for each name"
        )
    unknown = sorted(set(given) - {SUPER_CLASSES, SUPER_SUPER_CLASSES})
    if unknown:
        raise StiffnessError(
            f"{path}: unknown key {unknown[0]!r}; known: {SUPER_CLASSES}, {SUPER_SUPER_CLASSES}"
        )
    low = _groups(given[SUPER_CLASSES], path, SUPER_CLASSES, "class")
    if SUPER_SUPER_CLASSES not in given:
        return Hierarchy(low, {})
    high = _groups(given[SUPER_SUPER_CLASSES], path, SUPER_SUPER_CLASSES, "super-class")
    placed = [name for members in high.values() for name in members]
    unknown = [name for name in placed if name not in low]
    if unknown:
        raise StiffnessError(
            f"{path}: {SUPER_SUPER_CLASSES} names the super-class {unknown[0]!r}{_more(unknown)}, "
            f"which is not one of {SUPER_CLASSES}"
        )
    homeless = [name for name in low if name not in placed]
    if homeless:
        raise StiffnessError(
            f"{path}: the super-class {homeless[0]!r} is in no super-super-class{_more(homeless)}; "
            f"add it to one of {SUPER_SUPER_CLASSES}"
        )
    return Hierarchy({name: low[name] for name in placed}, high)


def _groups(given: Any, path: str | Path, key: str, member: str) -> Groups:
    if not isinstance(given, Mapping) or not given:
        raise StiffnessError(f"{path}: {key} is not a mapping of names to lists")
    home: dict[str, str] = {}
    for group, members in given.items():
        if not isinstance(members, list) or not members:
            raise StiffnessError(f"{path}: {key}: {group!r} is not a list of names, or is empty")
        for name in members:
            if not isinstance(name, str):
                raise StiffnessError(f"{path}: {key}: {group!r} holds {name!r}, which is no name")
            if home.get(name) == group:
                raise StiffnessError(
                    f"{path}: the {member} {name!r} is listed twice in {group!r}; keep one"
                )
            if name in home:
                raise StiffnessError(
                    f"{path}: the {member} {name!r} is listed twice, in {home[name]!r} and in "
                    f"{group!r}; keep one"
                )
            home[name] = group
    return {group: list(members) for group, members in given.items()}


def _group_numbers(names: Sequence[str], groups: Groups) -> npt.NDArray[np.int64]:
    home = {name: number for number, group in enumerate(groups.values()) for name in group}
    return np.array([home[name] for name in names], np.int64)


def _more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


class _DuplicateKey(Exception):
    """A key that a YAML mapping holds twice; YAML itself would keep the last in silence."""


class _Loader(yaml.BaseLoader):
    """Every scalar is text: a class called 7, 01 or no keeps its name."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise _DuplicateKey(f"{name!r} (line {key.start_mark.line + 1})")
            seen.add(name)
        return super().construct_mapping(node, deep)
