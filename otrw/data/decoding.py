"""Large images: decoded and cropped when a batch asks for them, in worker processes.

What a crop is like depends on (key, sample) as the rest of augmentation does, never on the worker or on the process.
"""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from otrw.data.draws import uniform_draws
from otrw.data.files import ImageFiles
from otrw.errors import UserError, first_line

MOST_WORKERS = 8
"""Of a process, where the settings do not say: more rarely decode faster than one net computes."""
NUM_TRIES = 10
"""Boxes that a random crop tries before it takes the centre, as torchvision's RandomResizedCrop."""
NUM_DRAWS = 2 * NUM_TRIES + 2
ASPECT_RATIOS = (3 / 4, 4 / 3)
"""Width over height of a random crop, before it is made square (arXiv 1409.4842)."""


class Box(NamedTuple):
    """A part of an image, in pixels."""

    left: float
    top: float
    width: float
    height: float


class Cropping(NamedTuple):
    """How an image of any size becomes a square of pixels."""

    image_size: int
    """Side in pixels."""
    resize_size: int
    """Evaluation: the shorter side has this many pixels when the centre is cut out."""
    interpolation: str
    """bilinear or bicubic."""
    smallest_share: float = 1.0
    """Training: smallest share of the area that a random crop takes; 1: the centre, as in evaluation."""

    def box(self, width: int, height: int, draws: Sequence[float] | None) -> Box:
        """The part of an image that becomes the square.

        Args:
            width: of the whole image.
            height: of the whole image.
            draws: `NUM_DRAWS` numbers in [0, 1); None for the centre.
        """
        if draws is not None and self.smallest_share < 1:
            return random_box(width, height, self.smallest_share, draws)
        side = min(width, height) * self.image_size / self.resize_size
        return Box((width - side) / 2, (height - side) / 2, side, side)


class Request(NamedTuple):
    """The images of one batch."""

    rows: list[int]
    """Which; none twice."""
    key: int | None
    """Of the random crops; None for the centre."""


class Failure(NamedTuple):
    """An image that could not be had."""

    message: str
    """One line that names it."""


