"""Files that are written whole or not at all, whatever ends the process and whoever else writes the same name."""

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"
"""Prefix of files and folders that are being written; a killed process leaves them behind."""


@contextlib.contextmanager
def replace(path: Path) -> Iterator[Path]:
    """A new, empty file beside `path`, which takes its place when the block ends, and goes when the block fails.

    The name cannot be guessed and the file is created exclusively, so that a symbolic link put there is not followed.
    Its content is on the disk before it gets its name. It has the permissions that the umask gives, unlike those of
    the tempfile module, because folders of runs are shared.

    Args:
        path: the file to write; its folder exists.

    Yields:
        The file to fill, in the same folder.

    Raises:
        OSError: where it cannot be written; `path` is then as it was before.
    """
    temporary = path.with_name(PARTIAL + secrets.token_hex(8))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        synchronize(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # not every file system lets a folder be opened
        synchronize(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with replace(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a file in UTF-8 whole or not at all, line ends as they are. Raises OSError."""
    write_bytes(path, text.encode("utf-8"))


def remove_partial(folder: Path, older_than_seconds: float = 3600.0) -> None:
    """Remove what killed writes have left in a folder (not below it). What cannot be removed stays, without an error.

    Args:
        folder: where `replace` was used.
        older_than_seconds: since the last change. Younger ones may belong to a process that still writes.
    """
    with contextlib.suppress(OSError):
        for path in list(folder.glob(f"{PARTIAL}*")):
            with contextlib.suppress(OSError):
                if time.time() - path.lstat().st_mtime < older_than_seconds:
                    continue
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()


def synchronize(path: Path) -> None:
    """Wait until a file's content, or a folder's names, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
