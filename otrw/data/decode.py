"""Images of one's own into memory, where they are small enough; and which of them cannot be decoded."""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otrw.data.cache import cached_arrays
from otrw.data.files import ImageFiles
from otrw.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

IN_A_TASK = 32
"""Images that a thread decodes before it hands them over."""


class Decoded(NamedTuple):
    """What came of a set of image files."""

    images: np.ndarray | None
    """(N, height, width, 3) uint8, zeros where an image cannot be decoded; None: they stay in their files."""
    bad: dict[int, str]
    """{row: what is wrong with it}; of images that stay in their files only where they were all looked at."""
    reason: str
    """Why they stay in their files; empty where they do not."""


class _OtherSize(Exception):
    """An image has another size than the first."""


def decoded(
    files: ImageFiles, *, image_size: int | None, limit_gib: float, unreadable: str, cache: str, threads: int
) -> Decoded:
    """Decode images into one array, once for all runs, where they have one size and fit the limit.

    Args:
        files: N images.
        image_size: bring every image to this side; None keeps the size, which then must be the same for all.
        limit_gib: most GiB of all decoded images.
        unreadable: with "refuse" an image that cannot be decoded ends it; with "skip" all are looked at, also those that stay
            in their files.
        cache: folder for what is decoded; empty keeps nothing.
        threads: that decode side by side.

    Raises:
        UserError: naming the first image that cannot be decoded, with "refuse"; or where not one can be.
    """
    side = _first_size(files) if image_size is None else (image_size, image_size)
    num_bytes = len(files) * side[0] * side[1] * 3
    reason = ""
    if num_bytes > limit_gib * 2**30:
        reason = f"{num_bytes / 2**30:.2f} GiB of pixels, data.memory_limit_gib is {limit_gib:g}"
    else:
        try:
            arrays = _cached("images", files, cache, image_size, lambda: _decode(files, image_size, side, threads))
            bad = json.loads(bytes(arrays["bad"]))
            _check_bad(bad, len(files), unreadable)
            return Decoded(arrays["images"], {int(row): text for row, text in bad.items()}, "")
        except _OtherSize as found:
            reason = str(found)
    bad = {}
    if unreadable == "skip":
        arrays = _cached("looked-at", files, cache, image_size, lambda: {"bad": _as_array(_look_at(files, threads))})
        bad = json.loads(bytes(arrays["bad"]))
        _check_bad(bad, len(files), unreadable)
    return Decoded(None, {int(row): text for row, text in bad.items()}, reason)


def square(image: "Image", side: int) -> "Image":
    """An image whose shorter side is resized, and whose centre is cut out. One that has that size is left as it is."""
    from PIL import Image, ImageOps

    return image if image.size == (side, side) else ImageOps.fit(image, (side, side), Image.Resampling.BILINEAR)


def _decode(files: ImageFiles, image_size: int | None, side: tuple[int, int], threads: int) -> dict[str, np.ndarray]:
    """All images in one array, and what is wrong with which. Raises _OtherSize at the first of another size."""
    images = np.zeros((len(files), side[1], side[0], 3), dtype=np.uint8)
    bad: dict[int, str] = {}

    def read(row: int) -> "np.ndarray | str":
        try:
            image = files.read(row)
        except UserError as error:
            return str(error)
        return np.asarray(image if image_size is None else square(image, image_size))

    for row, result in enumerate(_in_threads(read, len(files), threads)):
        if isinstance(result, str):
            bad[row] = result
        elif result.shape != images.shape[1:]:
            height, width = result.shape[:2]
            raise _OtherSize(f"images of several sizes, such as {side[0]} x {side[1]} and {width} x {height}")
        else:
            images[row] = result
    return {"images": images, "bad": _as_array(bad)}


def _look_at(files: ImageFiles, threads: int) -> dict[int, str]:
    def read(row: int) -> str:
        try:
            files.read(row)
        except UserError as error:
            return str(error)
        return ""

    return {row: text for row, text in enumerate(_in_threads(read, len(files), threads)) if text}


def _in_threads(read: Callable[[int], Any], number: int, threads: int) -> Iterator[Any]:
    """read(0), read(1) and so on in order; Pillow decodes without Python's lock.

    A task reads several: with one task an image, handing over small images takes as long as decoding them.
    """
    tasks = [range(start, min(start + IN_A_TASK, number)) for start in range(0, number, IN_A_TASK)]
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that is damaged: pixels that are damaged are errors
        for start in range(0, len(tasks), 2 * threads):  # what is decoded and not yet stored stays small
            for results in pool.map(lambda rows: [read(row) for row in rows], tasks[start : start + 2 * threads]):
                yield from results


def _first_size(files: ImageFiles) -> tuple[int, int]:
    """(width, height) of the first image that can be decoded. Raises UserError where there is none."""
    message = ""
    for row in range(len(files)):
        try:
            return files.read(row).size
        except UserError as error:
            message = message or str(error)
    raise UserError(message)


def _check_bad(bad: dict, number: int, unreadable: str) -> None:
    if not bad:
        return
    first = next(iter(bad.values()))
    if len(bad) == number:
        raise UserError(f"{first}; so for all {number} images")
    if unreadable == "refuse":
        others = f" (and {len(bad) - 1} more of {number})" if len(bad) > 1 else ""
        raise UserError(f"{first}{others}, or leave such images out with --data.unreadable skip")


def _cached(
    name: str, files: ImageFiles, cache: str, image_size: int | None, decode: Callable[[], dict[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    digest = hashlib.sha256(b"" if files.stamps is None else files.stamps.tobytes())
    digest.update("\n".join(files.identities).encode("utf-8", "backslashreplace"))
    return cached_arrays(name, [], cache if files.stamps is not None else "", decode, f"{digest.hexdigest()}|{image_size}")


def _as_array(bad: dict[int, str]) -> np.ndarray:
    return np.frombuffer(json.dumps(bad).encode(), dtype=np.uint8)
