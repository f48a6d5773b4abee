"""A trained net as others use it: the file says what it was trained on and how an image must be prepared for it."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from otrw.config import Config, to_dict
from otrw.data.datasets import Datasets
from otrw.data.files import ImageFiles
from otrw.data.images import open_image
from otrw.data.pictures import has_pictures, picture
from otrw.data.view import ImageTransform
from otrw.errors import UserError
from otrw.models.build import build_model
from otrw.models.heads import Net
from otrw.models.library_nets import NetInput
from otrw.training import checkpoints

if TYPE_CHECKING:
    from PIL.Image import Image

MODEL = "model.safetensors"
USE = "use"
"""Key of a file's facts: how the net is used, as JSON."""
BATCH_SIZE = 64


class SampleTransform:
    """From one sample to what the net takes, as in the evaluation of its run.

    Called with a Pillow image, a path, or a uint8 array (height, width) or (height, width, channels), it returns a float
    tensor (channels, height, width); of a net for embeddings, from D numbers a float tensor (D,).
    """

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], shape: Sequence[int] | None, view: NetInput | None, in_files: bool
    ) -> None:
        """Keep what is needed.

        Args:
            mean: of each channel, in [0, 255].
            std: of each channel.
            shape: of a training sample in memory: (height, width, channels), or (D,); None where images were in files.
            view: what the net sees; None: images of that shape as they are.
            in_files: whether training decoded its images batch by batch, with a resize and a crop of evaluation's own.
        """
        self.mean, self.std = torch.tensor(mean), torch.tensor(std)
        self.normalise = ImageTransform(self.mean, self.std, None, view)
        self.view = view
        self.shape = shape
        self.in_files = in_files

    @property
    def is_of_images(self) -> bool:
        """Whether a sample is an image; else it is an embedding."""
        return self.shape is None or len(self.shape) == 3

    @property
    def prepared_shape(self) -> tuple[int, ...]:
        """Of what a call returns."""
        if not self.is_of_images:
            assert self.shape is not None
            return tuple(self.shape)
        if self.view is not None:
            return max(len(self.mean), 1 if self.shape is None else self.shape[2]), self.view.image_size, self.view.image_size
        assert self.shape is not None
        return max(len(self.mean), self.shape[2]), self.shape[0], self.shape[1]

    def __call__(self, sample: "Image | str | Path | np.ndarray | Sequence[float]") -> Tensor:
        """Prepare one sample. Raises UserError where it cannot be read or is of another kind."""
        from PIL import Image

        if not self.is_of_images:
            return self._embedding(sample)
        if isinstance(sample, str | Path):
            try:
                sample = open_image(Path(sample).read_bytes(), str(sample))
            except OSError as error:
                raise UserError(f"{sample}: the image cannot be read ({error.strerror})") from None
        if not isinstance(sample, Image.Image):
            pixels = np.asarray(sample)
            if pixels.dtype != np.uint8:
                raise UserError(f"an image must be a path, a Pillow image or a uint8 array, got {pixels.dtype}")
            sample = Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)
        return self._image(sample)

    def _image(self, image: "Image") -> Tensor:
        from PIL import Image, ImageOps

        grey = self.shape is not None and self.shape[-1] == 1
        image = image.convert("L" if grey else "RGB")
        if self.in_files:
            assert self.view is not None
            size = (self.view.image_size, self.view.image_size)
            side = min(image.size) * self.view.image_size / self.view.resize_size  # of the centre that evaluation sees
            left, top = (image.width - side) / 2, (image.height - side) / 2
            method = Image.Resampling.BICUBIC if self.view.interpolation == "bicubic" else Image.Resampling.BILINEAR
            image = image.resize(size, method, box=(left, top, left + side, top + side))
        else:
            assert self.shape is not None
            size = (self.shape[1], self.shape[0])
            if image.size != size:
                image = ImageOps.fit(image, size, Image.Resampling.BILINEAR)  # as data are brought to data.image_size
        pixels = torch.from_numpy(np.array(image)).view(1, size[1], size[0], -1)
        return self.normalise(pixels, torch.zeros(1, dtype=torch.int64), 0)[0]

    def _embedding(self, sample: object) -> Tensor:
        assert self.shape is not None
        numbers = np.asarray(sample, dtype=np.float32)
        if numbers.shape != tuple(self.shape):
            raise UserError(f"a sample must be an embedding of {self.shape[0]} numbers, got shape {numbers.shape}")
        return (torch.from_numpy(numbers.copy()) - self.mean) / self.std


