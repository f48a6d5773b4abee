"""RandAugment, AutoAugment and TrivialAugment on a batch of images, each sample with operations and strengths of its own.

The operations are torchvision's, here with one strength a sample: samples with the same operation are computed together. As
in otrw.data.augment the draws are a hash of (key, sample index).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.data.draws import uniform_draws

PolicyName = Literal["none", "randaugment", "autoaugment", "trivialaugment"]

SHIFTS = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS = ("Identity", *SHIFTS, *BLENDS, "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert")
NUM_DRAWN = OPERATIONS.index("Invert")
"""RandAugment and TrivialAugment draw one of those before Invert."""
NUM_LEVELS = 31
"""RandAugment and TrivialAugment count their strength from 0 to 30."""
_SIGNED = torch.tensor([name in (*SHIFTS, *BLENDS) for name in OPERATIONS])
_KEY = 0x706F6C696379  # keeps these draws apart from those of crop, flip and cutout, which share the caller's key


class Policy(NamedTuple):
    """Which operations a training image goes through; see AugmentConfig."""

    name: PolicyName = "none"
    num_operations: int = 2
    """randaugment: operations one after the other."""
    magnitude: int = 9
    """randaugment: strength of each, 0 to 30."""


class Strengths(NamedTuple):
    """What the highest level means."""

    shear: float
    """Tangent of the angle."""
    translate: float
    """Pixels; a share of the width where it is below 1."""
    rotate: float
    """Degrees."""
    blend: float
    """Change of brightness, colour, contrast and sharpness from 1."""
    posterize: float
    """Bits less than 8."""


STANDARD = Strengths(0.3, 150 / 331, 30.0, 0.9, 4.0)
"""arXiv 1805.09501, table 6, and RandAugment, arXiv 1909.13719"""
WIDE = Strengths(0.99, 32.0, 135.0, 0.99, 6.0)
"""TrivialAugment, arXiv 2103.10158, "wide" """

_CIFAR_POLICIES = """
Invert .1 - Contrast .2 6 | Rotate .7 2 TranslateX .3 9 | Sharpness .8 1 Sharpness .9 3 | ShearY .5 8 TranslateY .7 9
AutoContrast .5 - Equalize .9 - | ShearY .2 7 Posterize .3 7 | Color .4 3 Brightness .6 7 | Sharpness .3 9 Brightness .7 9
Equalize .6 - Equalize .5 - | Contrast .6 7 Sharpness .6 5 | Color .7 7 TranslateX .5 8 | Equalize .3 - AutoContrast .4 -
TranslateY .4 3 Sharpness .2 6 | Brightness .9 6 Color .2 8 | Solarize .5 2 Invert .0 - | Equalize .2 - AutoContrast .6 -
Equalize .2 - Equalize .6 - | Color .9 9 Equalize .6 - | AutoContrast .8 - Solarize .2 8 | Brightness .1 3 Color .7 0
Solarize .4 5 AutoContrast .9 - | TranslateY .9 9 TranslateY .7 9 | AutoContrast .9 - Solarize .8 3
Equalize .8 - Invert .1 - | TranslateY .7 9 AutoContrast .9 -
"""
"""arXiv 1805.09501, table 7: pairs of operation, probability and level from 0 to 9."""


def cifar_policies() -> list[tuple[tuple[str, float, int | None], ...]]:
    """The 25 pairs of (operation, probability, level) that AutoAugment found for CIFAR-10."""
    pairs = [entry.split() for line in _CIFAR_POLICIES.strip().splitlines() for entry in line.split("|")]
    return [
        tuple((one[0], float(one[1]), None if one[2] == "-" else int(one[2])) for one in (words[:3], words[3:]))
        for words in pairs
    ]


def policy_applied(images: Tensor, index: Tensor, key: int, policy: Policy) -> Tensor:
    """Each image after the operations that were drawn for its sample.

    Args:
        images: (n, channels, height, width) uint8, 1 or 3 channels.
        index: (n,) sample index of each image.
        key: of the step's random draws, as for `otrw.data.augment.augmented`.
        policy: which operations.

    Returns:
        (n, channels, height, width) uint8. Pixels from outside the image are 0.
    """
    if policy.name == "none":
        return images
    index = index.cpu()  # what each sample goes through is decided where it costs no waiting for the device
    for operation, magnitude in drawn_operations(index, key, policy, width=images.shape[3], height=images.shape[2]):
        images = operations_applied(images, operation, magnitude)
    return images


def drawn_operations(index: Tensor, key: int, policy: Policy, *, width: int, height: int) -> list[tuple[Tensor, Tensor]]:
    """(operation (n,), magnitude (n,)) of each layer: row of `OPERATIONS`, and strength in the operation's own unit.

    Units: shears a tangent, translations pixels, rotations degrees, blends the change from 1, Posterize the bits that stay,
    Solarize the threshold from 0 to 255.
    """
    num_layers = {"randaugment": policy.num_operations, "autoaugment": 2, "trivialaugment": 1}[policy.name]
    draws = uniform_draws(key ^ _KEY, index, 1 + 3 * num_layers)
    layers = []
    for layer in range(num_layers):
        choice, sign, third = draws[:, 1 + 3 * layer : 4 + 3 * layer].unbind(1)
        strengths = STANDARD
        match policy.name:
            case "autoaugment":
                table = _policy_table()[:, layer]
                row = (draws[:, 0] * len(table)).long()
                operation, probability, level = table[row].unbind(1)
                operation = torch.where(third < probability, operation, 0).long()
                level = level / 9
            case "trivialaugment":
                operation = (choice * NUM_DRAWN).long()
                level = (third * NUM_LEVELS).floor() / (NUM_LEVELS - 1)
                strengths = WIDE
            case _:
                operation = (choice * NUM_DRAWN).long()
                level = torch.full_like(choice, policy.magnitude / (NUM_LEVELS - 1))
        magnitude = _magnitudes(level, strengths, width, height)[operation, torch.arange(len(index))]
        is_negative = _SIGNED[operation] & (sign < 0.5)
        layers.append((operation, torch.where(is_negative, -magnitude, magnitude)))
    return layers


def operations_applied(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """One operation a sample: images (n, channels, height, width) uint8; operation and magnitude (n,) on the CPU."""
    from torchvision.transforms.v2 import functional as tv  # takes as long to import as torch: only where it is used

    result = images.clone()
    groups: list[tuple[tuple[str, ...], Callable[[Tensor, Tensor, Tensor], Tensor]]] = [
        (SHIFTS, _shifted),
        (("Brightness",), lambda x, _, m: _blended(x, torch.zeros((), device=x.device), m)),
        (("Color",), lambda x, _, m: _blended(x, _grey(x), m) if x.shape[1] > 1 else x),
        (("Contrast",), lambda x, _, m: _blended(x, _grey(x).mean((1, 2, 3), keepdim=True), m)),
        (("Sharpness",), lambda x, _, m: _blended(x, tv.adjust_sharpness(x, 0.0).float(), m)),
        (("Posterize",), lambda x, _, m: x & (256 - 2 ** (8 - _column(m, x))).to(torch.uint8)),
        (("Solarize",), lambda x, _, m: torch.where(x >= _column(m, x), 255 - x, x)),
        (("AutoContrast",), lambda x, _, m: tv.autocontrast(x)),
        (("Equalize",), lambda x, _, m: tv.equalize(x)),
        (("Invert",), lambda x, _, m: 255 - x),
    ]
    for names, function in groups:
        wanted = torch.tensor([name in names for name in OPERATIONS])
        members = torch.where(wanted[operation])[0]
        if len(members):
            on_device = members.to(images.device, non_blocking=True)
            result[on_device] = function(images[on_device], operation[members], magnitude[members])
    return result


def _policy_table() -> Tensor:
    """(25, 2, 3): operation, probability and level of the CIFAR policies."""
    pairs = cifar_policies()
    return torch.tensor([[[OPERATIONS.index(name), p, level or 0] for name, p, level in pair] for pair in pairs])


def _magnitudes(level: Tensor, strengths: Strengths, width: int, height: int) -> Tensor:
    """(operations, n) strengths of every operation at levels in [0, 1], without sign."""
    share = strengths.translate < 1
    right, down = (strengths.translate * (side if share else 1) for side in (width, height))
    largest = [0.0, strengths.shear, strengths.shear, right, down, strengths.rotate] + 4 * [strengths.blend]
    linear = torch.tensor(largest)[:, None] * level
    linear[3:5].trunc_()  # whole pixels
    bits = (8 - strengths.posterize * level).round()
    return torch.cat([linear, torch.stack([bits, 255 * (1 - level)]), torch.zeros(3, len(level))])


def _column(magnitude: Tensor, images: Tensor) -> Tensor:
    return magnitude.to(images.device, non_blocking=True)[:, None, None, None]


def _grey(images: Tensor) -> Tensor:
    """(n, 1, height, width) float luma (ITU-R BT.601) in whole numbers; images of one channel are grey already."""
    if images.shape[1] == 1:
        return images.float()
    red, green, blue = images.float().unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue).floor()[:, None]


def _blended(images: Tensor, other: Tensor, change: Tensor) -> Tensor:
    """other + (1 + change) (images - other), cut to [0, 255]: torchvision's enhancements at factor 1 + change."""
    factor = 1 + _column(change, images)
    return (images * factor + other * (1 - factor)).clamp_(0, 255).to(torch.uint8)


