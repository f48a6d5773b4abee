"""Decoded images kept on disk, so that the second start takes no decoding."""

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from otrw import atomic

VERSION = 2
"""Part of the key: raised whenever decode() makes other arrays of the same files."""
SUFFIX = ".arrays"
MOST_BYTES_OF_FACTS = 65_536


def cached_arrays(
    name: str, files: list[Path], cache: str, decode: Callable[[], dict[str, np.ndarray]], more: str = ""
) -> dict[str, np.ndarray]:
    """The arrays that decode() makes of the files, from the cache folder where they are there.

    All arrays of a data set are one file, which appears whole or not at all. What is cut off or fails its checksum is made
    anew; a folder that cannot be read or written is passed over in silence, since only time is lost.

    Args:
        name: of the data set.
        files: what decode() reads. The key is the name, size and modification time of every one.
        cache: folder; empty keeps nothing.
        decode: reads the files.
        more: whatever else the arrays depend on; part of the key.
    """
    if not cache:
        return decode()
    stamp = "|".join(f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}" for path in files)
    stamp += f"|{more}" if more else ""
    key = hashlib.sha256(f"{VERSION}|{stamp}".encode()).hexdigest()[:16]
    path = Path(cache).expanduser() / f"{name}-{key}{SUFFIX}"
    found = read_arrays(path)
    if found is not None:
        return found
    arrays = decode()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.remove_partial(path.parent)
        write_arrays(path, arrays)
    return arrays


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as one file: a line of JSON with name, type, shape and CRC-32 of each, then their bytes in turn.

    The line begins with its own CRC-32, so that nothing is believed before it is compared. Raises OSError.
    """
    arrays = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
    facts = json.dumps([[key, array.dtype.str, array.shape, _checksum(_bytes_of(array))] for key, array in arrays.items()])
    with atomic.replace(path) as temporary, temporary.open("wb") as file:
        file.write(f"{_checksum(facts.encode())}{facts}\n".encode())
        for array in arrays.values():
            file.write(_bytes_of(array))


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of `write_arrays`' file; None where it is not there, cannot be read, or a checksum differs."""
    arrays = {}
    try:
        with path.open("rb") as file:
            line = file.readline(MOST_BYTES_OF_FACTS).removesuffix(b"\n")
            checksum, facts = line[:8], line[8:]
            if _checksum(facts).encode() != checksum:
                return None
            for key, kind, shape, expected in json.loads(facts):
                arrays[key] = np.empty(shape, np.dtype(kind))
                if file.readinto(_bytes_of(arrays[key])) != arrays[key].nbytes or _checksum(_bytes_of(arrays[key])) != expected:
                    return None
    except OSError:
        return None
    return arrays


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _checksum(data: bytes | memoryview) -> str:
    """CRC-32, 8 hex digits: it finds every burst of up to 32 bits, and takes a fifth of the time of BLAKE2b."""
    return f"{zlib.crc32(data):08x}"
