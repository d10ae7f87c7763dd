"""What settings mean, for --help: as the docstrings of their classes say it."""

import inspect
import re
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_args, get_type_hints


def own_fields(settings: type) -> list[Field]:
    """Of a dataclass, or of a config without what every config of transformers has."""
    ours = [cls for cls in settings.__mro__ if not cls.__module__.startswith(("transformers.", "builtins"))]
    declared = {name for cls in ours for name in inspect.get_annotations(cls)}
    return [field for field in fields(settings) if field.name in declared]


def meanings(settings: type) -> dict[str, str]:
    """
    By name, of each field that the docstring of its class, or of a class before that, has as "name: what it is." or
    "name, other: what they are.", at the start of a paragraph or after a sentence.
    """
    names = [field.name for field in own_fields(settings)]
    found = {}
    for cls in reversed(settings.__mro__):
        for paragraph in inspect.cleandoc(cls.__dict__.get("__doc__") or "").split("\n\n"):
            found |= _labelled(" ".join(paragraph.split()), names)
    return found


def _labelled(text: str, names: list[str]) -> dict[str, str]:
    """What stands behind each "name: " or "name, other: " up to the next one."""
    name = "(?:" + "|".join(names) + ")"
    _, *parts = re.split(rf"(?:^|(?<=[.)] ))({name}(?:, {name})*): ", text)
    labelled = zip(parts[::2], parts[1::2], strict=True)
    return {name: said.strip() for label, said in labelled for name in label.split(", ")}


def default_of(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def settings_within(settings: type) -> dict[str, type]:
    """By field, the dataclass whose settings it takes, where it takes one."""
    hints = get_type_hints(settings)
    kinds = {field.name: (hints[field.name], *get_args(hints[field.name])) for field in fields(settings)}
    return {name: kind for name, own in kinds.items() for kind in own if isinstance(kind, type) and is_dataclass(kind)}
