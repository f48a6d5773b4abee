"""Images in folders, one a class: ROOT/train/CLASS/* beside trusted, validation and test, or ROOT/CLASS/* alone."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from otrw.data.files import ImageFiles
from otrw.data.images import suffixes
from otrw.data.part_names import NAMES, part_of
from otrw.data.raw import Parts, RawData, Skipped, listing_hash
from otrw.errors import UserError, shown


class _Found(NamedTuple):
    """An image file."""

    name: str
    identity: str
    class_name: str
    path: str
    size: int
    modified: int


def load_folder(root: Path) -> RawData:
    """The images below a folder. Nothing is decoded.

    A sub-folder named train (or training) makes the others parts too: trusted (meta), validation (val, valid, dev), test
    (testing). Without it every sub-folder is a class and all images are for training. Classes are numbered by their names in
    the order of code points, images inside a part by their file names; below a class folders may go deeper. Symbolic links
    are followed, each folder once.

    Args:
        root: the folder.

    Returns:
        Images in their files, by part; skipped are files that have no image's suffix, hidden ones, links to nothing, files
        outside any class, and classes without an image.

    Raises:
        UserError: where it is no folder, holds no image, or its sub-folders contradict each other.
    """
    if not root.is_dir():
        raise UserError(
            f"data.root must be a folder of images, got {str(root)!r}; name the one that holds train/ or the classes"
        )
    skipped: list[Skipped] = []
    parts = _parts(root, skipped)
    found = {part: sorted(_images(root, folder, skipped)) for part, folder in parts.items()}
    names = sorted({image.class_name for images in found.values() for image in images})
    if not found["train"]:
        raise UserError(
            f"data.root must hold images in train/CLASS/ or CLASS/, got none in {str(root)!r}"
            + (f" ({len(skipped)} files passed over, such as {skipped[0].identity}: {skipped[0].reason})" if skipped else "")
        )
    images = [image for part in found.values() for image in part]
    label_of = {name: label for label, name in enumerate(names)}
    labels = np.array([label_of[image.class_name] for image in images], dtype=np.int64)
    ends = np.cumsum([len(part) for part in found.values()])
    rows = dict(zip(found, np.split(np.arange(len(images)), ends[:-1]), strict=True))
    identities = tuple(image.identity for image in images)
    stamps = np.array([(image.size, image.modified) for image in images], dtype=np.int64)
    files = ImageFiles(_objects(image.path for image in images), _objects(identities), stamps=stamps)
    raw = RawData(files, labels, Parts(**rows), tuple(names), identities=identities, skipped=tuple(skipped))
    return raw._replace(files_hash=listing_hash(raw, stamps[:, 0]), notes=_notes(root, parts["train"], found["train"]))


def _notes(root: Path, train: Path, images: list[_Found]) -> tuple[str, ...]:
    """A line where no class has an image of its own, all lying deeper: the folder given may be one too far up."""
    below: set[tuple[str, ...]] = set()
    for image in images:
        folders = Path(os.path.relpath(image.path, train)).parts[:-1]
        if len(folders) < 2:  # nearly always the first one
            return ()
        below.add(folders[:2])
    if len(below) == len({folders[0] for folders in below}):
        return ()
    deeper = os.path.relpath(train / Path(*min(below)), root)
    return (f"every image lies in a sub-folder of its class, such as {deeper!r}; is data.root one level too far up?",)


def _parts(root: Path, skipped: list[Skipped]) -> dict[str, Path]:
    """{part: folder}, train first; the root itself where it holds classes."""
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    by_part: dict[str, list[str]] = {}
    for name in folders:
        by_part.setdefault(part_of(name) or "", []).append(name)
    if "train" not in by_part:
        others = [name for part, names in by_part.items() if part for name in names]
        if others:
            raise UserError(
                f"data.root must hold train/ beside {others[0]}/, got {str(root)!r} without it; is it one level up?"
            )
        return {"train": root}
    for part, names in by_part.items():
        if part and len(names) > 1:
            raise UserError(f"data.root must hold one folder for {part}, got {shown(names)} in {str(root)!r}; merge them")
    skipped += [Skipped(name, "a folder beside train that names no part") for name in by_part.get("", [])]
    return {part: root / by_part[part][0] for part in NAMES if part in by_part}


def _images(root: Path, folder: Path, skipped: list[Skipped]) -> Iterator[_Found]:
    """All image files of one part."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        identity = _identity(root, entry.path)
        if entry.is_dir():
            if entry.name.startswith("."):
                continue
            class_name = unicodedata.normalize("NFC", entry.name)
            if not class_name.isprintable():
                raise UserError(f"{identity}: the name of a class must be printable text; rename the folder")
            images = list(_images_of_class(root, entry.path, class_name, skipped))
            if not images:
                skipped.append(Skipped(identity, "a class without an image"))
            yield from images
        elif root != folder or entry.name.lower().endswith(suffixes()):
            skipped.append(Skipped(identity, "not inside the folder of a class"))


def _images_of_class(root: Path, top: str, class_name: str, skipped: list[Skipped]) -> Iterator[_Found]:
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder above itself
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in os.scandir(folder):
            identity = _identity(root, entry.path)
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                waiting.append(entry.path)
            elif not entry.name.lower().endswith(suffixes()):
                skipped.append(Skipped(identity, "no image by its name"))
            elif not os.path.relpath(entry.path, root).isprintable():
                skipped.append(Skipped(identity, "a name that is no printable text"))
            else:
                try:
                    status = entry.stat()
                except OSError:
                    skipped.append(Skipped(identity, "a link to nothing"))
                    continue
                yield _Found(entry.name, identity, class_name, entry.path, status.st_size, status.st_mtime_ns)


def _identity(root: Path, path: str) -> str:
    """The path below the root; bytes of a name that are no UTF-8 stand as \\xNN."""
    return os.path.relpath(path, root).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _objects(values: "Iterator[str] | tuple[str, ...]") -> np.ndarray:
    return np.array(tuple(values), dtype=object)
