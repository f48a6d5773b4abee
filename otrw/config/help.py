"""What --help says of the settings: read from the tree of dataclasses and the docstring under each field."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from types import UnionType
from typing import Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from otrw.config.tree import Config
from otrw.errors import UserError

WIDTH = 80
INDENT = 4
COLUMN = 32  # where the words on a setting begin


class Setting(NamedTuple):
    """One setting of the tree."""

    path: str
    """Dotted, as on a command line."""
    kind: str
    """What a value is: int, float, true | false, text, or the choices."""
    choices: tuple[str, ...]
    """Every value that there is; empty where there are more than can be named."""
    description: str
    """The docstring under the field, in one paragraph."""


class Section(NamedTuple):
    """Settings that stand together under one name."""

    name: str
    description: str
    settings: tuple[Setting, ...]


@cache
def sections() -> tuple[Section, ...]:
    """The tree of settings, in its own order; what stands at its root comes last, as section "variants"."""
    found, own = [], []
    texts = _docstrings(Config)
    hints = get_type_hints(Config)
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(hints[field.name]):
            settings = tuple(_settings(hints[field.name], f"{field.name}."))
            found.append(Section(field.name, texts[field.name], settings))
        else:
            own.append(_setting(field.name, hints[field.name], texts[field.name]))
    return (*found, Section("variants", "What is trained and compared.", tuple(own)))


def overview(values: Mapping[str, object]) -> str:
    """Every setting by section: its name below the section's, its value, the choices or the first sentence on it.

    Args:
        values: {dotted path: value} that hold where nothing else is given.

    Returns:
        Lines of at most 80 columns.
    """
    lines = []
    for section in sections():
        prefix = "" if section.settings[0].path == section.name else f"{section.name}."
        lines += ["", f"--{prefix}{'KEY' if prefix else section.name} VALUE: {section.description}"]
        for setting in section.settings:
            start = f"  {setting.path.removeprefix(prefix)} {shown(values[setting.path])}"
            if len(start) > COLUMN - 2:
                lines += textwrap.wrap(start.strip().replace(",", ", "), WIDTH, initial_indent="  ", subsequent_indent="    ")
                start = ""
            words = textwrap.wrap(_in_short(setting), WIDTH - COLUMN, break_on_hyphens=False)
            lines += [f"{start:<{COLUMN}}{words[0]}", *(f"{'':<{COLUMN}}{line}" for line in words[1:])]
    return "\n".join(lines[1:])


def section_in_full(name: str, values: Mapping[str, object]) -> str:
    """All that is known of the settings of a section, or of those below a dotted path.

    Args:
        name: such as ``ot``, ``stage2.optimizer`` or ``ot.epsilon``.
        values: {dotted path: value} that hold where nothing else is given.

    Returns:
        Lines of at most 80 columns.

    Raises:
        UserError: where nothing has this name.
    """
    name = name.removeprefix("--")
    lines = []
    for section in sections():
        chosen = [setting for setting in section.settings if section.name == name or f"{setting.path}.".startswith(f"{name}.")]
        if chosen:
            lines += [f"{section.name}: {section.description}"]
        for setting in chosen:
            kind = " | ".join(setting.choices) or setting.kind
            typed = f"--{setting.path} {shown(values[setting.path])}"
            typed = typed if len(typed) <= WIDTH else typed.replace(",", ", ")
            lines += ["", *textwrap.wrap(typed, WIDTH, break_on_hyphens=False)]
            indent = " " * INDENT
            for text in (f"({kind})", setting.description):
                lines += textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
    if not lines:
        names = [section.name for section in sections()]
        paths = [setting.path for section in sections() for setting in section.settings]
        nearest = get_close_matches(name, [*names, *paths], 1)
        remedy = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"--help must be followed by one of {', '.join(names)} or a setting, got {name!r}{remedy}")
    return "\n".join(lines)


def shown(value: object) -> str:
    """A value as it is typed on a command line."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case "":
            return "''"
        case float():
            return f"{value:g}"
        case list() | tuple() if all(isinstance(one, str) for one in value):
            return ",".join(value)
        case list() | tuple():
            return f"[{','.join(map(shown, value))}]"
    return str(value)


def _settings(section: type, prefix: str) -> list[Setting]:
    found = []
    texts, hints = _docstrings(section), get_type_hints(section)
    for field in dataclasses.fields(section):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            found += _settings(kind, f"{prefix}{field.name}.")  # type: ignore[arg-type]
        else:
            found.append(_setting(f"{prefix}{field.name}", kind, texts.get(field.name, "")))
    return found


def _setting(path: str, kind: object, description: str) -> Setting:
    return Setting(path, _kind(kind), _choices(kind), description)


def _kind(kind: object) -> str:
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(_kind(one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return f"list of {_kind(get_args(kind)[0])}"
    if get_origin(kind) is Literal:
        return " | ".join(get_args(kind))
    return {bool: "true | false", str: "text", type(None): "null", int: "int", float: "float"}.get(kind, str(kind))  # type: ignore[call-overload]


def _choices(kind: object) -> tuple[str, ...]:
    if get_origin(kind) is tuple:
        return _choices(get_args(kind)[0])
    return get_args(kind) if get_origin(kind) is Literal else ()


@cache
def _docstrings(section: type) -> dict[str, str]:
    """{field: the docstring under it} of a dataclass, from its source."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(tree, ast.ClassDef)
    texts, name = {}, ""
    for statement in tree.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            name = statement.target.id
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant) and name:
            texts[name], name = " ".join(str(statement.value.value).split()), ""
        else:
            name = ""
    return texts


def _in_short(setting: Setting) -> str:
    """The first sentence on a setting, and its choices; these alone where that sentence is on one of them."""
    sentence = setting.description.split(". ")[0].rstrip(".")
    if not setting.choices:
        return sentence
    choices = " | ".join(setting.choices)
    is_on_one = sentence.split(" ")[0].rstrip(":,") in setting.choices or ": " in sentence
    return choices if is_on_one else f"{sentence}: {choices}"
