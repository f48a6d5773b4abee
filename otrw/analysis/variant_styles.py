"""Colours that the colour-blind tell apart, with marks and hatches that survive a grey print: one look a row."""

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


class Look(NamedTuple):
    """How one row is drawn in every figure."""

    color: str
    marker: str
    hatch: str
    line: str | tuple


LOOKS: dict[str, Look] = {
    "stage1": Look(BLACK, "o", "", "-"),
    "cross_entropy": Look(PURPLE, "v", "..", (0, (1, 1))),
    "cross_entropy_meta": Look(PURPLE, "<", "xx", "-"),
    "class_balanced": Look(SKY, "s", "//", (0, (4, 2))),
    "class_balanced_meta": Look(BLUE, "D", "\\\\", "-"),
    "ot": Look(ORANGE, "^", "--", (0, (4, 2))),
    "ot_meta": Look(VERMILLION, "P", "||", "-"),
    "ot_labels_meta": Look(GREEN, "X", "++", "-"),
    "oracle": Look(GREY, "p", "oo", (0, (1, 1))),
    "oracle_meta": Look(GREY, "h", "OO", (0, (6, 1, 1, 1))),
}
