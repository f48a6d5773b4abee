"""RandAugment, AutoAugment and TrivialAugment of a batch: torchvision's own operations, one draw a sample."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import AutoAugment, AutoAugmentPolicy, RandAugment, TrivialAugmentWide

from otrw.config import AugmentConfig, DataConfig
from otrw.data.augment import NUM_DRAWS, Augmentation, augmented
from otrw.data.datasets import make_datasets
from otrw.data.draws import uniform_draws
from otrw.data.policies import (
    NUM_DRAWN,
    NUM_LEVELS,
    OPERATIONS,
    STANDARD,
    WIDE,
    Policy,
    _magnitudes,
    cifar_policies,
    drawn_operations,
    operations_applied,
    policy_applied,
)

SIZE = 32
POLICIES = [Policy("randaugment", 2, 9), Policy("randaugment", 3, 27), Policy("autoaugment"), Policy("trivialaugment")]
SIGNED = OPERATIONS[1:10]
REFERENCE = RandAugment()
IS_EXACT = ("Identity", "Posterize", "Solarize", "AutoContrast", "Equalize", "Invert", "TranslateX", "TranslateY")


def random_images(number=12, channels=3, height=SIZE, width=SIZE, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(number, channels, height // 4, width // 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (255 * (0.8 * smooth + 0.2 * torch.rand(number, channels, height, width, generator=generator))).to(torch.uint8)


def by_torchvision(image, name, magnitude):
    magnitude = magnitude / 255 if name == "Solarize" else magnitude
    return REFERENCE._apply_image_or_video_transform(image, name, magnitude, InterpolationMode.NEAREST, {type(image): None})


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 24, 40), (1, 8, 8)])
def test_every_operation_is_torchvisions_at_every_strength(name, shape):
    levels = torch.linspace(0, 1, 11)
    number = OPERATIONS.index(name)
    images = random_images(len(levels), *shape)
    for strengths in (STANDARD, WIDE):
        for sign in (1, -1) if name in SIGNED else (1,):
            magnitude = sign * _magnitudes(levels, strengths, shape[2], shape[1])[number]
            ours = operations_applied(images, torch.full((len(levels),), number), magnitude)
            theirs = torch.stack([by_torchvision(x, name, m) for x, m in zip(images, magnitude.tolist(), strict=True)])
            assert ours.dtype == torch.uint8
            difference = (ours.int() - theirs.int()).abs()
            if name in IS_EXACT:
                assert difference.max() == 0
            elif name in ("ShearX", "ShearY", "Rotate"):  # a source between two pixels may be rounded to either
                assert (difference > 0).float().mean() < 0.005
            else:
                assert difference.max() <= 1
                assert (difference > 0).float().mean() < 0.1  # close to whole numbers, cut off to either side


def test_strengths_are_those_of_torchvision():
    for reference, strengths, bins in (
        (RandAugment, STANDARD, NUM_LEVELS),
        (TrivialAugmentWide, WIDE, NUM_LEVELS),
        (AutoAugment, STANDARD, 10),
    ):
        space = reference._AUGMENTATION_SPACE
        assert set(OPERATIONS[1:NUM_DRAWN]) <= set(space)
        table = _magnitudes(torch.arange(bins) / (bins - 1), strengths, SIZE, SIZE)
        for number, name in enumerate(OPERATIONS):
            if name not in space:
                continue
            make, is_signed = space[name]
            expected = make(bins, SIZE, SIZE)
            assert is_signed == (name in SIGNED)
            if expected is None or name == "Identity":
                continue
            expected = 255 * expected if name == "Solarize" else expected.float()
            if name.startswith("Translate"):
                expected = expected.round(decimals=3).trunc()
            torch.testing.assert_close(table[number], expected.float(), rtol=1e-5, atol=1e-5)


def test_policies_for_cifar_are_those_of_torchvision():
    assert cifar_policies() == [tuple(pair) for pair in AutoAugment(AutoAugmentPolicy.CIFAR10)._policies]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_sample_is_changed_the_same_alone_in_any_batch_and_in_any_order(policy):
    images = random_images(40)
    index = torch.arange(40) * 7 + 3
    whole = policy_applied(images, index, 11, policy)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(policy_applied(images[order], index[order], 11, policy), whole[order])
    for first, last in pairwise([0, 1, 14, 40]):
        assert torch.equal(policy_applied(images[first:last], index[first:last], 11, policy), whole[first:last])
    assert not torch.equal(policy_applied(images, index, 12, policy), whole)
    assert (whole != images).flatten(1).any(1).float().mean() > 0.5


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_operations_and_signs_are_drawn_as_often_as_they_should_be(policy):
    number = 40_000
    layers = drawn_operations(torch.arange(number), 5, policy, width=SIZE, height=SIZE)
    assert len(layers) == {"randaugment": policy.num_operations, "autoaugment": 2, "trivialaugment": 1}[policy.name]
    for layer, (operation, magnitude) in enumerate(layers):
        counts = Counter(OPERATIONS[number] for number in operation.tolist())
        if policy.name == "autoaugment":
            expected = Counter()
            for pair in cifar_policies():
                name, probability, _ = pair[layer]
                expected[name] += probability / 25
                expected["Identity"] += (1 - probability) / 25
        else:
            expected = dict.fromkeys(OPERATIONS[:NUM_DRAWN], 1 / NUM_DRAWN)
        for name, share in expected.items():
            assert counts[name] / number == pytest.approx(share, abs=0.008)
        signed = torch.tensor([name in SIGNED for name in OPERATIONS])[operation] & (magnitude != 0)
        assert (magnitude[signed] < 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
        assert (magnitude[~signed] >= 0).all()
    if len(layers) > 1:  # the layers know nothing of each other
        first, second = (operation == OPERATIONS.index("Equalize") for operation, _ in layers[:2])
        if policy.name == "randaugment":
            both = (first & second).float().mean().item()
            assert both == pytest.approx(1 / NUM_DRAWN**2, abs=0.003)


def test_trivialaugment_draws_every_level():
    ((operation, magnitude),) = drawn_operations(torch.arange(30_000), 3, Policy("trivialaugment"), width=SIZE, height=SIZE)
    angles = magnitude[operation == OPERATIONS.index("Rotate")].abs().round(decimals=3).unique()
    torch.testing.assert_close(angles, torch.linspace(0, 135, NUM_LEVELS).round(decimals=3))


def test_strengths_do_not_follow_the_crop_of_the_same_step():
    index = torch.arange(20_000)
    crop = uniform_draws(9, index, NUM_DRAWS)
    operation = drawn_operations(index, 9, Policy("randaugment", 1, 9), width=SIZE, height=SIZE)[0][0].double()
    for column in crop.double().unbind(1):
        assert abs(torch.corrcoef(torch.stack([column, operation]))[0, 1]) < 0.03


@pytest.mark.parametrize("channels", [1, 3])
def test_a_policy_stands_between_crop_and_cutout(channels):
    images = random_images(20, channels).permute(0, 2, 3, 1).contiguous()
    index = torch.arange(20)
    plain = augmented(images, index, 4, Augmentation(4, "zero", True, 0))
    policy = Policy("randaugment", 2, 9)
    both = augmented(images, index, 4, Augmentation(4, "zero", True, 0, policy))
    expected = policy_applied(plain.to(torch.uint8).permute(0, 3, 1, 2), index, 4, policy).permute(0, 2, 3, 1).float()
    assert torch.equal(both, expected)
    cut = augmented(images, index, 4, Augmentation(4, "zero", True, 6, policy))
    blank = cut.isnan()
    assert blank.flatten(1).any(1).all()
    assert torch.equal(cut[~blank], both[~blank])


def test_a_policy_is_chosen_in_the_settings_and_leaves_evaluation_alone():
    changed, plain = (
        make_datasets(DataConfig(num_meta_per_class=2, augment=AugmentConfig(policy=name)), 0, torch.device("cpu"))
        for name in ("trivialaugment", "none")
    )
    index = torch.arange(len(plain.train))
    for train in (True, False):
        ours, theirs = (d.transform(train=train)(d.train.inputs, index, 3) for d in (changed, plain))
        assert ours.isfinite().all()
        assert torch.equal(ours, theirs) != train