class TrainedNet(NamedTuple):
    """What `load` returns; unpacks into three."""

    net: Net
    """In evaluation mode, on the CPU; called with (n, ...) prepared samples it gives (embedding, logits)."""
    transform: SampleTransform
    """One sample -> what the net takes."""
    class_names: tuple[str, ...]
    """C names, in the order of the logits."""


def use_facts(config: Config, data: Datasets) -> dict[str, str]:
    """What a net's file says for its use, and the settings that it was trained with, without folders of this machine."""
    settings = to_dict(config)
    del settings["run"]
    for key in ("root", "cache", "files", "trusted", "corrections", "labels_file"):
        settings["data"].pop(key, None)
    settings["stage1"].pop("checkpoint", None)
    settings["model"].pop("weights", None)
    inputs = data.train.inputs
    use = {
        "class_names": list(data.class_names),
        "mean": data.mean.tolist(),
        "std": data.std.tolist(),
        "view": None if data.view is None else data.view._asdict(),
        "shape": None if isinstance(inputs, ImageFiles) else list(inputs.shape[1:]),
        "in_files": isinstance(inputs, ImageFiles),
        "in_channels": data.in_channels,
        "image_size": config.data.image_size,
        "model": {key: value for key, value in asdict(config.model).items() if key in ("name", "width_multiplier", "head")},
    }
    return {USE: json.dumps(use, sort_keys=True), "config": json.dumps(settings, sort_keys=True)}


def load(path: str | Path) -> TrainedNet:
    """A trained net, ready to use.

    Args:
        path: folder of a variant, such as runs/NAME/ot_meta, or its model.safetensors.

    Returns:
        net, transform, class_names.

    Raises:
        UserError: where there is no such file, it is damaged, or it is of a version that did not say how it is used.

    Example:
        net, transform, class_names = otrw.load("runs/NAME/ot_meta")
        probabilities = net(transform("cat.jpg")[None]).logits.softmax(1)
        print(class_names[probabilities.argmax()])
    """
    file = model_path(Path(path))
    facts = checkpoints.model_facts(file, "the net")
    if USE not in facts:
        raise UserError(
            f"{file} must say its classes and how images are prepared, but is of an earlier version; train it again, "
            "or read it with safetensors"
        )
    try:
        use = json.loads(facts[USE])
        view = None
        if use["view"] is not None:
            seen = use["view"]
            view = NetInput(**seen | {"mean": tuple(seen["mean"]), "std": tuple(seen["std"])})
        model, names = use["model"], tuple(str(name) for name in use["class_names"])
        transform = SampleTransform(use["mean"], use["std"], use["shape"], view, use["in_files"])
        in_channels, image_size = use["in_channels"], use["image_size"]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{file} must say how it is used, got {type(error).__name__} in its header") from None
    with torch.random.fork_rng(devices=[]):
        net = build_model(
            model["name"],
            len(names),
            in_channels=in_channels,
            width_multiplier=model["width_multiplier"],
            head=model["head"],
            image_size=image_size,
        )
    checkpoints.load_model(file, net, {}, name="the net")
    return TrainedNet(net.eval().requires_grad_(False), transform, names)


def model_path(path: Path) -> Path:
    """The model's file in the folder of a variant. Raises UserError where there is none."""
    file = path / MODEL if path.is_dir() else path
    if file.is_file():
        return file
    variants = sorted(found.parent.name for found in path.glob(f"*/{MODEL}")) if path.is_dir() else []
    if variants:
        raise UserError(
            f"the net must be that of one variant, got the run {path}; take {path / variants[-1]}, or one of "
            f"{', '.join(variants)}"
        )
    raise UserError(f"the net must be runs/NAME/VARIANT or a model.safetensors, got {str(path)!r}, where there is none")


def embed_samples(path: Path, inputs: np.ndarray | ImageFiles, rows: np.ndarray) -> np.ndarray:
    """Embeddings (n, D) of samples by the net of a file.

    Args:
        path: as for `load`.
        inputs: N samples of the kind that it was trained on.
        rows: (n,) which.
    """
    net, transform, _ = load(path)

    def prepared(row: int) -> Tensor:
        if has_pictures(inputs):
            return transform(picture(inputs, row))
        assert isinstance(inputs, np.ndarray)
        return transform(inputs[row])

    parts = []
    with torch.inference_mode(), ThreadPoolExecutor() as pool:
        for part in np.array_split(rows, -(-len(rows) // BATCH_SIZE)):
            batch = torch.stack(list(pool.map(prepared, part.tolist())))
            parts.append(net.backbone(batch).float())
    return torch.cat(parts).numpy()
