"""The range of every number in the tree of settings, as one table, and what text may be. Rules about several settings at
once stand with the sections.

Upper ends are far beyond any use: they catch a slip of the keyboard before it takes all memory or time, and keep every
number in the range of the type that will hold it.
"""

from functools import reduce
from typing import NamedTuple

from otrw.errors import check

MOST = 1_000_000_000
MOST_SEED = 2**63 - 1
MOST_NAME_BYTES = 200  # file systems take 255; suffixes come on top


class Range(NamedTuple):
    """Numbers from low to high; an open end does not belong to it."""

    low: float
    high: float
    is_open_low: bool = False
    is_open_high: bool = False

    def __contains__(self, value: object) -> bool:
        """Whether a number lies inside; NaN lies nowhere."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low if self.is_open_low else value >= self.low
        return above and (value < self.high if self.is_open_high else value <= self.high)

    def __str__(self) -> str:
        """As in mathematics: [0, 1) holds 0 and not 1."""
        left, right = "(" if self.is_open_low else "[", ")" if self.is_open_high else "]"
        return f"{left}{self.low:.9g}, {self.high:.9g}{right}"


SHARE = Range(0, 1)
BELOW_ONE = Range(0, 1, is_open_high=True)
RATE = Range(0, 1e30, is_open_low=True)
FACTOR = Range(0, 1e6)
COUNT = Range(1, MOST)
SEED = Range(0, MOST_SEED)

_OPTIMIZER = {
    "learning_rate": RATE,
    "backbone_learning_rate_factor": FACTOR,
    "momentum": BELOW_ONE,
    "beta2": BELOW_ONE,
    "weight_decay": FACTOR,
    "clip_norm": RATE,
    "sam_radius": FACTOR,
    "sam_start": BELOW_ONE,
    "ema_decay": BELOW_ONE,
    "warmup_epochs": Range(0, 1e6),
    "milestones": Range(0, 1, is_open_low=True, is_open_high=True),
    "decay_factor": Range(0, 1, is_open_low=True),
}
_LOSS = {
    "logit_adjustment": FACTOR,
    "ldam_max_margin": RATE,
    "ldam_scale": RATE,
    "early_learning_factor": FACTOR,
    "early_learning_momentum": BELOW_ONE,
    "label_smoothing": BELOW_ONE,
    "label_smoothing_tail": BELOW_ONE,
}

RANGES: dict[str, Range] = {
    "data.image_size": Range(1, 16_384),
    "data.memory_limit_gib": Range(0, 1e6),
    "data.smallest_class": Range(0, MOST),
    "data.test_share": Range(0, 1, is_open_low=True, is_open_high=True),
    "data.imbalance_factor": Range(1, MOST),
    "data.num_meta_per_class": COUNT,
    "data.num_validation_per_class": Range(0, MOST),
    "data.num_meta_used_per_class": COUNT,
    "data.num_classes_without_meta": Range(0, MOST),
    "data.meta_label_noise_rate": BELOW_ONE,
    "data.label_noise_rate": BELOW_ONE,
    "data.many_above": Range(0, MOST),
    "data.few_below": Range(0, MOST),
    "data.seed": SEED,
    "data.resize_size": Range(1, 8192),
    "data.mean": SHARE,
    "data.std": Range(0, 1, is_open_low=True),
    "data.workers": Range(0, 256),
    "data.augment.crop_scale": Range(0, 1, is_open_low=True),
    "data.augment.crop_padding": Range(0, 1024),
    "data.augment.num_operations": Range(1, 100),
    "data.augment.magnitude": Range(0, 30),
    "data.augment.cutout_size": Range(0, 1024),
    "model.width_multiplier": Range(0, 64, is_open_low=True),
    "stage1.epochs": Range(1, 1_000_000),
    "stage1.batch_size": COUNT,
    "stage1.class_balanced_from_epoch": Range(0, 1_000_000),
    "stage1.mixup_alpha": FACTOR,
    "stage1.cutmix_alpha": FACTOR,
    **{f"stage1.optimizer.{name}": value for name, value in _OPTIMIZER.items()},
    **{f"stage1.loss.{name}": value for name, value in _LOSS.items()},
    "ot.epsilon": Range(0, 1e6, is_open_low=True),
    "ot.mixing": SHARE,
    "ot.label_softening": SHARE,
    "ot.weight_power": Range(0, 100),
    "ot.confidence_power": Range(0, 100),
    "ot.label_transport": SHARE,
    "ot.dropped_share": BELOW_ONE,
    "ot.num_plan_rounds": Range(1, 1000),
    "ot.transition_prior": RATE,
    "ot.prototype_cap": FACTOR,
    "ot.smoothing_samples": Range(0, MOST),
    "ot.max_iterations": COUNT,
    "ot.memory_mebibytes": Range(0, 1e9, is_open_low=True),
    "ot.tolerance": Range(0, 1e6, is_open_low=True),
    "ot.num_steps": COUNT,
    "ot.learning_rate": RATE,
    "ot.weight_decay": FACTOR,
    "ot.hidden_size": Range(1, 65_536),
    "ot.class_balanced_beta": BELOW_ONE,
    "stage2.epochs": Range(1, 1_000_000),
    "stage2.batch_size": COUNT,
    "stage2.rounds": Range(1, 1000),
    "stage2.refresh_every_epochs": Range(1, 1_000_000),
    "stage2.meta_loss_factor": FACTOR,
    "stage2.meta_batch_size": COUNT,
    "stage2.mixup_alpha": FACTOR,
    "stage2.cutmix_alpha": FACTOR,
    **{f"stage2.optimizer.{name}": value for name, value in _OPTIMIZER.items()},
    **{f"stage2.loss.{name}": value for name, value in _LOSS.items()},
    "run.threads": Range(1, 4096),
    "run.seed": SEED,
    "run.accumulation_steps": COUNT,
    "run.evaluate_every_epochs": Range(1, 1_000_000),
    "run.checkpoint_every_epochs": Range(1, 1_000_000),
    "run.checkpoint_every_steps": COUNT,
    "run.keep_checkpoints": Range(1, 1000),
    "run.timeout_seconds": Range(0, 31_536_000, is_open_low=True),
}
"""{dotted path: range}; of a list, the range of each element. Null is not looked at: the type says where it may stand."""


def check_ranges(config: object) -> None:
    """Refuse numbers outside `RANGES`, milestones out of order, and a name that cannot name a folder.

    Args:
        config: the whole tree (a Config).

    Raises:
        UserError: naming the path, the value and the range.
    """
    for path, allowed in RANGES.items():
        value = reduce(getattr, path.split("."), config)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        each = "each be" if isinstance(value, tuple) else "be"
        check(all(number in allowed for number in numbers), path, value, f"{each} in {allowed}")
        if path.endswith(".milestones"):
            check(list(numbers) == sorted(set(numbers)), path, value, "rise from one to the next")
    name: object = reduce(getattr, ("run", "name"), config)
    if name is not None:
        text = str(name)
        check(text.isprintable(), "run.name", name, "have no line ends and other control characters")
        check(len(text.encode()) <= MOST_NAME_BYTES, "run.name", name, f"have at most {MOST_NAME_BYTES} bytes")
