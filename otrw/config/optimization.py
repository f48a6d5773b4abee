"""Settings that both stages have: the optimiser with its schedule, and the per-sample loss."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check

LossName = Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "ldam", "gold_correction", "early_learning"]
ONLY_STAGE2 = ("gold_correction", "early_learning")
"""Losses that need a net, or the order of a whole phase, to start from."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum and a learning-rate schedule."""

    learning_rate: float = 0.1
    """Peak learning rate for the configured (global) batch size."""
    momentum: float = 0.9
    """Momentum, in [0, 1)."""
    nesterov: bool = True
    """Nesterov's variant of momentum."""
    weight_decay: float = 5e-4
    """L2 penalty on all parameters."""
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
