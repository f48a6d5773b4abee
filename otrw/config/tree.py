"""What to train: one frozen tree of dataclasses. It is intent and never changes; run-time facts live elsewhere.

Every value can be set in a YAML preset and on the command line by its dotted path (``--ot.epsilon 0.05``).
Checks that need one section stand in its ``__post_init__``; checks across sections in `Config`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from otrw.config.data import DataConfig
from otrw.config.model import ModelConfig
from otrw.config.run import RunConfig
from otrw.config.stages import Stage1Config, Stage2Config
from otrw.config.transport import OTConfig
from otrw.errors import check

Variant = Literal[
    "stage1",
    "cross_entropy",
    "cross_entropy_meta",
    "class_balanced",
    "class_balanced_meta",
    "balanced_softmax",
    "balanced_softmax_meta",
    "meta_only",
    "trusted_probe",
    "trusted_probe_meta",
    "trusted_probe_labels_meta",
    "gold_correction_meta",
    "small_loss_meta",
    "out_of_fold_meta",
    "cleanlab",
    "cleanlab_meta",
    "early_learning_meta",
    "meta_weight_net_meta",
    "ot",
    "ot_meta",
    "ot_labels_meta",
    "ot_noise_aware",
    "ot_noise_aware_meta",
    "ot_noise_aware_labels_meta",
    "ot_learned_meta",
    "ot_learned_labels_meta",
    "ot_pooled_meta",
    "ot_pooled_labels_meta",
    "oracle",
    "oracle_meta",
]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, how imbalanced, how wrong the labels."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The net."""
    stage1: Stage1Config = field(default_factory=Stage1Config)
    """Plain training."""
    ot: OTConfig = field(default_factory=OTConfig)
    """Where the weights come from."""
    stage2: Stage2Config = field(default_factory=Stage2Config)
    """Training on the re-weighted loss."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where and how it runs."""
    variants: tuple[Variant, ...] = ("ot_meta",)
    """Which stage 2 to train, one after the other on the same stage 1: the setting itself (ot_meta) and its controls.
    stage1: none. cross_entropy, class_balanced, ot, oracle: which weights; _meta: with the meta images in the loss, all
    other variants without. ot_labels: with transported labels too. ot_noise_aware: the same settings with
    ot.weights=noise_aware; ot_learned and ot_pooled: with ot.plan_cost=probe and =pool too. meta_only: the meta images alone.
    The others are what people use instead; `otrw.training.competitors` and `otrw.training.losses` say how each works."""

    def __post_init__(self) -> None:
        check(len(self.variants) > 0, "variants", list(self.variants), "name at least one")
        check(len(set(self.variants)) == len(self.variants), "variants", list(self.variants), "name each variant once")
        has_stage2 = self.stage2.trainable != "none"
        for variant in self.variants:
            check(variant == "stage1" or has_stage2, "variants", variant, "be stage1 with stage2.trainable=none")
            check(
                not uses_meta(variant) or self.stage2.meta_loss_factor > 0 or not has_stage2,
                "stage2.meta_loss_factor",
                self.stage2.meta_loss_factor,
                f"be > 0 for variant {variant}",
            )
            check(
                not variant.startswith("ot") or self.ot.weights in ("semi_relaxed", "sgd", "network", "noise_aware"),
                "ot.weights",
                self.ot.weights,
                f"be semi_relaxed, sgd, network or noise_aware for variant {variant}",
                "the others are controls, to be had as variants of their own",
            )
            check(
                "_labels" not in variant or self.ot.label_transport > 0,
                "ot.label_transport",
                self.ot.label_transport,
                f"be > 0 for variant {variant}",
                "try 0.5",
            )
            check(
                not variant.startswith("oracle") or self.data.may_know_wrong_labels,
                "variants",
                variant,
                "come with data.label_noise, data.labels_file, or a table that has true labels",
                "without wrong labels the oracle is class_balanced",
            )
            if variant.startswith(("early_learning", "meta_weight_net")):
                radius = self.stage2.optimizer.sam_radius
                check(radius == 0, "stage2.optimizer.sam_radius", radius, f"be 0 for variant {variant}")
                for key, wanted in (("mixup_alpha", 0.0), ("cutmix_alpha", 0.0), ("apply_weights", "loss")):
                    value = getattr(self.stage2, key)
                    check(value == wanted, f"stage2.{key}", value, f"be {wanted!r} for variant {variant}")
            check(
                not variant.startswith("meta_weight_net") or self.model.head == "linear",
                "model.head",
                self.model.head,
                f"be 'linear' for variant {variant}",
            )
        check(
            self.stage2.refresh_every_epochs is None or self.stage2.trainable != "classifier",
            "stage2.refresh_every_epochs",
            self.stage2.refresh_every_epochs,
            "be null with stage2.trainable=classifier",
            "frozen embeddings do not change",
        )
        check(
            self.data.num_classes_without_meta == 0 or self.ot.prototype != "mean_image",
            "data.num_classes_without_meta",
            self.data.num_classes_without_meta,
            "be 0 with ot.prototype=mean_image",
            "a class without a meta image has no mean image",
        )
        check(
            self.ot.scope == "dataset" or self.stage2.apply_weights == "loss",
            "stage2.apply_weights",
            self.stage2.apply_weights,
            "be 'loss' with ot.scope=batch",
            "use ot.scope=dataset to sample by weight",
        )
        check(
            not (self.model.name == "small" and self.data.source in ("cifar10", "cifar100")),
            "model.name",
            self.model.name,
            f"be a resnet for {self.data.source}",
            "try --model.name resnet32",
        )
        for_embeddings = self.model.name in ("linear", "mlp")
        check(
            for_embeddings == (self.data.source == "embeddings"),
            "model.name",
            self.model.name,
            f"be {'no linear or mlp' if for_embeddings else 'linear or mlp'} for {self.data.source}",
            f"try --model.name {'resnet32' if for_embeddings else 'linear'}",
        )

    @property
    def data_seed(self) -> int:
        """Seed of the split."""
        return self.run.seed if self.data.seed is None else self.data.seed


def uses_meta(variant: str) -> bool:
    """Whether a variant has the meta images in its loss."""
    return variant.endswith("_meta") or variant == "meta_only"


def to_dict(config: object) -> dict:
    """Plain nested dict of a config: what is written to YAML and hashed."""
    return asdict(config)  # type: ignore[call-overload]


def flatten(config: Mapping, prefix: str = "") -> dict[str, object]:
    """Nested dict -> {dotted path: value}; tuples become lists."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
