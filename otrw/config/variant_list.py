"""How variants are written on a command line."""

import difflib
from collections.abc import Sequence
from typing import get_args

from otrw.config.tree import Variant
from otrw.errors import UserError, shown


def with_variant_list(arguments: Sequence[str]) -> list[str]:
    """The arguments, with the value of ``--variants`` as a YAML list, however it was written.

    ``--variants ot_meta``, ``--variants ot_meta,class_balanced_meta``, ``--variants ot_meta class_balanced_meta`` and
    ``--variants '[ot_meta, class_balanced_meta]'`` are the same.

    Args:
        arguments: a command line in words.

    Raises:
        UserError: for a variant that does not exist, with the nearest one that does.
    """
    result: list[str] = []
    waiting = list(arguments)
    while waiting:
        piece = waiting.pop(0)
        key, separator, value = piece.partition("=")
        if key not in ("--variants", "--rows"):  # the earlier name
            result.append(piece)
            continue
        values = [value] if separator else []
        while waiting and not separator and not waiting[0].startswith("-"):
            values.append(waiting.pop(0))
        names = [name.strip(" []'\"") for name in ",".join(values).split(",")]
        result.append(f"--variants=[{', '.join(_known(name) for name in names if name)}]")
    return result


def _known(name: str) -> str:
    variants = get_args(Variant)
    if name in variants:
        return name
    nearest = difflib.get_close_matches(name, variants, 2, cutoff=0.5)
    remedy = f"did you mean {' or '.join(nearest)}?" if nearest else "write them as --variants ot_meta,class_balanced_meta;"
    raise UserError(f"variants must be known ones, got {shown(name)}; {remedy} --help variants lists all")
