"""What each variant of a comparison trains: the configured setting, or the same with one thing switched off."""

from dataclasses import replace

from otrw.config.tree import Config, Variant

TITLES: dict[str, str] = {
    "stage1": "stage 1 alone",
    "cross_entropy": "uniform weights",
    "cross_entropy_meta": "uniform weights + meta images",
    "class_balanced": "class-balanced weights",
    "class_balanced_meta": "class-balanced + meta images",
    "ot": "OT weights",
    "ot_meta": "OT weights + meta images",
    "ot_labels_meta": "OT weights, OT labels + meta",
    "oracle": "oracle: wrong labels dropped",
    "oracle_meta": "oracle + meta images",
}


def variant_config(config: Config, variant: Variant) -> Config:
    """The config that trains this variant alone. Applying it twice changes nothing."""
    if variant == "stage1":
        return replace(config, stage2=replace(config.stage2, trainable="none"), variants=(variant,))
    ot, stage2 = config.ot, config.stage2
    kind = variant.removesuffix("_meta")
    match kind:
        case "cross_entropy":
            ot = replace(ot, weights="none")
        case "class_balanced":
            ot = replace(ot, weights="class_balanced")
        case "oracle":
            ot = replace(ot, weights="oracle")
    if kind != "ot_labels":
        ot = replace(ot, label_transport=0.0)
    if not kind.startswith("ot"):
        stage2 = replace(stage2, rounds=1, refresh_every_epochs=None)  # nothing to iterate
    if not variant.endswith("_meta"):
        stage2 = replace(stage2, meta_loss_factor=0.0)
    return replace(config, ot=ot, stage2=stage2, variants=(variant,))
