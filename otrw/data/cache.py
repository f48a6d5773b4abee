"""Decoded images kept on disk, so that the second start takes no decoding."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

NAMES = "names.txt"


def cached_arrays(
    name: str, files: list[Path], cache: str, decode: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays that decode() makes of the files, from the cache folder where they are there.

    The key is the name, size and modification time of every file. An empty `cache` keeps nothing; a cache folder that
    cannot be written is passed over in silence, since only time is lost.
    """
    if not cache:
        return decode()
    stamp = "|".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)
    folder = Path(cache).expanduser() / f"{name}-{hashlib.sha256(stamp.encode()).hexdigest()[:16]}"
    with contextlib.suppress(OSError, ValueError, EOFError):
        return {key: np.load(folder / f"{key}.npy") for key in (folder / NAMES).read_text().split()}
    arrays = decode()
    with contextlib.suppress(OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        for key, array in arrays.items():
            np.save(temporary / f"{key}.npy", array)
        (temporary / NAMES).write_text("\n".join(arrays))
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been read
        try:
            os.replace(temporary, folder)
        except OSError:  # another process was faster
            shutil.rmtree(temporary, ignore_errors=True)
    return arrays
