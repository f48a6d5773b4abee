"""Every process trains the same thing: settings, code and split are compared before the first step."""

import hashlib
from pathlib import Path

from otrw import distributed
from otrw.config import Config, flatten, to_dict
from otrw.errors import UserError

MAY_DIFFER = ("data.root", "data.cache", "run.directory", "run.resume", "stage1.checkpoint")
"""Folders may have other names on other machines; what is in them is compared by hashes."""


def check_same_settings(config: Config) -> None:
    """Raise UserError, on every process, where one has other settings or other code than the first."""
    facts = {path: str(value) for path, value in flatten(to_dict(config)).items() if path not in MAY_DIFFER}
    check_same({**facts, "the code of otrw": code_hash()})


def check_same(facts: dict[str, str]) -> None:
    """Raise UserError, on every process, naming the first fact in which a process differs from the first one."""
    everyones = distributed.all_gather_objects(facts)
    for rank, theirs in enumerate(everyones):
        for name, value in everyones[0].items():
            if theirs.get(name) != value:
                raise UserError(
                    f"{name} must be the same on every process, got {value} on process 0 and {theirs.get(name)} on process "
                    f"{rank}; start all with one command line and one version of the code"
                )


def code_hash() -> str:
    """16 hex digits of the package's source files."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
