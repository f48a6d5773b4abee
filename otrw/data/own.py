"""Data of one's own, ready to be divided: read, checked samples moved, small classes left out, small images decoded."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from otrw.config import DataConfig
from otrw.data.decode import decoded
from otrw.data.duplicates import file_hashes, image_hashes
from otrw.data.embeddings import load_embeddings
from otrw.data.files import ImageFiles
from otrw.data.folder import load_folder
from otrw.data.raw import RawData, Skipped, kept
from otrw.data.split import with_test_set
from otrw.data.table import load_table
from otrw.data.verdicts import with_corrections, with_trusted
from otrw.errors import UserError

MOST_REASONS = 3  # of what was passed over, in a line


def load_own(config: DataConfig) -> RawData:
    """A folder, a table or embeddings as settings say, with hashes. Raises UserError for anything that is wrong with it."""
    root = Path(config.root).expanduser()
    if not root.exists():
        raise UserError(f"data.root must be there, got {config.root!r}, which is not")
    try:
        match config.source:
            case "folder":
                raw = load_folder(root)
            case "table":
                raw = load_table(root, config.files, config.columns, config.cache, config.unreadable)
            case _:
                raw = load_embeddings(root, config.files, config.columns)
    except OSError as error:
        raise UserError(f"data.root: {error.filename or root} cannot be read ({error.strerror})") from None
    raw = _without_small_classes(raw, config.smallest_class)
    if isinstance(raw.inputs, ImageFiles):
        raw = _with_pixels(raw, config)
    raw = with_test_set(raw, config.test_share)
    if config.correction_files:
        raw = with_corrections(raw, [Path(name).expanduser() for name in config.correction_files])
    if config.trusted is not None:
        raw = with_trusted(raw, Path(config.trusted).expanduser())
    hashes = file_hashes(raw.inputs) if isinstance(raw.inputs, ImageFiles) else image_hashes(raw.inputs)
    return raw._replace(hashes=hashes)


def facts_of(raw: RawData) -> dict[str, object]:
    """What a record says of where the samples came from.

    Returns:
        files_hash, how many samples were skipped, by reason, and of files of verdicts how many labels were judged, and wrong.
    """
    skipped = Counter(one.reason for one in raw.skipped)
    counts = {"checked": raw.checked, "corrected": raw.corrected}
    looked_at = {name: dict(zip(("samples", "wrong"), count, strict=True)) for name, count in counts.items() if count}
    return {"files_hash": raw.files_hash, "skipped": dict(sorted(skipped.items())), **looked_at}


def skipped_note(raw: RawData) -> str:
    """A line on what was passed over; empty where nothing was."""
    if not raw.skipped:
        return ""
    reasons = Counter(one.reason for one in raw.skipped).most_common()
    said = ", ".join(f"{count} {reason}" for reason, count in reasons[:MOST_REASONS])
    more = f" and {len(reasons) - MOST_REASONS} other reasons" if len(reasons) > MOST_REASONS else ""
    return f"passed over: {said}{more}; such as {raw.skipped[-1].identity}"


def _without_small_classes(raw: RawData, smallest: int) -> RawData:
    sizes = np.bincount(raw.labels[raw.parts.train], minlength=len(raw.class_names))
    small = np.flatnonzero(sizes < smallest)
    if not len(small):
        return raw
    if len(raw.class_names) - len(small) < 2:
        raise UserError(
            f"data.smallest_class must leave two classes or more, got {smallest}; the largest has {sizes.max()} samples"
        )
    reason = f"of a class with fewer than {smallest} training samples"
    leave = np.isin(raw.labels, small) | (False if raw.true_labels is None else np.isin(raw.true_labels, small))
    names = raw.identities or tuple(map(str, range(len(raw.labels))))
    return kept(raw, ~leave, tuple(Skipped(names[row], reason) for row in np.flatnonzero(leave)))


def _with_pixels(raw: RawData, config: DataConfig) -> RawData:
    assert isinstance(raw.inputs, ImageFiles)
    found = decoded(
        raw.inputs,
        image_size=config.image_size,
        limit_gib=config.memory_limit_gib,
        unreadable=config.unreadable,
        cache=config.cache,
        threads=os.cpu_count() or 1,
    )
    if found.images is not None:
        raw = raw._replace(inputs=found.images)
    else:
        note = f"images stay in their files: {found.reason}"
        raw = raw._replace(notes=(*raw.notes, note), in_files_since=found.reason)
    if not found.bad:
        return raw
    keep = np.ones(len(raw.labels), dtype=bool)
    keep[list(found.bad)] = False
    assert raw.identities is not None
    return kept(raw, keep, tuple(Skipped(raw.identities[row], "cannot be decoded") for row in sorted(found.bad)))
