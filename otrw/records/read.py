"""Files of text that people or crashes may have damaged, read whole or refused in one line. No torch."""

import json
from pathlib import Path

import yaml

from otrw.errors import UserError

MOST_BYTES = 64 * 1024**2
"""Of one file; a record's largest is the confusion matrix of 100 classes, under a megabyte."""
MOST_LEVELS = 40
"""Of nesting; a config has four."""
LARGEST = 1e300
"""Numbers up to here can be averaged; no figure of a run comes near."""


def read_json(path: Path) -> object:
    """A JSON file's value. Raises UserError where it cannot be read, is not JSON, or holds what `check_plain` refuses."""
    return _read(path, json.loads)


def read_yaml(path: Path) -> object:
    """A YAML file's value; aliases are refused, since a few lines of them stand for more than any memory holds.

    Raises UserError as `read_json` does.
    """
    return _read(path, lambda text: yaml.load(text, _NoAliases))


def check_plain(path: Path, value: object) -> None:
    """Raise UserError where a value is nested too deeply or holds a number too large to compute with."""
    level = [value]
    for _ in range(MOST_LEVELS):
        below: list[object] = []
        for one in level:
            if isinstance(one, dict):
                below += one.values()
            elif isinstance(one, list):
                below += one
            elif isinstance(one, int) and abs(one) > LARGEST:
                raise UserError(f"{path}: holds a number too large to compute with, {len(str(one))} digits")
        level = below
        if not level:
            return
    raise UserError(f"{path}: is nested more than {MOST_LEVELS} levels deep")


def _read(path: Path, parse: object) -> object:
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise UserError(f"{path}: is larger than any such file, {size / 1024**2:.0f} MiB")
        value = parse(path.read_text(encoding="utf-8"))  # type: ignore[operator]
        check_plain(path, value)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not valid, it is not UTF-8 text") from None
    except RecursionError:
        raise UserError(f"{path}: not valid, it is nested more than {MOST_LEVELS} levels deep") from None
    except _AliasError:
        raise UserError(f"{path}: not valid, it holds an alias (*name), which files of this package do without") from None
    except (ValueError, TypeError, yaml.YAMLError):
        raise UserError(f"{path}: not valid") from None
    return value


class _AliasError(Exception):
    """An alias in a YAML file."""


class _NoAliases(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise _AliasError
        return super().compose_node(parent, index)
