"""Images that stay in their files until they are needed: where each one is, and how it is read."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np

from otrw.data.images import open_image
from otrw.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

WHOLE_FILE = -1


@dataclass(frozen=True)
class ImageFiles:
    """N encoded images of any size, each a file or a piece of one. Cheap to select from and to send to worker processes.

    A piece of a file is how images in Parquet are had one by one: their bytes are first copied, one after the other, into
    a file of the cache, since a row of Parquet cannot be read alone.
    """

    paths: np.ndarray
    """(N,) object: str, the file of each image."""
    identities: np.ndarray
    """(N,) object: str, what messages and records call each image: its path below data.root, or FILE:ROW."""
    offsets: np.ndarray | None = None
    """(N,) int64, first byte of each image in its file; None: every image is a whole file."""
    lengths: np.ndarray | None = None
    """(N,) int64, number of its bytes; `WHOLE_FILE` for a whole file."""
    stamps: np.ndarray | None = None
    """(N, 2) int64, size and modification time of what each image comes from; for the keys of caches."""

    def __len__(self) -> int:
        return len(self.paths)

    @overload
    def __getitem__(self, rows: slice) -> "ImageFiles": ...
    @overload
    def __getitem__(self, rows: np.ndarray) -> "ImageFiles": ...
    def __getitem__(self, rows: np.ndarray | slice) -> "ImageFiles":
        """The images of these rows, in this order."""
        pieces = (self.offsets, self.lengths, self.stamps)
        return ImageFiles(self.paths[rows], self.identities[rows], *(None if x is None else x[rows] for x in pieces))

    def key(self) -> str:
        """Hexadecimal digits that change with the choice of images and with their files."""
        digest = hashlib.sha256("\n".join(map(str, self.paths)).encode("utf-8", "backslashreplace"))
        for array in (self.offsets, self.lengths, self.stamps):
            digest.update(b"" if array is None else array.tobytes())
        return digest.hexdigest()

    def content(self, row: int, last: int | None = None) -> bytes:
        """The encoded image of a row, or its last bytes. Raises UserError where its file cannot be read."""
        try:
            with Path(self.paths[row]).open("rb") as file:
                if self.offsets is None or self.lengths is None or self.lengths[row] == WHOLE_FILE:
                    start, length = 0, os.fstat(file.fileno()).st_size
                else:
                    start, length = int(self.offsets[row]), int(self.lengths[row])
                skipped = 0 if last is None else max(0, length - last)
                file.seek(start + skipped)
                return file.read(length - skipped)
        except OSError as error:
            raise UserError(f"{self.paths[row]}: the image cannot be read ({error.strerror}); put the file back") from None

    def read(self, row: int, enough: Callable[[int, int], tuple[int, int]] | None = None) -> "Image":
        """The image of a row: mode RGB, 8 bits a channel, turned as its EXIF orientation says.

        Args:
            row: from 0 to N - 1.
            enough: as in `open_image`.

        Returns:
            A Pillow image, decoded, of whatever size the file has.

        Raises:
            UserError: naming the image, where it is missing, damaged, or of a kind that cannot be made 8-bit RGB.
        """
        return open_image(self.content(row), str(self.identities[row]), enough=enough)
