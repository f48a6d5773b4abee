"""From a name to a net, with fresh parameters or those of a file."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from otrw.errors import UserError, first_line
from otrw.models.features import FeatureBackbone
from otrw.models.heads import Net, make_head
from otrw.models.library_nets import (
    AUXILIARY,
    LibraryBackbone,
    check_name,
    embedding_size,
    make_timm_net,
    make_torchvision_net,
    net_input,
)
from otrw.models.names import library_of
from otrw.models.resnet import BLOCKS_PER_STAGE, ResNetBackbone
from otrw.models.small import SmallBackbone
from otrw.models.weights_file import Weights, does_not_fit, load_strictly, read_weights, take_head


class _Start(NamedTuple):
    """A backbone, and the classifier that its weights came with."""

    backbone: nn.Module
    head: dict[str, Tensor]


def build_model(
    name: str,
    num_classes: int,
    *,
    in_channels: int = 3,
    width_multiplier: float = 1.0,
    head: str = "linear",
    image_size: int | None = None,
    weights: str | None = None,
    pretrained: bool = False,
) -> Net:
    """The named net; fresh parameters are drawn from torch's global generator.

    Args:
        name: of this package, or `torchvision/NAME`, `timm/NAME`.
        num_classes: C.
        in_channels: of an image; a library's net takes 1 as 3 equal ones.
        width_multiplier: factor on channels of this package's nets.
        head: linear or cosine.
        image_size: side in pixels of the images that a library's net will see; None: its own.
        weights: file with parameters to start from; see `read_weights`.
        pretrained: download parameters, where they are not in the library's cache.

    Returns:
        A net whose `origin` says where its parameters come from, if not drawn.

    Raises:
        UserError: for names, sizes and weights that do not go together.
    """
    library = library_of(name)
    found = read_weights(weights, of_library=bool(library)) if weights is not None else None
    if library:
        check_name(name)
        start = _library_start(name, image_size or net_input(name).image_size, found, weights or "", pretrained)
    else:
        start = _own_start(name, in_channels, width_multiplier, found, weights or "")
    net = Net(start.backbone, make_head(head, start.backbone.embedding_size, num_classes))  # type: ignore[arg-type]
    if weights is not None or pretrained:
        net.origin = f"net from {weights or 'the weights of ' + library}, {take_head(net.head, start.head)}"
    return net


def num_parameters(module: nn.Module) -> int:
    """Number of scalar parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def couples_samples(module: nn.Module) -> bool:
    """Whether a net's training output for a sample depends on the others of its batch, as BatchNorm's does."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


def _own_start(name: str, in_channels: int, width_multiplier: float, found: Weights | None, source: str) -> _Start:
    backbone: ResNetBackbone | SmallBackbone | FeatureBackbone
    if name in BLOCKS_PER_STAGE:
        backbone = ResNetBackbone(name, in_channels, width_multiplier)
    elif name == "small":
        backbone = SmallBackbone(in_channels, width_multiplier)
    elif name in ("linear", "mlp"):
        backbone = FeatureBackbone(in_channels, width_multiplier, hidden=name == "mlp")
    else:
        raise ValueError(f"unknown model {name!r}")
    if found is not None:
        load_strictly(backbone, found.backbone, name, source)
    return _Start(backbone, {} if found is None else found.head)


def _library_start(name: str, image_size: int, found: Weights | None, source: str, pretrained: bool) -> _Start:
    make = _timm_start if library_of(name) == "timm" else _torchvision_start
    net, head = make(name.partition("/")[2], image_size, None if found is None else found.backbone, source, pretrained)
    return _Start(LibraryBackbone(net, embedding_size(net, name, image_size)), head if found is None else found.head or head)


def _torchvision_start(
    name: str, image_size: int, state: dict[str, Tensor] | None, source: str, pretrained: bool
) -> tuple[nn.Module, dict[str, Tensor]]:
    net, place = make_torchvision_net(name, image_size)
    if pretrained:
        state, source = _downloaded(name), "its file"
    head: dict[str, Tensor] = {}
    net.set_submodule(place, nn.Identity())
    if state is None:
        return net, head
    state = {key: value for key, value in state.items() if not key.startswith(AUXILIARY)}
    head = {part: state.pop(f"{place}.{part}") for part in ("weight", "bias") if f"{place}.{part}" in state}
    if name.startswith("vit_") and "encoder.pos_embedding" in state:
        state = _resized_positions(net, image_size, state)
    load_strictly(net, state, f"torchvision/{name}", source)
    return net, head


def _timm_start(
    name: str, image_size: int, state: dict[str, Tensor] | None, source: str, pretrained: bool
) -> tuple[nn.Module, dict[str, Tensor]]:
    try:
        net = make_timm_net(name, image_size, state, pretrained=pretrained)
    except UserError:
        raise
    except Exception as error:  # timm converts files of many origins, each in its own way
        if state is not None:
            raise does_not_fit(source, f"timm/{name}", f"does not ({' '.join(str(error).split())[:240]})") from None
        raise _no_download(f"timm/{name}", error) from None
    classifier = net.get_classifier()  # type: ignore[operator]
    head = dict(classifier.state_dict()) if isinstance(classifier, nn.Linear) and (pretrained or state is not None) else {}
    net.reset_classifier(0)  # type: ignore[operator]
    return net, head


def _downloaded(name: str) -> dict[str, Tensor]:
    from torchvision import models

    try:
        return models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True)
    except Exception as error:  # of the network, the disk, the checksum
        raise _no_download(f"torchvision/{name}", error) from None


def _no_download(name: str, error: Exception) -> UserError:
    return UserError(
        f"model.pretrained must find the weights of {name}, but they cannot be downloaded ({first_line(error)}); "
        "put a file there by hand and give it as model.weights"
    )


def _resized_positions(net: nn.Module, image_size: int, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The learned positions of a vision transformer, interpolated to another number of patches."""
    from torchvision.models.vision_transformer import interpolate_embeddings

    with torch.no_grad():
        return dict(interpolate_embeddings(image_size, net.patch_size, state))
