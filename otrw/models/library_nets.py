"""Nets of torchvision and timm: what images they expect, and their backbones with the classifier taken off."""

import importlib.util
import logging
import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from otrw.errors import UserError, first_line
from otrw.models.names import library_of, remedy_for

CLASSIFIERS = ("fc", "classifier", "heads", "head")
"""Where torchvision's nets keep their last linear layer, alone or at the end of a sequence."""
WITHOUT_CLASSIFIER = ("squeezenet1_0", "squeezenet1_1")
"""They end with a convolution: nothing that the embedding could be the input of."""
AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Further classifiers of googlenet and inception_v3, left out here: a net has one loss."""


class NetInput(NamedTuple):
    """What images a net was made for."""

    image_size: int
    """Side in pixels of the square that it sees."""
    resize_size: int
    """Pixels of the shorter side before the centre crop of evaluation."""
    mean: tuple[float, ...]
    """Of each colour channel, in [0, 1]."""
    std: tuple[float, ...]
    interpolation: str
    """bilinear or bicubic."""


class LibraryBackbone(nn.Module):
    """A library's net without its classifier: image (n, 1 or 3, h, w) -> embedding (n, D)."""

    def __init__(self, net: nn.Module, embedding_size: int) -> None:
        super().__init__()
        self.net = net
        self.embedding_size = embedding_size

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1 or 3, h, w) -> (n, D); grey images become three equal channels."""
        return self.net(images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images)


def check_name(name: str) -> None:
    """Refuse a net that its library does not have. Raises UserError with the nearest name."""
    is_timm = library_of(name) == "timm"
    known = _timm_names() if is_timm else _torchvision_names()
    rest = name.partition("/")[2]
    base, point, _ = rest.partition(".")
    if point and is_timm and base in known:
        known = tuple(_timm().list_models(f"{base}.*", pretrained=True))  # the weights that it may come with
    if rest not in known:
        raise UserError(f"model.name must be a net of {library_of(name)}, got {name!r}; {remedy_for(name, known)}")


@cache
def net_input(name: str) -> NetInput:
    """Size, mean and standard deviation of the images that a library's net was made for.

    Of torchvision: the transforms of its default weights. Of timm: the configuration of its pre-training. Raises UserError.
    """
    check_name(name)
    rest = name.partition("/")[2]
    if library_of(name) == "timm":
        found = _timm().get_pretrained_cfg(rest)
        size = found.input_size[-1]
        # timm's evaluation: the shorter side is the size over the share of the centre that it crops
        return NetInput(
            size, math.floor(size / found.crop_pct), tuple(found.mean), tuple(found.std), _known(found.interpolation)
        )
    from torchvision import models

    preset = models.get_model_weights(rest).DEFAULT.transforms()
    return NetInput(
        preset.crop_size[0], preset.resize_size[0], tuple(preset.mean), tuple(preset.std), _known(preset.interpolation.value)
    )


def make_torchvision_net(name: str, image_size: int) -> tuple[nn.Module, str]:
    """A net of torchvision with fresh parameters, and where its last linear layer is, as `classifier.6`."""
    from torchvision import models

    options: dict[str, object] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    net = _built(f"torchvision/{name}", image_size, lambda: models.get_model(name, **options))
    (top,) = (child for child, _ in net.named_children() if child in CLASSIFIERS)
    linear = [place for place, module in net.get_submodule(top).named_modules(prefix=top) if isinstance(module, nn.Linear)]
    return net, linear[-1]


def make_timm_net(name: str, image_size: int, state: dict[str, Tensor] | None = None, *, pretrained: bool = False) -> nn.Module:
    """A net of timm.

    Args:
        name: without `timm/`.
        image_size: nets that are made for one size are made for this one.
        state: parameters to start from, with a classifier or without, in any form that timm itself converts.
        pretrained: download parameters.

    Raises:
        UserError: where the size does not suit the net, or the weights cannot be had.
        RuntimeError: where the state does not fit: of `Module.load_state_dict`, with the names.
    """
    timm = _timm()
    found = timm.get_pretrained_cfg(name)
    options: dict[str, object] = {}
    if found.fixed_input_size and found.input_size[-1] != image_size:
        options["img_size"] = image_size
    if state is not None:
        classifier = found.classifier if isinstance(found.classifier, str) else (found.classifier or ("",))[0]
        rows = len(state[f"{classifier}.weight"]) if f"{classifier}.weight" in state else 0
        options |= {
            "num_classes": rows,
            # equal numbers of classes: timm loads strictly, and drops nothing in silence
            "pretrained_cfg_overlay": {"state_dict": dict(state), "num_classes": rows, "label_offset": 0},
        }
    net = _built(
        f"timm/{name}", image_size, lambda: timm.create_model(name, pretrained=pretrained or state is not None, **options)
    )
    net.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr,operator]  # it would be copied with the net
    return net


def embedding_size(net: nn.Module, name: str, image_size: int) -> int:
    """D of a net that gives (n, D), found by a pass without numbers. Raises UserError where images of this size do not pass."""
    was_training = net.training
    net.eval()
    tensors = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    try:
        with torch.no_grad():
            try:
                empty = {key: value.to("meta") for key, value in tensors.items()}
                shape = torch.func.functional_call(net, empty, torch.empty(2, 3, image_size, image_size, device="meta")).shape
            except Exception:  # some nets compute with values: then a real pass decides
                shape = net(torch.zeros(2, 3, image_size, image_size)).shape
    except Exception as error:
        raise _does_not_suit(name, image_size, error) from None
    finally:
        net.train(was_training)
    if len(shape) != 2:
        raise UserError(f"model.name must be a net with one vector an image, got {name!r} with {tuple(shape[1:])}")
    return int(shape[1])


def synchronized(net: nn.Module, name: str) -> nn.Module:
    """The net with BatchNorm over all processes; timm's has an activation inside, which torch's own function would drop."""
    if library_of(name) == "timm":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(net)
    return nn.SyncBatchNorm.convert_sync_batchnorm(net)


def _built(name: str, image_size: int, make: Callable[[], nn.Module]) -> nn.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries to themselves
            return make()
    except (AssertionError, ValueError, TypeError) as error:
        raise _does_not_suit(name, image_size, error) from None


def _does_not_suit(name: str, image_size: int, error: Exception) -> UserError:
    own = net_input(name).image_size
    hint = f"try {own}" if own != image_size else "try another net"
    return UserError(f"data.image_size must suit {name}, got {image_size} ({first_line(error)}); {hint}")


def _known(interpolation: str) -> str:
    return interpolation if interpolation in ("bilinear", "bicubic") else "bicubic"  # timm also says "random" and the like


@cache
def _torchvision_names() -> tuple[str, ...]:
    from torchvision import models

    return tuple(name for name in models.list_models(module=models) if name not in WITHOUT_CLASSIFIER)


@cache
def _timm_names() -> tuple[str, ...]:
    return tuple(_timm().list_models())


@cache
def _timm() -> Any:
    """The library, where it is installed; it says nothing below an error. Raises UserError."""
    if importlib.util.find_spec("timm") is None:
        raise UserError("model.name must be of an installed library, but timm is not there; pip install 'otrw[timm]'")
    import timm

    logging.getLogger("timm").setLevel(logging.ERROR)
    return timm