def random_box(width: int, height: int, smallest_share: float, draws: Sequence[float]) -> Box:
    """A part of random area, shape and place: torchvision's RandomResizedCrop, with draws that are given.

    Args:
        width: of the whole image.
        height: of the whole image.
        smallest_share: the area is uniform between this share and all of the image.
        draws: `NUM_DRAWS` numbers in [0, 1).

    Returns:
        A box of whole pixels inside the image.
    """
    low, high = (math.log(ratio) for ratio in ASPECT_RATIOS)
    x, y = draws[-2:]
    for area_draw, ratio_draw in zip(draws[0:-2:2], draws[1:-2:2], strict=True):
        area = width * height * (smallest_share + area_draw * (1 - smallest_share))
        ratio = math.exp(low + ratio_draw * (high - low))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Box(int(x * (width - w + 1)), int(y * (height - h + 1)), w, h)
    # the largest part of a bearable shape, from the centre
    w, h = min(width, round(height * ASPECT_RATIOS[1])), min(height, round(width / ASPECT_RATIOS[0]))
    return Box((width - w) // 2, (height - h) // 2, w, h)


def decoded(files: ImageFiles, row: int, cropping: Cropping, draws: Sequence[float] | None) -> np.ndarray:
    """An image as a square of pixels, (image_size, image_size, 3) uint8.

    A JPEG is decoded at a half, a quarter or an eighth of its size where the box still has as many pixels as the square.

    Args:
        files: where images are.
        row: which one.
        cropping: what becomes of it.
        draws: `NUM_DRAWS` numbers in [0, 1) for a random crop; None for the centre.

    Raises:
        UserError: naming the image.
    """
    from PIL import Image

    size = cropping.image_size
    whole: list[int] = []
    box = Box(0, 0, 0, 0)

    def enough(width: int, height: int) -> tuple[int, int]:
        nonlocal box
        whole[:] = width, height
        box = cropping.box(width, height, draws)
        return math.ceil(width * size / box.width), math.ceil(height * size / box.height)

    image = files.read(row, enough)
    scale = next(s for s in (1, 2, 4, 8) if image.size == (-(-whole[0] // s), -(-whole[1] // s)))
    right, bottom = min(image.width, (box.left + box.width) / scale), min(image.height, (box.top + box.height) / scale)
    corners = (box.left / scale, box.top / scale, right, bottom)
    method = Image.Resampling.BICUBIC if cropping.interpolation == "bicubic" else Image.Resampling.BILINEAR
    return np.asarray(image.resize((size, size), method, box=corners))


class _Decoder(Dataset):
    """Batches of pixels by request; what goes wrong is an answer, so that it keeps its one line on the way back."""

    def __init__(self, files: ImageFiles, cropping: Cropping) -> None:
        self.files = files
        self.cropping = cropping

    def __getitem__(self, request: Request) -> Tensor | Failure:
        draws: list[list[float]] | list[None] = [None] * len(request.rows)
        if request.key is not None:
            draws = uniform_draws(request.key, torch.tensor(request.rows), NUM_DRAWS).tolist()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of metadata that is damaged: pixels that are damaged are errors
                pixels = [decoded(self.files, row, self.cropping, own) for row, own in zip(request.rows, draws, strict=True)]
        except UserError as error:
            return Failure(str(error))
        return torch.from_numpy(np.stack(pixels))


def decoded_batches(
    files: ImageFiles, cropping: Cropping, requests: Sequence[Request], *, workers: int, pin_memory: bool = False
) -> Iterator[Tensor | Failure]:
    """The pixels of batches, in order, while further ones are being decoded.

    Args:
        files: where images are.
        cropping: what becomes of them.
        requests: rows and key of each batch.
        workers: processes that decode, each a whole batch; 0: this one does.
        pin_memory: into memory that a GPU copies from by itself.

    Yields:
        (n, image_size, image_size, 3) uint8 on the CPU, or why that is not to be had, for each request.
    """
    workers = min(workers, len(requests))
    batches = iter(
        DataLoader(
            _Decoder(files, cropping),
            batch_size=None,
            sampler=requests,
            num_workers=workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else each pass would take a draw from torch's own, and so change dropout
        )
    )
    failure: Failure | None = None
    for _ in requests:
        try:
            yield failure or next(batches)
        except RuntimeError as error:  # a worker was killed, as it is where memory runs out
            failure = Failure(
                f"data.workers must be as few as this machine has memory for, got {workers} ({first_line(error)}); try half"
            )
            yield failure


def all_decoded(files: ImageFiles, cropping: Cropping, *, workers: int, at_a_time: int = 32) -> Tensor:
    """The centres of all images at once: (N, image_size, image_size, 3) uint8 on the CPU. Raises UserError."""
    rows = list(range(len(files)))
    requests = [Request(rows[start : start + at_a_time], None) for start in range(0, len(rows), at_a_time)]
    parts = []
    for part in decoded_batches(files, cropping, requests, workers=workers):
        if isinstance(part, Failure):
            raise UserError(part.message)
        parts.append(part)
    return torch.cat(parts) if parts else torch.zeros(0, cropping.image_size, cropping.image_size, 3, dtype=torch.uint8)


def default_workers() -> int:
    """Workers of this process: a core each, of those that the launcher leaves it, at most `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(MOST_WORKERS, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def pictures(inputs: Tensor | ImageFiles, rows: Tensor, side: int = 96) -> Tensor | None:
    """Small pictures of some samples, for people: (n, height, width, channels) uint8 on the CPU; None for embeddings.

    Args:
        inputs: (N, height, width, channels) uint8, images in files, or (N, D).
        rows: (n,) which.
        side: of images in files, whose centre is taken.
    """
    if isinstance(inputs, Tensor):
        return inputs[rows.to(inputs.device)].cpu() if inputs.dim() == 4 else None
    return all_decoded(inputs[rows.cpu().numpy()], Cropping(side, side, "bilinear"), workers=0)


def _as_it_is(batch: Tensor | Failure) -> Tensor | Failure:
    return batch
