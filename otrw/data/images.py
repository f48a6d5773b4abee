"""From the bytes of an image file to pixels, for files that nobody has looked at."""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from otrw.errors import UserError, first_line

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 1024 * 1024
"""Of an image that is kept in memory at its own size. A few kilobytes can stand for gigabytes of pixels."""
MOST_PIXELS_OF_A_FILE = 89_478_485
"""Of an image that is read to be cut or made smaller: the number up to which Pillow suspects nothing."""
FORMATS_NOT_READ = ("EPS", "WMF", "FPX", "MIC", "BUFR", "GRIB", "HDF5", "MPEG")
"""For the first two Pillow starts other programs; the others it only recognises, or needs further packages for."""
ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF's tag of how an image is to be turned, and the values that exchange width and height."""
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "La", "RGBa")
"""Eight bits a channel or fewer."""
MODES_OF_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
"""Grey, 16 bits: the upper eight are kept, where Pillow alone would turn everything above 255 white."""


def decode_image(data: bytes | None, path: Path, row: int) -> np.ndarray:
    """Pixels (height, width, 3) uint8 of an encoded image in a table.

    Args:
        data: the image file; None, where it is missing, is refused.
        path: the file that it stands in, for the message.
        row: its row there, for the message.

    Raises:
        UserError: as `open_image`, and for more than `MOST_PIXELS` pixels.
    """
    return np.asarray(open_image(data or b"", f"{path}: the image in row {row}", MOST_PIXELS))


def open_image(
    data: bytes,
    name: str,
    most_pixels: int = MOST_PIXELS_OF_A_FILE,
    enough: Callable[[int, int], tuple[int, int]] | None = None,
) -> "Image.Image":
    """An encoded image as Pillow's, mode RGB, turned as its EXIF orientation says; of an animation the first frame.

    An alpha channel is dropped, as torchvision does; CMYK becomes RGB by Pillow's rule; of 16 bits the upper 8 are kept.

    Args:
        data: the image file.
        name: what to call it in messages.
        most_pixels: in width times height.
        enough: told width and height of the upright image, it says how many pixels of each are needed; a JPEG is then
            decoded at a half, a quarter or an eighth where that leaves as many. None: all.

    Raises:
        UserError: for what is no whole image, is empty or too large, or has 32 bits a channel.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data), formats=_formats()) as image:
            width, height = image.size
            if not 0 < width * height <= most_pixels:
                raise ValueError(f"{width} x {height} pixels, must be 1 to {most_pixels}")
            if image.mode not in MODES + MODES_OF_16_BITS:
                raise ValueError(f"mode {image.mode}, must have 8 or 16 bits a channel")
            if enough is not None:
                turned = image.getexif().get(ORIENTATION) in TURNED
                needed = enough(*((height, width) if turned else (width, height)))
                image.draft(image.mode, needed[::-1] if turned else needed)
            upright = ImageOps.exif_transpose(image)
            if image.mode in MODES_OF_16_BITS:
                upright = Image.fromarray((np.asarray(upright).astype(np.uint16) >> 8).astype(np.uint8))
            return upright.convert("RGB")
    except UnidentifiedImageError:
        raise UserError(f"{name} is no image that Pillow can read; copy the file again") from None
    except Exception as error:  # decoders raise many kinds for bytes that are no image
        raise UserError(f"{name} cannot be decoded ({first_line(error)}); copy the file again") from None


@cache
def suffixes() -> tuple[str, ...]:
    """Ends of the names of image files, in lower case, of the formats that are read."""
    from PIL import Image

    known = _formats()
    return tuple(sorted(suffix for suffix, name in Image.registered_extensions().items() if name in known))


@cache
def _formats() -> list[str]:
    """What this Pillow was built with, without `FORMATS_NOT_READ`."""
    from PIL import Image

    Image.init()
    return [name for name in Image.OPEN if name not in FORMATS_NOT_READ]
