"""Settings that both stages have: the optimiser with its schedule, and the per-sample loss."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check

LossName = Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "ldam", "gold_correction", "early_learning"]
ONLY_STAGE2 = ("gold_correction", "early_learning")
"""Losses that need a net, or the order of a whole phase, to start from."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimiser with its learning-rate schedule, and what is done to gradients before and to weights after a step."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd: with momentum. adamw: arXiv 1711.05101."""
    learning_rate: float = 0.1
    """Peak learning rate for the configured (global) batch size."""
    backbone_learning_rate_factor: float = 1.0
    """Learning rate of the backbone as a multiple of the head's."""
    momentum: float = 0.9
    """Momentum, in [0, 1); adamw: beta 1."""
    beta2: float = 0.999
    """adamw: decay of the running mean of squared gradients, in [0, 1)."""
    nesterov: bool = True
    """sgd: Nesterov's variant of momentum."""
    weight_decay: float = 5e-4
    """L2 penalty; adamw: decoupled from the gradient."""
    weight_decay_on: Literal["all", "matrices"] = "all"
    """matrices leaves out parameters of one dimension: biases, and scales and shifts of norms."""
    clip_norm: float | None = None
    """Gradients of a larger norm (over all parameters together) are scaled down to it; null does not."""
    sam_radius: float = 0.0
    """Sharpness-aware minimisation (arXiv 2010.01412): the gradient is taken where the loss is worst within this distance
    of the weights, to first order. Two passes a step; 0 turns it off."""
    sam_start: float = 0.0
    """Share of the phase's steps, in [0, 1), before sharpness-aware ones begin: the last few epochs alone do most of what all
    do (arXiv 2410.10373), for a fraction of the second passes."""
    ema_decay: float = 0.0
    """Average weights over steps, w_ema <- decay w_ema + (1 - decay) w, in [0, 1); the average is evaluated, saved and goes
    into stage 2. Decay rises as (1 + t) / (10 + t) at first. 0 turns it off."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine: to zero at the end. step: times `decay_factor` at every milestone."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    milestones: tuple[float, ...] = (0.8, 0.9)
    """step schedule: when to decay, as fractions of all epochs."""
    decay_factor: float = 0.01
    """step schedule: the factor."""

    def check(self, path: str) -> None:
        """Raise UserError for a bad value; `path` is where in the tree this section stands."""
        check(self.learning_rate > 0, f"{path}.learning_rate", self.learning_rate, "be > 0")
        check(0 <= self.momentum < 1, f"{path}.momentum", self.momentum, "be in [0, 1)")
        check(0 <= self.beta2 < 1, f"{path}.beta2", self.beta2, "be in [0, 1)")
        factor = self.backbone_learning_rate_factor
        check(factor >= 0, f"{path}.backbone_learning_rate_factor", factor, "be >= 0")
        check(self.clip_norm is None or self.clip_norm > 0, f"{path}.clip_norm", self.clip_norm, "be > 0 or null")
        check(self.sam_radius >= 0, f"{path}.sam_radius", self.sam_radius, "be >= 0")
        check(0 <= self.sam_start < 1, f"{path}.sam_start", self.sam_start, "be in [0, 1)")
        check(0 <= self.ema_decay < 1, f"{path}.ema_decay", self.ema_decay, "be in [0, 1)")
        check(self.weight_decay >= 0, f"{path}.weight_decay", self.weight_decay, "be >= 0")
        check(self.warmup_epochs >= 0, f"{path}.warmup_epochs", self.warmup_epochs, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The per-sample loss."""

    name: LossName = "cross_entropy"
    """balanced_softmax: arXiv 2007.10740. logit_adjusted: arXiv 2007.07314. ldam: arXiv 1906.07413. Against wrong labels,
    stage 2 only: gold_correction (arXiv 1802.05300), early_learning (arXiv 2007.00151)."""
    logit_adjustment: float = 1.0
    """tau of logit_adjusted."""
    ldam_max_margin: float = 0.5
    """Largest margin of ldam, at the rarest class."""
    ldam_scale: float = 30.0
    """Factor on the logits of ldam; meant for a cosine head."""
    early_learning_factor: float = 3.0
    """early_learning: factor on the regulariser, lambda of the paper (3 for CIFAR-10, 7 for CIFAR-100)."""
    early_learning_momentum: float = 0.7
    """early_learning: momentum of the targets, beta of the paper, in [0, 1) (0.7 for CIFAR-10, 0.9 for CIFAR-100)."""
    label_smoothing: float = 0.0
    """Share of each label that is spread over the other classes, in the largest class; in [0, 1)."""
    label_smoothing_tail: float | None = None
    """The same in the smallest class, with a sine between them (arXiv 2104.00466); null takes label_smoothing for all."""

    def check(self, path: str) -> None:
        """Raise UserError for a bad value; `path` is where in the tree this section stands."""
        check(self.ldam_max_margin > 0, f"{path}.ldam_max_margin", self.ldam_max_margin, "be > 0")
        check(self.ldam_scale > 0, f"{path}.ldam_scale", self.ldam_scale, "be > 0")
        check(
            path.startswith("stage2") or self.name not in ONLY_STAGE2,
            f"{path}.name",
            self.name,
            f"be none of {', '.join(ONLY_STAGE2)}",
            "they are losses of stage 2",
        )
        check(0 <= self.label_smoothing < 1, f"{path}.label_smoothing", self.label_smoothing, "be in [0, 1)")
        check(
            self.label_smoothing == 0 or self.name != "gold_correction",
            f"{path}.label_smoothing",
            self.label_smoothing,
            "be 0 with gold_correction",
            "it has a distribution of labels of its own",
        )
        tail = self.label_smoothing_tail
        check(tail is None or 0 <= tail < 1, f"{path}.label_smoothing_tail", tail, "be in [0, 1) or null")
