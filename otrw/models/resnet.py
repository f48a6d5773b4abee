"""CIFAR ResNets of He et al. (arXiv 1512.03385, section 4.2): 16/32/64 channels, shortcuts without parameters (option A)."""

import torch.nn.functional as F
from torch import Tensor, nn

BLOCKS_PER_STAGE = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9}
WIDTHS = (16, 32, 64)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; where the shape changes the shortcut takes every second pixel and pads channels with zeros."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.extra_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, channels, h / stride, w / stride)."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        if self.stride != 1 or self.extra_channels:
            before = self.extra_channels // 2
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, before, self.extra_channels - before))
        return F.relu(y + x, inplace=True)


class ResNetBackbone(nn.Module):
    """Image (n, in_channels, 32, 32) -> embedding (n, 64 * width)."""

    def __init__(self, name: str, in_channels: int = 3, width_multiplier: float = 1.0) -> None:
        super().__init__()
        widths = [max(1, round(width * width_multiplier)) for width in WIDTHS]
        self.conv = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        blocks: list[nn.Module] = []
        channels = widths[0]
        for stage, width in enumerate(widths):
            for block in range(BLOCKS_PER_STAGE[name]):
                blocks.append(BasicBlock(channels, width, stride=2 if stage > 0 and block == 0 else 1))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.embedding_size = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, D), the mean over the last feature map."""
        x = F.relu(self.norm(self.conv(images)), inplace=True)
        return self.blocks(x).mean((2, 3))
