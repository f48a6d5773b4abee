"""Augmentation: draws that are a function of key and sample alone, crops against torch's padding, flips and cutout."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw.config import AugmentConfig, DataConfig
from otrw.data.augment import NUM_DRAWS, Augmentation, augmented
from otrw.data.datasets import make_datasets
from otrw.data.draws import uniform_draws

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)
PADDING_MODES = {"reflect": "reflect", "zero": "constant"}


def random_images(num_images, height=6, width=6, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (num_images, height, width, channels), dtype=torch.uint8, generator=generator)


def expected_crop(image, augmentation, draws):
    """One image (h, w, c) cropped and flipped by torch, from the same draws."""
    height, width = image.shape[:2]
    padding, span = augmentation.crop_padding, 2 * augmentation.crop_padding + 1
    planes = image.permute(2, 0, 1).float()[None]
    padded = F.pad(planes, [padding] * 4, mode=PADDING_MODES[augmentation.padding_mode])[0]
    top, left = int(draws[0] * span), int(draws[1] * span)
    crop = padded[:, top : top + height, left : left + width]
    if augmentation.horizontal_flip and draws[2] < 0.5:
        crop = crop.flip(2)
    return crop.permute(1, 2, 0)


def test_draws_are_uniform_and_uncorrelated():
    draws = uniform_draws(123, torch.arange(20_000), NUM_DRAWS).double()
    assert draws.min() >= 0
    assert draws.max() < 1
    for column in range(NUM_DRAWS):
        counts = torch.histc(draws[:, column], bins=20, min=0, max=1)
        chi_squared = ((counts - 1000) ** 2 / 1000).sum().item()
        assert chi_squared < 43.8  # 0.999 quantile with 19 degrees of freedom
    correlation = np.corrcoef(draws.T.numpy()) - np.eye(NUM_DRAWS)
    assert np.abs(correlation).max() < 0.035
    neighbours = np.corrcoef(draws[:-1, 0].numpy(), draws[1:, 0].numpy())[0, 1]
    assert abs(neighbours) < 0.035


def test_draws_of_successive_keys_are_unrelated():
    index = torch.arange(20_000)
    first, second = (uniform_draws(key, index, 1)[:, 0].numpy() for key in (7, 8))
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.035


@pytest.mark.parametrize("key", [0, 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_any_key_of_64_bits_gives_numbers_in_range(key):
    draws = uniform_draws(key, torch.arange(1000), NUM_DRAWS)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert draws.mean().item() == pytest.approx(0.5, abs=0.03)


@PROPERTY
@given(key=st.integers(0, 2**63 - 1), seed=st.integers(0, 1000))
def test_draws_do_not_depend_on_order_or_on_the_rest_of_the_batch(key, seed):
    index = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    whole = uniform_draws(key, torch.arange(50), NUM_DRAWS)
    torch.testing.assert_close(uniform_draws(key, index, NUM_DRAWS), whole[index], rtol=0, atol=0)
    torch.testing.assert_close(uniform_draws(key, index[:1], NUM_DRAWS), whole[index[:1]], rtol=0, atol=0)


def test_a_sample_is_augmented_alike_wherever_it_stands_in_a_batch():
    images = random_images(20)
    augmentation = Augmentation(2, "reflect", True, 3)
    whole = augmented(images, torch.arange(20), 5, augmentation)
    order = torch.tensor([7, 3, 19, 3, 0])
    torch.testing.assert_close(augmented(images, order, 5, augmentation), whole[order], rtol=0, atol=0, equal_nan=True)


def test_each_sample_has_draws_of_its_own_and_each_key_new_ones():
    same = random_images(1).expand(64, -1, -1, -1)
    augmentation = Augmentation(2, "zero", True, 0)
    first, second = (augmented(same, torch.arange(64), key, augmentation) for key in (0, 1))
    assert len(first.flatten(1).unique(dim=0)) > 20  # of 50 that are possible
    assert (first != second).flatten(1).any(1).sum() > 48


@pytest.mark.parametrize("padding_mode", ["reflect", "zero"])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("height", "width", "padding"), [(6, 6, 2), (5, 8, 4), (8, 8, 1)])
def test_crops_are_those_of_torch_padding(padding_mode, flip, height, width, padding):
    images = random_images(40, height, width)
    augmentation = Augmentation(padding, padding_mode, flip, 0)
    index = torch.arange(40)
    draws = uniform_draws(9, index, NUM_DRAWS)
    result = augmented(images, index, 9, augmentation)
    expected = torch.stack([expected_crop(images[i], augmentation, draws[i]) for i in range(40)])
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_every_offset_of_a_crop_occurs_and_no_other():
    image = torch.zeros(1, 5, 5, 1, dtype=torch.uint8)
    image[0, 2, 2] = 1
    result = augmented(image.expand(600, -1, -1, -1), torch.arange(600), 0, Augmentation(1, "zero", False, 0))
    positions = {tuple(position) for position in result[..., 0].nonzero()[:, 1:].tolist()}
    assert positions == {(y, x) for y in (1, 2, 3) for x in (1, 2, 3)}


def test_about_half_of_the_images_are_mirrored_and_the_others_left():
    images = random_images(400)
    result = augmented(images, torch.arange(400), 3, Augmentation(0, "reflect", True, 0))
    kept = (result == images).flatten(1).all(1)
    mirrored = (result == images.flip(2)).flatten(1).all(1)
    assert (kept ^ mirrored).all()
    assert mirrored.double().mean().item() == pytest.approx(0.5, abs=0.12)


def test_without_any_change_images_only_become_float():
    images = random_images(5)
    result = augmented(images, torch.arange(5), 0, Augmentation(0, "reflect", False, 0))
    assert result.dtype == torch.float32
    assert torch.equal(result, images.float())


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_cutout_blanks_one_square_cut_off_at_the_border(side):
    num_images, size = 300, 9
    images = random_images(num_images, size, size)
    result = augmented(images, torch.arange(num_images), 0, Augmentation(0, "reflect", False, side))
    blank = result.isnan()
    assert torch.equal(blank.all(3), blank.any(3))
    blank = blank[..., 0]
    assert torch.equal(result[~blank], images.float()[~blank])
    rows, columns = blank.any(2), blank.any(1)
    assert torch.equal(blank, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):
        lengths = line.sum(1)
        assert lengths.max() == side
        assert lengths.min() >= side - side // 2  # the centre is inside the image
        assert (line[:, 1:] != line[:, :-1]).sum(1).max() <= 2  # one piece
        at_border = line[:, 0] | line[:, -1]
        assert (lengths[~at_border] == side).all()
    assert rows.any(0).all()


def test_cutout_squares_become_the_mean_colour_and_evaluation_changes_nothing():
    config = DataConfig(num_meta_per_class=2, augment=AugmentConfig(crop_padding=0, horizontal_flip=False, cutout_size=4))
    data = make_datasets(config, 0, torch.device("cpu"))
    index = torch.arange(len(data.train))
    plain = data.transform(train=False)(data.train.inputs, index, 0)
    cut = data.transform(train=True)(data.train.inputs, index, 0)
    assert plain.shape == (len(data.train), 1, 8, 8)
    assert cut.isfinite().all()
    changed = cut != plain
    assert (cut[changed] == 0).all()
    assert changed.flatten(1).sum(1).max() <= 16
    assert plain.mean().item() == pytest.approx(0, abs=1e-4)
    assert plain.std().item() == pytest.approx(1, abs=1e-2)
    expected = (data.train.inputs.float() - data.mean) / data.std
    torch.testing.assert_close(plain, expected.permute(0, 3, 1, 2))
