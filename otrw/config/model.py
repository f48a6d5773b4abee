"""Settings of the net."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check
from otrw.models.names import is_possible, library_of, remedy_for


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The net: image -> (embedding, logits)."""

    name: str = "small"
    """A net of this package, of torchvision or of timm (extra `timm`): small | resnet20 | resnet32 | resnet44 | resnet56 |
    linear | mlp | torchvision/NAME | timm/NAME, as torchvision/resnet50. small: three convolutions with GroupNorm, for digits.
    resnet*: CIFAR nets with 16/32/64 channels (arXiv 1512.03385). For embeddings: linear, the classifier alone; mlp, one hidden
    layer of 256 units before it. Of a library's net the classifier is replaced by `model.head`."""
    width_multiplier: float = 1.0
    """Factor on every channel count. Published "ResNet-32" numbers mix nets of different widths; 1 is the original."""
    head: Literal["linear", "cosine"] = "linear"
    """Classifier on the embedding; cosine normalises both sides and learns one scale."""

    weights: str | None = None
    """File with parameters to start from: safetensors, or .pth read without running code from it; of the library's own
    net, or a model.safetensors of a run. A head of another number of classes is left out, and that is said. Null: none."""
    pretrained: bool = False
    """Start from the library's pre-trained parameters, downloaded where they are not in its cache: nothing is ever downloaded
    without this."""

    def __post_init__(self) -> None:
        check(is_possible(self.name), "model.name", self.name, "be a net", remedy_for(self.name))
        library = library_of(self.name)
        check(
            self.width_multiplier == 1 or not library,
            "model.width_multiplier",
            self.width_multiplier,
            f"be 1 for {self.name}",
            "its widths are the library's; take another net",
        )
        check(
            not self.pretrained or bool(library),
            "model.pretrained",
            self.pretrained,
            f"be false for {self.name}",
            "only torchvision/ and timm/ nets have weights to download",
        )
        check(
            not self.pretrained or self.weights is None,
            "model.pretrained",
            self.pretrained,
            "be false with model.weights",
            "they are two places to start from",
        )
        check(self.width_multiplier > 0, "model.width_multiplier", self.width_multiplier, "be > 0")
