"""Settings of the two stages of training."""

from dataclasses import dataclass, field
from typing import Literal

from otrw.config.optimization import LossConfig, OptimizerConfig
from otrw.errors import check


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Plain training on the long-tailed set."""

    epochs: int = 60
    """Passes over the training set."""
    batch_size: int = 128
    """Samples a step over all processes together."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Per-sample loss."""
    class_balanced_from_epoch: int | None = None
    """Weight the loss by the effective number of samples from this epoch on (deferred re-weighting, arXiv 1906.07413);
    0 from the start, null never."""
    sampling: Literal["shuffle", "class_balanced"] = "shuffle"
    """class_balanced draws every class equally often, with replacement."""
    mixup_alpha: float = 0.0
    """Beta(alpha, alpha) mixing of pairs of samples (arXiv 1710.09412); 0 turns it off."""
    cutmix_alpha: float = 0.0
    """A square of a second sample's image is pasted in, of a share of the area drawn from Beta(alpha, alpha), and labels are
    mixed by area (arXiv 1905.04899); 0 turns it off. With mixup too, each step takes one of both at random."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and schedule."""
    checkpoint: str | None = None
    """Start from this finished stage 1 (a `model.safetensors` of an earlier run) instead of training one."""

    def __post_init__(self) -> None:
        self.loss.check("stage1.loss")
        self.optimizer.check("stage1.optimizer")
        check(self.epochs >= 1, "stage1.epochs", self.epochs, "be >= 1")
        check(self.batch_size >= 1, "stage1.batch_size", self.batch_size, "be >= 1")
        check(self.mixup_alpha >= 0, "stage1.mixup_alpha", self.mixup_alpha, "be >= 0")
        check(self.cutmix_alpha >= 0, "stage1.cutmix_alpha", self.cutmix_alpha, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training on the re-weighted loss."""

    trainable: Literal["none", "classifier", "all", "scratch"] = "scratch"
    """none: no stage 2. classifier: the head alone. all: fine-tune the whole net. scratch: train a new net."""
    embeddings: Literal["cached", "forward"] = "cached"
    """classifier: work on embeddings computed once (no augmentation), or forward augmented images at every step (slow
    path of the released code; BatchNorm statistics move)."""
    epochs: int = 60
    """Passes over the training set, in each round."""
    batch_size: int = 128
    """Training samples a step over all processes together; meta samples come on top."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Per-sample loss."""
    rounds: int = 1
    """Variants whose weights come from a net, OT above all: how often to compute them from the last net's embeddings and
    train again. Round 1 starts from stage 1. Class-balanced weights and the like have nothing to iterate and take one."""
    refresh_every_epochs: int | None = None
    """Re-compute the weights from fresh embeddings every so many epochs; null keeps them for the round. A whole net that trains
    on the meta images soon knows them by heart: what its embeddings say of wrong labels can be worse than by stage 1's."""
    apply_weights: Literal["loss", "sampling"] = "loss"
    """Weight the loss, or draw samples in proportion to their weights."""
    normalizer: Literal["weights", "samples", "none"] = "weights"
    """Divide a step's weighted loss by the sum of its weights, by its number of samples, or (released code) by nothing."""
    meta_loss_factor: float = 1.0
    """Factor on the mean cross-entropy of the meta images; 0 leaves them out."""
    meta_batch_size: int | None = None
    """Meta images a step; null takes all of them, of images that stay in their files as many as `batch_size`."""
    meta_forward: Literal["joint", "separate"] = "joint"
    """joint: one forward pass over training and meta images. separate: one each (released code)."""
    mixup_alpha: float = 0.0
    """As in stage 1; meta images are never mixed."""
    cutmix_alpha: float = 0.0
    """As in stage 1; for images only, so not on cached embeddings."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and schedule."""

    def __post_init__(self) -> None:
        self.loss.check("stage2.loss")
        self.optimizer.check("stage2.optimizer")
        check(self.epochs >= 1, "stage2.epochs", self.epochs, "be >= 1")
        check(self.batch_size >= 1, "stage2.batch_size", self.batch_size, "be >= 1")
        check(self.rounds >= 1, "stage2.rounds", self.rounds, "be >= 1")
        check(
            self.refresh_every_epochs is None or self.refresh_every_epochs >= 1,
            "stage2.refresh_every_epochs",
            self.refresh_every_epochs,
            "be >= 1 or null",
        )
        check(self.meta_loss_factor >= 0, "stage2.meta_loss_factor", self.meta_loss_factor, "be >= 0")
        check(
            self.meta_batch_size is None or self.meta_batch_size >= 1,
            "stage2.meta_batch_size",
            self.meta_batch_size,
            "be >= 1 or null",
        )
        check(self.mixup_alpha >= 0, "stage2.mixup_alpha", self.mixup_alpha, "be >= 0")
        check(self.cutmix_alpha >= 0, "stage2.cutmix_alpha", self.cutmix_alpha, "be >= 0")
        check(
            self.optimizer.sam_radius == 0 or self.loss.name != "early_learning",
            "stage2.optimizer.sam_radius",
            self.optimizer.sam_radius,
            "be 0 with stage2.loss.name=early_learning",
            "its means move once a forward pass",
        )
        on_embeddings = self.trainable == "classifier" and self.embeddings == "cached"
        check(
            self.cutmix_alpha == 0 or not on_embeddings,
            "stage2.cutmix_alpha",
            self.cutmix_alpha,
            "be 0 on cached embeddings, which have no area",
            "set stage2.embeddings to forward, or take stage2.mixup_alpha",
        )
