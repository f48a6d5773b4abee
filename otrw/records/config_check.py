"""What a record's config.yaml must hold to be compared: values of the kinds that the tree of settings names. No torch."""

import math
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from otrw.config import Config
from otrw.errors import UserError

MOST_CHARACTERS = 40  # of a value in a message


def check_config(config: Mapping) -> None:
    """Raise UserError where a known setting has a value of another kind. Settings of other versions may stand beside."""
    _check_section(Config, config, "")


def _check_section(section: type, values: Mapping, prefix: str) -> None:
    for key, kind in _kinds(section).items():
        if key not in values:
            continue  # written before the setting existed
        path, value = f"{prefix}{key}", values[key]
        if is_dataclass(kind):
            if not isinstance(value, Mapping):
                raise UserError(f"config.yaml: {path} must be a section of settings, got {_shown(value)}")
            _check_section(kind, value, f"{path}.")  # type: ignore[arg-type]
        elif not _fits(value, kind):
            raise UserError(f"config.yaml: {path} must be {_rule(kind)}, got {_shown(value)}")


@cache
def _kinds(section: type) -> dict[str, Any]:
    return get_type_hints(section)


def _fits(value: object, kind: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in arguments)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_fits(one, arguments[0]) for one in value)
    if isinstance(kind, UnionType):
        return any(_fits(value, one) for one in arguments)
    if kind is bool:
        return isinstance(value, bool)
    if kind in (int, float):
        if isinstance(value, str) and kind is float:  # PyYAML reads 1e-3 as text
            try:
                value = float(value)
            except ValueError:
                return False
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return kind is float or value == int(value)
    return value is None if kind is type(None) else isinstance(value, kind)


def _rule(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        return f"a list, each {_rule(arguments[0])}"
    if isinstance(kind, UnionType):
        return " or ".join(_rule(one) for one in arguments)
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}[kind]


def _shown(value: object) -> str:
    return repr(value)[:MOST_CHARACTERS]
