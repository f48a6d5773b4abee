"""Run records in and out: the table's only source. No torch.

A run is a folder with one sub-folder a variant (see `otrw.config.Variant`); a variant's folder holds config.yaml (reloadable),
environment.json, metrics.jsonl (one line an epoch), result.json (there when the variant is done), weights.parquet and
predictions.parquet (one line a sample). Files appear by write-to-temporary and rename.

weights.parquet has a line for each training sample: index (in the source), given_label, weight, and true_label where it is
known; where the transport plan says what a sample is (label transport, noise_aware) target_label, the label it suggests; where
it is noise-aware wrong_label_score, the probability that the given label is wrong; prediction, what the net takes it for; and
of data of one's own identity, what the sample is called there, and with corrections is_settled, whether its label was judged.
Records from before a column existed lack it; early ones have a wrong_label_score of other plans, which is no probability, and a
true_label that repeats the given one where it is not known.
"""

import glob
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import yaml

from otrw import atomic
from otrw.config.earlier_names import with_present_names
from otrw.errors import UserError
from otrw.records.read import check_plain, read_json, read_yaml

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None

PACKAGES = ("torch", "torchvision", "accelerate", "ray", "pot", "tensorboard", "pyarrow", "numpy")


CHECKED = ("config.yaml", "metrics.jsonl")
"""Files of a record whose checksums are in result.json."""
TABLES = ("weights.parquet", "predictions.parquet")
"""Files that stay in the run's folder; their checksums are in result.json too, and are looked at when they are read."""


class Record(NamedTuple):
    """One finished variant of one run."""

    path: Path
    config: dict
    environment: dict
    result: dict


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    atomic.write_text(path, text)


def replace_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two marker lines of a text file. Raises UserError where they are not there once each."""
    try:
        old = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} must be a text file with {begin} and {end} ({error.strerror})") from None
    if old.count(begin) != 1 or old.count(end) != 1 or old.index(begin) > old.index(end):
        raise UserError(f"{path} must hold {begin} and, after it, {end}, once each; put them where the text shall stand")
    before, after = old.split(begin)[0], old.split(end)[1]
    write_text(path, f"{before}{begin}\n{text}{end}{after}")


def seeds_of(path: Path) -> str:
    """The end of an error line for a run that is not there: the runs of its seeds, where these are what is meant."""
    seeds = sorted(str(found) for found in path.parent.glob(f"{glob.escape(path.name)}-seed*") if found.is_dir())
    return f"; its seeds are {', '.join(seeds)}" if seeds and path.name else ""


def read_columns(path: Path) -> dict[str, np.ndarray] | None:
    """A Parquet file, one array a column; None where it is not there. Raises UserError where it is broken."""
    import pyarrow
    import pyarrow.parquet

    if not path.is_file():
        return None
    try:
        table = pyarrow.parquet.read_table(path, page_checksum_verification=True)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{path} is not a whole Parquet file ({str(error).splitlines()[0][:120]})") from None
    return {name: table[name].to_numpy() for name in table.column_names}


def read_table(record: Record, name: str) -> dict[str, np.ndarray] | None:
    """One of `TABLES` of a record, one array a column; None where it is not there.

    Raises:
        UserError: where it is broken, or is not the one that was written with this result.json.
    """
    path = record.path / name
    result = read_json(record.path / "result.json")
    files = result.get("files") if isinstance(result, dict) else None
    written = files.get(name) if isinstance(files, dict) else None  # earlier versions kept no checksum of it
    if written is not None and path.is_file() and _digest(path.read_bytes()) != written:
        raise UserError(f"{path} is not the file of the result.json beside it, its checksum differs; train that variant again")
    return read_columns(path)


def write_json(path: Path, value: object) -> None:
    """Write a JSON file, indented, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def write_result(folder: Path, result: Mapping) -> None:
    """Write result.json, with checksums of itself and of the files that are read with it."""
    files = {name: _digest((folder / name).read_bytes()) for name in CHECKED + TABLES if (folder / name).is_file()}
    whole = json.loads(json.dumps({**result, "files": files}))  # as it will be read
    write_json(folder / "result.json", {**whole, "checksum": _digest_of(whole)})


def _check_checksums(folder: Path, result: dict) -> None:
    """Raise UserError where a file is not as it was written; records of earlier versions have no checksums."""
    files = result.get("files", {})
    if "checksum" in result and result["checksum"] != _digest_of({k: v for k, v in result.items() if k != "checksum"}):
        raise UserError(f"{folder / 'result.json'}: its checksum differs")
    for name, written in files.items() if isinstance(files, dict) else ():
        path = folder / name
        if name in CHECKED and (not path.is_file() or _digest(path.read_bytes()) != written):
            raise UserError(f"{path}: its checksum differs from the one in result.json")


