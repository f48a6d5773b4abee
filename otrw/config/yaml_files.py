"""YAML as this project reads it: plain mappings, bounded in size and depth, nothing given twice, no code."""

import io
import re
from pathlib import Path

import yaml

from otrw.errors import UserError

MOST_BYTES = 128 * 1024
MOST_DEPTH = 20
_TAG = "tag:yaml.org,2002:"
_BOOL = re.compile(r"(true|True|TRUE|false|False|FALSE)$")
_FLOAT = re.compile(r"([-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$")
_INT = re.compile(r"([-+]?(0|[1-9][\d_]*)|0x[\da-fA-F]+)$")


def load_yaml(path: Path) -> dict:
    """The mapping that a YAML file holds.

    As in YAML 1.2, 1e-3 is a number, and a date and `no` are text. Refused, with file and line: more than `MOST_BYTES`
    bytes, more than `MOST_DEPTH` levels, a key given twice, keys that are not text, aliases (a few lines of them can
    stand for gigabytes), tags, NUL and half characters (a lone surrogate) in text, numbers of more than 100 digits.

    Args:
        path: the file, in UTF-8.

    Returns:
        Nested dict of dicts, lists, text, numbers, booleans and None.

    Raises:
        UserError: where the file cannot be read, or holds anything else.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{str(path)!r} cannot be read ({reason})") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} must be at most {MOST_BYTES // 1024} KiB of YAML; is it another file?")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} must be a YAML file in UTF-8, got byte {content[error.start]:#04x} at {error.start}") from None
    value = parse_yaml(text, str(path))
    if not isinstance(value, dict):
        kind = "nothing" if value is None else f"a {type(value).__name__}"
        raise UserError(f"{path} must be a YAML file of names and values, got {kind}")
    return value


def parse_yaml(text: str, name: str) -> object:
    """What a YAML text holds, under the rules of `load_yaml`.

    Args:
        text: the YAML.
        name: what to call it in messages.

    Raises:
        UserError: naming the line.
    """
    try:
        return _Loader(io.StringIO(text)).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{name}{line}: {_shortened(error.problem or error.context)}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{name} must be YAML ({_shortened(error)})") from None


def _problem(text: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=place.start_mark)


def _shortened(error: object) -> str:
    return " ".join(str(error).split())[:160]


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the bounds above."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: object) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _problem(f"aliases such as *{event.anchor} are not read; write the value out", event)
        if getattr(event, "tag", None) not in (None, "!"):
            raise _problem(f"tags such as {event.tag} are not read; leave it out", event)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise _problem(f"nested deeper than {MOST_DEPTH} levels", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def mapping(self, node: yaml.MappingNode) -> dict:
        """A dict of which every key is text and comes once."""
        result: dict = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise _problem(f"a name must be text, got {key!r}; quote it", key_node)
            if key in result:
                raise _problem(f"{key!r} is given twice; keep one", key_node)
            result[key] = self.construct_object(value_node, deep=True)
        return result

    def text(self, node: yaml.ScalarNode) -> str:
        """Text that can be written to a file, or name one."""
        value = str(self.construct_scalar(node))
        if not is_plain_text(value):
            raise _problem(f"text must be without NUL and half characters, got {value!r}", node)
        return value

    def whole(self, node: yaml.ScalarNode) -> int:
        """A whole number of at most 100 digits."""
        text = str(self.construct_scalar(node))
        if len(text) > 100:
            raise _problem(f"a number must have at most 100 digits, got {len(text)}", node)
        return self.construct_yaml_int(node)


def is_plain_text(value: str) -> bool:
    """Whether text can be written as UTF-8 and used in a file's name: no NUL, no lone surrogate."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


_Loader.yaml_implicit_resolvers = {
    first: [entry for entry in entries if entry[0] == f"{_TAG}null"]
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{_TAG}bool", _BOOL, list("tTfF"))
_Loader.add_implicit_resolver(f"{_TAG}float", _FLOAT, list("-+0123456789."))
_Loader.add_implicit_resolver(f"{_TAG}int", _INT, list("-+0123456789"))
_Loader.add_constructor(f"{_TAG}map", _Loader.mapping)
_Loader.add_constructor(f"{_TAG}str", _Loader.text)
_Loader.add_constructor(f"{_TAG}int", _Loader.whole)
