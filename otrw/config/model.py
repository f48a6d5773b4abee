"""Settings of the net."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The net: image -> (embedding, logits)."""

    name: Literal["small", "resnet20", "resnet32", "resnet44", "resnet56", "linear", "mlp"] = "small"
    """small: three convolutions with GroupNorm, for digits. resnet*: CIFAR nets with 16/32/64 channels (arXiv 1512.03385). For
    embeddings: linear, the classifier alone; mlp, one hidden layer of 256 units before it."""
    width_multiplier: float = 1.0
    """Factor on every channel count. Published "ResNet-32" numbers mix nets of different widths; 1 is the original."""
    head: Literal["linear", "cosine"] = "linear"
    """Classifier on the embedding; cosine normalises both sides and learns one scale."""

    def __post_init__(self) -> None:
        check(self.width_multiplier > 0, "model.width_multiplier", self.width_multiplier, "be > 0")
