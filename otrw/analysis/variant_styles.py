"""Colours that the colour-blind tell apart, with marks and hatches that survive a grey print: one look a variant."""

from typing import NamedTuple

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)  # Okabe and Ito, jfly.uni-koeln.de/color
GREY = "#8A8A8A"
BROWN = "#7A4A12"


class Style(NamedTuple):
    """How one variant is drawn in every figure."""

    color: str
    marker: str
    hatch: str
    line: str | tuple


STYLES: dict[str, Style] = {
    "stage1": Style(BLACK, "o", "", "-"),
    "cross_entropy": Style(PURPLE, "v", "..", (0, (1, 1))),
    "cross_entropy_meta": Style(PURPLE, "<", "xx", "-"),
    "class_balanced": Style(SKY, "s", "//", (0, (4, 2))),
    "class_balanced_meta": Style(BLUE, "D", "\\\\", "-"),
    "balanced_softmax": Style(SKY, "d", "xx", (0, (1, 1))),
    "balanced_softmax_meta": Style(SKY, "d", "xx", "-"),
    "meta_only": Style(BLACK, "*", "..", (0, (1, 1))),
    "trusted_probe": Style(BROWN, "<", "\\\\", (0, (4, 2))),
    "trusted_probe_meta": Style(BROWN, "<", "\\\\", "-"),
    "trusted_probe_labels_meta": Style(BROWN, ">", "//", (0, (6, 1, 1, 1))),
    "gold_correction_meta": Style(YELLOW, "o", "oo", "-"),
    "small_loss_meta": Style(PURPLE, "1", "--", "-"),
    "out_of_fold_meta": Style(PURPLE, "2", "||", (0, (4, 2))),
    "cleanlab": Style(PURPLE, "3", "++", (0, (1, 1))),
    "cleanlab_meta": Style(PURPLE, "s", "++", (0, (6, 1, 1, 1))),
    "early_learning_meta": Style(YELLOW, "v", "..", (0, (4, 2))),
    "meta_weight_net_meta": Style(YELLOW, "8", "//", (0, (1, 1))),
    "ot": Style(ORANGE, "^", "--", (0, (4, 2))),
    "ot_meta": Style(VERMILLION, "P", "||", "-"),
    "ot_labels_meta": Style(GREEN, "X", "++", "-"),
    "ot_noise_aware": Style(YELLOW, ">", "**", (0, (4, 2))),
    "ot_noise_aware_meta": Style(BLACK, "d", "//\\\\", (0, (6, 1))),
    "ot_noise_aware_labels_meta": Style(YELLOW, "*", "O.", "-"),
    "ot_learned_meta": Style(GREEN, ">", "//", (0, (4, 2))),
    "ot_learned_labels_meta": Style(GREEN, "D", "xx", "-"),
    "ot_pooled_meta": Style(VERMILLION, "v", "..", (0, (4, 2))),
    "ot_pooled_labels_meta": Style(VERMILLION, "*", "oo", "-"),
    "oracle": Style(GREY, "p", "oo", (0, (1, 1))),
    "oracle_meta": Style(GREY, "h", "OO", (0, (6, 1, 1, 1))),
}