def _digest_of(value: Mapping) -> str:
    return _digest(json.dumps(value, sort_keys=True).encode())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def read_settings(path: Path) -> dict:
    """A config.yaml, its settings under their present names. Raises UserError where it cannot be read or is none."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold settings, got {type(value).__name__}")
    return with_present_names(value)


def write_yaml(path: Path, value: Mapping) -> None:
    """Write a YAML file whole or not at all."""
    write_text(path, yaml.dump(json.loads(json.dumps(value)), Dumper=_Dumper, sort_keys=False))


def write_columns(path: Path, columns: Mapping[str, object]) -> None:
    """Write a Parquet file, one array a column, whole or not at all."""
    import pyarrow
    import pyarrow.parquet

    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), content, write_page_checksum=True)
    atomic.write_bytes(path, content.getvalue())


def append_line(path: Path, value: Mapping) -> None:
    """Append one JSON line; a crash can cut off only the last one, a full disk none. Raises OSError."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        line = (json.dumps(value) + "\n").encode()
        try:
            while line:
                line = line[file.write(line) :]
        except OSError as error:
            file.truncate(size)
            error.filename = error.filename or str(path)
            raise


def read_lines(path: Path) -> list[dict]:
    """All whole JSON lines of a file; none if it is not there. A last line that a crash has cut off is passed over.

    Raises UserError where the file is damaged elsewhere: what stands behind the damage must not be lost without a word.
    """
    if not path.exists():
        return []
    lines: list[dict] = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'cannot be read'}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: not valid, it is not UTF-8 text") from None
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            check_plain(path, line)
        except json.JSONDecodeError:
            if number == len(texts):
                break  # cut off by a crash
            line = None
        except (ValueError, RecursionError):
            line = None
        if not isinstance(line, dict):
            raise UserError(f"{path}: line {number} is damaged, it must be a JSON object")
        lines.append(line)
    return lines


@contextmanager
def locked(folder: Path, flag: str = "run.resume", does: str = "trains there") -> Iterator[None]:
    """Hold a folder or file: a second process that works in it is refused. Gone with the process, however it ends.

    Args:
        folder: what to hold; it must exist.
        flag: the option that names it, for the message.
        does: what the other process does, for the message.

    Raises:
        UserError: where another process holds it. Without effect where the system has no such locks.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{flag} must not be running, got {str(folder)!r}; another process {does}") from None
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


def is_locked(folder: Path) -> bool:
    """Whether a process trains in this folder."""
    try:
        with locked(folder):
            return False
    except UserError:
        return True
    except OSError:
        return False  # no such folder


def keep_lines(path: Path, kept: int) -> None:
    """Drop all but the first `kept` lines: those that a resumed run will not write again."""
    lines = read_lines(path)
    if path.exists():
        write_text(path, "".join(json.dumps(line) + "\n" for line in lines[:kept]))


def environment(**facts: object) -> dict:
    """Commit, versions and command of this process, and the facts given."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")) if commit else None,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "command": [_called(Path(sys.argv[0])), *sys.argv[1:]],
        **facts,
    }


def _called(path: Path) -> str:
    """How the command was called, without the folder that the package happens to lie in."""
    if path.name == "__main__.py":
        return "-m otrw"
    return "/".join(path.parts[-2:])  # such as launch/train.py


def result_files(root: Path) -> list[Path]:
    """Every result.json below a folder, in path order; folders that come and go while runs train are no matter."""
    found = []
    for folder, subfolders, files in os.walk(root):  # passes over what it cannot list, as rglob does not
        subfolders[:] = [name for name in subfolders if name not in ("checkpoints", "tensorboard")]
        if "result.json" in files:
            found.append(Path(folder) / "result.json")
    return sorted(found)


def find_records(roots: list[Path]) -> Iterator[Record | str]:
    """Every finished variant below the folders, in path order; for one that cannot be read, a line that says why."""
    for root in roots:
        for path in result_files(root):
            try:
                yield read_record(path.parent)
            except UserError as error:
                yield str(error)


def read_record(folder: Path) -> Record:
    """One variant's record. Raises UserError where a file is missing or broken."""
    values: dict[str, dict] = {}
    for name in ("config.yaml", "environment.json", "result.json"):
        path = folder / name
        try:
            value = read_yaml(path) if name.endswith("yaml") else read_json(path)
        except UserError as error:
            raise UserError(f"{error}; the record is left out") from None
        if not isinstance(value, dict):
            raise UserError(f"{path}: not a mapping; the record is left out")
        values[name] = value
    try:
        _check_checksums(folder, values["result.json"])
    except (UserError, OSError, ValueError) as error:
        raise UserError(f"{error}; the record is left out") from None
    result = {key: value for key, value in values["result.json"].items() if key not in ("files", "checksum")}
    return Record(folder, with_present_names(values["config.yaml"]), values["environment.json"], result)


class _Dumper(yaml.SafeDumper):
    """Quotes strings like 1e5, which PyYAML takes for text and other readers for a number."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    try:
        float(text)
    except ValueError:
        return dumper.represent_str(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'")


_Dumper.add_representer(str, _represent_text)


def _git(*arguments: str) -> str | None:
    folder = Path(__file__).resolve().parent
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
