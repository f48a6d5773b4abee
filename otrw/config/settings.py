"""From settings as nested dicts (what a YAML file holds) to a config: names, sections and types are checked here."""

import difflib
import sys
import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from otrw.config.rules import check_ranges
from otrw.config.tree import Config
from otrw.config.yaml_files import is_plain_text, parse_yaml
from otrw.errors import UserError, shown

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")


@cache
def leaves() -> dict[str, Any]:
    """{dotted path: annotation} of every setting, in the order of the tree."""
    return {path: kind for path, kind in _walk(Config, "") if not is_dataclass(kind)}


@cache
def sections() -> frozenset[str]:
    """Dotted paths of what holds settings: data, data.augment, model and so on."""
    return frozenset(path for path, kind in _walk(Config, "") if is_dataclass(kind))


def remedy_for(path: str) -> str:
    """What to say of a name that is no setting: the full name that it begins, the nearest one, or where to look."""
    known = ["config", "print_config", *leaves(), *sorted(sections())]
    last = path.rpartition(".")[2]
    near = [name for name in known if last and name.startswith(path)]
    near = near or [name for name in known if name == f"run.{path}"]  # what is asked for most: run.seed, not data.seed
    near = near or difflib.get_close_matches(path, known, n=1, cutoff=0.75)
    near = near or [name for name in known if name.rpartition(".")[2] == last]
    return f"did you mean {near[0]}?" if near else "--print_config lists every setting"


def value_of(path: str, text: str) -> object:
    """The value of a setting as it is typed on the command line: text is taken as it is, all else is read as YAML.

    Raises UserError where it is not YAML.
    """
    kinds = _kinds(leaves()[path])
    if type(None) in kinds and text in ("null", "Null", "NULL", "~"):
        return None
    if str in kinds or get_origin(kinds[0]) is Literal:
        return text
    return parse_yaml(text, f"--{path}")


def check_settings(settings: Mapping, name: str) -> None:
    """Refuse what is no setting, a section that is none, and a value of another type. Raises UserError.

    Args:
        settings: nested dict.
        name: what to call it in messages, say the file.
    """
    _check_section(settings, "", f"{name}: " if name else "")


def config_from(settings: Mapping) -> Config:
    """The config that nested settings give, defaults where they say nothing. Raises UserError."""
    check_settings(settings, "")
    config = _build(Config, settings, "")
    check_ranges(config)
    return config


def merged(first: Mapping, second: Mapping) -> dict:
    """Nested settings of which the second win."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def _walk(section: type, prefix: str) -> list[tuple[str, Any]]:
    found = []
    for name, kind in get_type_hints(section).items():
        found.append((prefix + name, kind))
        if is_dataclass(kind):
            found += _walk(kind, f"{prefix}{name}.")  # type: ignore[arg-type]
    return found


def _check_section(settings: Mapping, prefix: str, where: str) -> None:
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if "." in key:
            raise UserError(f"{where}{shown(path)} is no setting; write each name inside its section, without points")
        if path in sections():
            if not isinstance(value, Mapping):
                example = next(leaf for leaf in leaves() if leaf.startswith(f"{path}."))
                raise UserError(f"{where}{path} must be a section of settings such as {example}, got {shown(value)}")
            _check_section(value, f"{path}.", where)
        elif path in leaves():
            _converted(path, leaves()[path], value, where)
        else:
            raise UserError(f"{where}{shown(path)} is no setting; {remedy_for(path)}")


def _build(section: type, settings: Mapping, prefix: str) -> Any:
    hints = get_type_hints(section)
    values = {
        field.name: _build(hints[field.name], settings[field.name], f"{prefix}{field.name}.")
        if is_dataclass(hints[field.name])
        else _converted(prefix + field.name, hints[field.name], settings[field.name], "")
        for field in fields(section)
        if field.name in settings
    }
    return section(**values)


def _kinds(annotation: Any) -> tuple:
    """The alternatives of an annotation: (int, NoneType) of int | None."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _converted(path: str, annotation: Any, value: object, where: str) -> Any:
    """The value in the type of its setting. Raises UserError where it has another."""
    kinds = _kinds(annotation)
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            return tuple(_converted(path, get_args(kind)[0], element, where) for element in value)
    elif get_origin(kind) is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
    elif kind is bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _TRUE + _FALSE:
            return value.lower() in _TRUE
    elif kind is str:
        if isinstance(value, str) and is_plain_text(value):
            return value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        if kind is int and isinstance(value, int):
            return value
        if kind is float and abs(value) <= sys.float_info.max:
            return float(value)
    raise UserError(f"{where}{path} must be {_in_words(annotation)}, got {shown(value)}")


def _in_words(annotation: Any) -> str:
    kinds = _kinds(annotation)
    kind = kinds[0]
    if get_origin(kind) is tuple:
        words = f"a list, each {_in_words(get_args(kind)[0])}"
    elif get_origin(kind) is Literal:
        words = f"one of {', '.join(map(repr, get_args(kind)))}"
    else:
        words = {
            bool: "true or false",
            int: "a whole number",
            float: "a finite number",
            str: "text without NUL and half characters",
        }[kind]
    return words + (" or null" if type(None) in kinds else "")
