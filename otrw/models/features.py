"""Nets on embeddings that another model made: the classifier alone, or one hidden layer before it."""

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 256


class FeatureBackbone(nn.Module):
    """Embedding (n, in_features) -> embedding (n, D): as it is, or ReLU of LayerNorm of a linear map to 256 * width units.

    Neither couples samples, so training gives the same net on any number of processes.
    """

    def __init__(self, in_features: int, width_multiplier: float = 1.0, *, hidden: bool) -> None:
        """hidden: whether there is a layer at all."""
        super().__init__()
        width = max(1, round(WIDTH * width_multiplier))
        self.linear = nn.Linear(in_features, width) if hidden else None
        self.norm = nn.LayerNorm(width) if hidden else None
        self.embedding_size = width if hidden else in_features

    def forward(self, features: Tensor) -> Tensor:
        """(n, in_features) -> (n, D)."""
        if self.linear is None or self.norm is None:
            return features
        return F.relu(self.norm(self.linear(features)), inplace=True)