def _shifted(images: Tensor, operation: Tensor, magnitude: Tensor) -> Tensor:
    """Sheared, translated or rotated images, nearest pixel: one affine map a sample, pulled back to the source pixels.

    Shears leave the upper left corner where it is, rotations the centre.
    """
    height, width = images.shape[2:]
    corner_x, corner_y = -width / 2, -height / 2
    theta = torch.eye(2, 3, dtype=torch.float64).repeat(len(images), 1, 1)
    m = magnitude.double()
    kind = [operation == OPERATIONS.index(name) for name in SHIFTS]
    theta[:, 0, 1] = torch.where(kind[0], m, 0)
    theta[:, 0, 2] = torch.where(kind[0], -m * corner_y, torch.where(kind[2], -m, 0))
    theta[:, 1, 0] = torch.where(kind[1], m, 0)
    theta[:, 1, 2] = torch.where(kind[1], -m * corner_x, torch.where(kind[3], -m, 0))
    angle = torch.deg2rad(torch.where(kind[4], m, 0))
    theta[:, 0, 0], theta[:, 1, 1] = angle.cos(), angle.cos()
    theta[:, 0, 1] -= angle.sin()
    theta[:, 1, 0] += angle.sin()
    theta = theta.float().to(images.device, non_blocking=True)
    x = torch.linspace((1 - width) / 2, (width - 1) / 2, width, device=images.device)
    y = torch.linspace((1 - height) / 2, (height - 1) / 2, height, device=images.device)
    pixels = torch.stack([*torch.meshgrid(x, y, indexing="xy"), x.new_ones(height, width)], -1).view(1, -1, 3)
    size = torch.tensor([width / 2, height / 2], device=images.device)
    grid = pixels.expand(len(images), -1, -1).bmm(theta.transpose(1, 2) / size).view(len(images), height, width, 2)
    moved = F.grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return moved.round_().to(torch.uint8)
