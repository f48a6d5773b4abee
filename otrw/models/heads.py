"""What every net returns, and its classifiers."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Output(NamedTuple):
    """Result of a forward pass."""

    embedding: Tensor
    """(n, D)"""
    logits: Tensor
    """(n, C)"""


class CosineHead(nn.Module):
    """logits = scale * cos(embedding, class vector), with one learned scale (arXiv 1804.09458)."""

    def __init__(self, embedding_size: int, num_classes: int, initial_scale: float = 16.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        self.scale = nn.Parameter(torch.tensor(initial_scale))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def forward(self, embedding: Tensor) -> Tensor:
        """(n, D) -> (n, C)."""
        return self.scale * F.linear(F.normalize(embedding, dim=1), F.normalize(self.weight, dim=1))


def make_head(kind: str, embedding_size: int, num_classes: int) -> nn.Module:
    """A linear or a cosine classifier."""
    match kind:
        case "linear":
            return nn.Linear(embedding_size, num_classes)
        case "cosine":
            return CosineHead(embedding_size, num_classes)
        case _:
            raise ValueError(f"unknown head {kind!r}")


def classify(head: nn.Module, embedding: Tensor) -> Tensor:
    """Logits in float32, also under autocast: (n, D) -> (n, C).

    In bfloat16 one logit in a hundred ties with another on CIFAR-100, and argmax takes the lower, more frequent class.
    """
    with torch.autocast(embedding.device.type, enabled=False):
        return head(embedding.float())


class Net(nn.Module):
    """A backbone image -> embedding and a classifier on top. `head` alone is what a frozen-backbone stage 2 trains."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.origin = ""
        """Where the parameters come from, in words; empty where they were drawn."""

    def forward(self, images: Tensor) -> Output:
        """(n, channels, height, width) -> Output."""
        embedding = self.backbone(images)
        return Output(embedding, classify(self.head, embedding))


class HeadOnly(nn.Module):
    """The classifier on embeddings that were computed before, with the interface of a whole net."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, embeddings: Tensor) -> Output:
        """(n, D) -> Output."""
        return Output(embeddings, classify(self.head, embeddings))


class FrozenBackbone(nn.Module):
    """A net whose backbone gets no gradient; in train mode its BatchNorm statistics still move (released code)."""

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.net = net
        net.backbone.requires_grad_(False)

    def forward(self, images: Tensor) -> Output:
        """(n, channels, height, width) -> Output."""
        with torch.no_grad():
            embedding = self.net.backbone(images)
        return Output(embedding, classify(self.net.head, embedding))
