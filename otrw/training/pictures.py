"""Pictures for TensorBoard, drawn with Pillow: the confusion matrix, and samples with their labels."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

COLUMNS = 8  # samples side by side
TILE = 96  # pixels: side of a sample
CAPTION_LINE = 15  # pixels


def confusion_picture(confusion: np.ndarray, class_names: tuple[str, ...], cell: int = 46) -> Tensor:
    """Counts (C, C), true class down and predicted class across -> (3, height, width) in [0, 1].

    Shade is the share of the true class; with few classes cells hold percentages and the margins name the classes.
    """
    from PIL import Image, ImageDraw, ImageFont

    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    num_classes = len(share)
    with_text = num_classes <= 20
    cell = cell if with_text else max(4, 800 // num_classes)
    left, top = (96, 44) if with_text else (0, 0)
    picture = Image.new("RGB", (left + cell * num_classes, top + cell * num_classes), "white")
    draw = ImageDraw.Draw(picture)
    draw.font = ImageFont.load_default(size=15)
    for i, j in np.ndindex(num_classes, num_classes):
        x, y = left + j * cell, top + i * cell
        shade = float(share[i, j]) ** 0.5
        colour = tuple(int(255 + shade * (c - 255)) for c in (8, 64, 129))
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=colour)
        if with_text and share[i, j] >= 0.005:
            ink = "white" if shade > 0.6 else "black"
            draw.text((x + cell / 2, y + cell / 2), f"{100 * share[i, j]:.0f}", fill=ink, anchor="mm")
    if with_text:
        draw.text((left, 4), "predicted (columns), true (rows), % of the true class", fill="black")
        for label, name in enumerate(class_names):
            draw.text((left - 6, top + (label + 0.5) * cell), name[:14], fill="black", anchor="rm")
            draw.text((left + (label + 0.5) * cell, top - 7), name[:5], fill="black", anchor="ms")
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255


def suspects_picture(
    images: Tensor, given: Sequence[int], suggested: Sequence[int], weights: Sequence[float], class_names: Sequence[str]
) -> Tensor:
    """Samples in a grid, each above its given label, the suggested one and its weight.

    Args:
        images: (n, H, W, C) uint8, C 1 or 3; n at least 1.
        given: n labels as they are in the training set.
        suggested: n labels that a model or the transport holds more probable.
        weights: n weights, whose mean over the training set is 1.
        class_names: by label.

    Returns:
        (3, height, width) in [0, 1].
    """
    from PIL import Image, ImageDraw, ImageFont

    captions = [
        (f"given {class_names[a]}", f"rather {class_names[b]}" if a != b else "not another", f"weight {weight:.2g}")
        for a, b, weight in zip(given, suggested, weights, strict=True)
    ]
    font = ImageFont.load_default(size=12)
    gap = 8
    tile = max(TILE, *(int(font.getlength(line)) + 1 for lines in captions for line in lines))
    columns = min(COLUMNS, len(captions))
    rows = -(-len(captions) // columns)
    height = TILE + 3 * CAPTION_LINE + gap
    picture = Image.new("RGB", (gap + columns * (tile + gap), gap + rows * height), "white")
    draw = ImageDraw.Draw(picture)
    pixels = images.cpu().expand(-1, -1, -1, 3).numpy()
    for place, (sample, lines) in enumerate(zip(pixels, captions, strict=True)):
        x, y = gap + place % columns * (tile + gap), gap + place // columns * height
        picture.paste(Image.fromarray(sample).resize((TILE, TILE), Image.Resampling.NEAREST), (x, y))
        for number, line in enumerate(lines):
            colour = "#b00020" if number == 1 and line != "not another" else "black"
            draw.text((x, y + TILE + number * CAPTION_LINE), line, fill=colour, font=font)
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1).float() / 255
