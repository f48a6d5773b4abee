"""From the bytes of an image file to pixels, for files that nobody has looked at."""

import io
from functools import cache
from pathlib import Path

import numpy as np

from otrw.errors import UserError, first_line

MOST_PIXELS = 1024 * 1024
"""Of an image. A few kilobytes can stand for gigabytes of pixels."""
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
"""Decoded by Pillow itself; for others, such as EPS, it starts other programs."""
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr")
"""Eight bits a channel or fewer: Pillow cuts off deeper ones as it makes them RGB."""


def decode_image(data: bytes | None, path: Path, row: int) -> np.ndarray:
    """Pixels (height, width, 3) uint8 of an encoded image.

    Args:
        data: the image file; None, where it is missing, is refused.
        path: the file that it stands in, for the message.
        row: its row there, for the message.

    Raises:
        UserError: for what is no whole image of `FORMATS` and `MODES`, or has more than `MOST_PIXELS` pixels.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data or b""), formats=_formats()) as image:
            width, height = image.size
            if not 0 < width * height <= MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels, must be 1 to {MOST_PIXELS}")
            if image.mode not in MODES:
                raise ValueError(f"mode {image.mode}, must be one of {', '.join(MODES)}")
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise UserError(f"{path}: the image in row {row} must be one of {', '.join(FORMATS)}; copy the file again") from None
    except Exception as error:  # decoders raise many kinds for bytes that are no image
        raise UserError(
            f"{path}: the image in row {row} cannot be decoded ({first_line(error)}); copy the file again"
        ) from None


@cache
def _formats() -> list[str]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]
