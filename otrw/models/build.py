"""From a name to a net."""

from torch import nn

from otrw.models.heads import Net, make_head
from otrw.models.resnet import BLOCKS_PER_STAGE, ResNetBackbone
from otrw.models.small import SmallBackbone


def build_model(
    name: str, num_classes: int, *, in_channels: int = 3, width_multiplier: float = 1.0, head: str = "linear"
) -> Net:
    """The named net with fresh parameters, drawn from torch's global generator."""
    backbone: ResNetBackbone | SmallBackbone
    if name in BLOCKS_PER_STAGE:
        backbone = ResNetBackbone(name, in_channels, width_multiplier)
    elif name == "small":
        backbone = SmallBackbone(in_channels, width_multiplier)
    else:
        raise ValueError(f"unknown model {name!r}")
    return Net(backbone, make_head(head, backbone.embedding_size, num_classes))


def num_parameters(module: nn.Module) -> int:
    """Number of scalar parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
