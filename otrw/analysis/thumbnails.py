"""Small pictures inside a page."""

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

QUALITY = 85


def thumbnail_uri(image: "Image", side: int) -> str:
    """An image as a data URI, at most `side` pixels on its longer side: PNG for tiny ones, JPEG otherwise."""
    from PIL import Image as Images

    image = image if image.mode in ("L", "RGB") else image.convert("RGB")
    is_tiny = max(image.size) <= 64
    if not is_tiny:
        image = image.copy()
        image.thumbnail((side, side), Images.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if is_tiny:
        image.save(buffer, "PNG", optimize=True)
    else:
        image.save(buffer, "JPEG", quality=QUALITY)
    kind = "png" if is_tiny else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
