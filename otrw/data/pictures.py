"""Samples as pictures to look at, whatever their data set keeps them as."""

from typing import TYPE_CHECKING

import numpy as np

from otrw.data.files import ImageFiles

if TYPE_CHECKING:
    from PIL.Image import Image


def has_pictures(inputs: np.ndarray | ImageFiles) -> bool:
    """Whether samples are images; embeddings are not."""
    return isinstance(inputs, ImageFiles) or inputs.ndim == 4


def picture(inputs: np.ndarray | ImageFiles, row: int) -> "Image":
    """A sample as a Pillow image.

    Args:
        inputs: (N, height, width, 1 or 3) uint8, or image files.
        row: from 0 to N - 1.

    Raises:
        UserError: where its file cannot be read.
    """
    from PIL import Image

    if isinstance(inputs, ImageFiles):
        return inputs.read(row)
    pixels = np.asarray(inputs[row])
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def small_pictures(inputs: np.ndarray | ImageFiles, rows: np.ndarray, side: int = 16) -> np.ndarray:
    """(n, side, side, 3) uint8: samples brought to one small size, whatever their shape.

    Args:
        inputs: as for `picture`.
        rows: (n,) which.
        side: in pixels.
    """
    from PIL import Image

    def small(row: int) -> np.ndarray:
        return np.asarray(picture(inputs, row).convert("RGB").resize((side, side), Image.Resampling.BOX))

    return np.stack([small(int(row)) for row in rows])
