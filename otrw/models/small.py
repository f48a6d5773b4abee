"""A small convolutional net for 8x8 digits."""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (32, 64, 64)


class SmallBackbone(nn.Module):
    """Three 3x3 convolutions with GroupNorm, image (n, in_channels, h, w) -> embedding (n, 64 * width).

    GroupNorm does not couple samples, so training gives the same net on any number of processes.
    """

    def __init__(self, in_channels: int = 1, width_multiplier: float = 1.0) -> None:
        super().__init__()
        widths = [8 * max(1, round(width * width_multiplier / 8)) for width in WIDTHS]
        channels = [in_channels, *widths]
        self.convs = nn.ModuleList(
            nn.Conv2d(n_in, n_out, 3, padding=1, bias=False) for n_in, n_out in itertools.pairwise(channels)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths)
        self.embedding_size = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> (n, D)."""
        x = images
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)), inplace=True)
            if layer == 1:
                x = F.max_pool2d(x, 2)
        return x.mean((2, 3))
