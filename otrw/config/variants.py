"""What each variant of a comparison trains: the configured setting, or the same with one thing switched off."""

from dataclasses import replace

from otrw.config.optimization import LossName
from otrw.config.transport import WeightsName
from otrw.config.tree import Config, Variant, uses_meta

TITLES: dict[str, str] = {
    "stage1": "stage 1 alone",
    "cross_entropy": "uniform weights",
    "cross_entropy_meta": "uniform weights + meta images",
    "class_balanced": "class-balanced weights",
    "class_balanced_meta": "class-balanced + meta images",
    "balanced_softmax": "balanced softmax",
    "balanced_softmax_meta": "balanced softmax + meta images",
    "meta_only": "meta images alone",
    "trusted_probe": "trusted-probe weights",
    "trusted_probe_meta": "trusted-probe weights + meta",
    "trusted_probe_labels_meta": "trusted-probe labels + meta",
    "gold_correction_meta": "gold loss correction + meta",
    "small_loss_meta": "small-loss filter + meta",
    "out_of_fold_meta": "out-of-fold filter + meta",
    "cleanlab": "cleanlab's filter",
    "cleanlab_meta": "cleanlab's filter + meta",
    "early_learning_meta": "early-learning loss + meta",
    "meta_weight_net_meta": "Meta-Weight-Net + meta",
    "ot": "OT weights",
    "ot_meta": "OT weights + meta images",
    "ot_labels_meta": "OT weights, OT labels + meta",
    "ot_noise_aware": "noise-aware OT weights",
    "ot_noise_aware_meta": "noise-aware OT weights + meta images",
    "ot_noise_aware_labels_meta": "noise-aware OT weights, OT labels + meta",
    "ot_learned_meta": "learned-cost OT weights + meta images",
    "ot_learned_labels_meta": "learned-cost OT weights, OT labels + meta",
    "ot_pooled_meta": "pooled-cost OT weights + meta images",
    "ot_pooled_labels_meta": "pooled-cost OT weights, OT labels + meta",
    "oracle": "oracle: wrong labels dropped",
    "oracle_meta": "oracle + meta images",
}


WEIGHTS_OF_KIND: dict[str, WeightsName] = {
    "cross_entropy": "none",
    "class_balanced": "class_balanced",
    "balanced_softmax": "none",
    "meta_only": "zero",
    "trusted_probe": "trusted_probe",
    "trusted_probe_labels": "trusted_probe",
    "gold_correction": "class_balanced",
    "small_loss": "small_loss",
    "out_of_fold": "out_of_fold",
    "cleanlab": "cleanlab",
    "early_learning": "class_balanced",
    "meta_weight_net": "meta_weight_net",
    "ot_noise_aware": "noise_aware",
    "ot_noise_aware_labels": "noise_aware",
    "ot_learned": "noise_aware",
    "ot_learned_labels": "noise_aware",
    "ot_pooled": "noise_aware",
    "ot_pooled_labels": "noise_aware",
    "oracle": "oracle",
}
"""ot.weights of each kind of variant; the others with OT keep what is configured."""
LOSS_OF_KIND: dict[str, LossName] = {
    "balanced_softmax": "balanced_softmax",
    "gold_correction": "gold_correction",
    "early_learning": "early_learning",
}
"""stage2.loss.name of the kinds that are a loss; the others keep what is configured."""
ITERATING = ("ot", "trusted_probe", "small_loss", "out_of_fold", "cleanlab")
"""Kinds that look at the last net's embeddings, so that a second round finds more than the first."""


BY_TRANSPORT = (
    "ot_pooled_meta",
    "ot_pooled_labels_meta",
    "ot_learned_meta",
    "ot_learned_labels_meta",
    "ot_noise_aware_meta",
    "ot_noise_aware_labels_meta",
    "ot_labels_meta",
    "ot_meta",
    "ot_noise_aware",
    "ot",
)
"""Variants whose weights come from a plan; those that say most of single labels come first."""


def variant_config(config: Config, variant: Variant) -> Config:
    """The config that trains this variant alone. Applying it twice changes nothing."""
    if variant == "stage1":
        return replace(config, stage2=replace(config.stage2, trainable="none"), variants=(variant,))
    ot, stage2 = config.ot, config.stage2
    kind = variant.removesuffix("_meta")
    if kind in WEIGHTS_OF_KIND:
        if WEIGHTS_OF_KIND[kind] == "noise_aware":
            ot = replace(ot, scope="dataset", reference="samples")  # nothing else makes sense to it
        ot = replace(ot, weights=WEIGHTS_OF_KIND[kind])
        if kind.startswith("ot_learned"):
            ot = replace(ot, plan_cost="probe")
        if kind.startswith("ot_pooled"):
            ot = replace(ot, plan_cost="pool")
    if kind in LOSS_OF_KIND:
        stage2 = replace(stage2, loss=replace(stage2.loss, name=LOSS_OF_KIND[kind]))
    if not kind.endswith("_labels"):
        ot = replace(ot, label_transport=0.0)
    if not kind.startswith(ITERATING):
        stage2 = replace(stage2, rounds=1, refresh_every_epochs=None)  # nothing to iterate
    if not uses_meta(variant):
        stage2 = replace(stage2, meta_loss_factor=0.0)
    if kind == "meta_only":
        stage2 = replace(stage2, apply_weights="loss")  # by weights of 0 nothing can be drawn
    return replace(config, ot=ot, stage2=stage2, variants=(variant,))
