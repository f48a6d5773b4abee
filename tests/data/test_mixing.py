"""Mixup and CutMix: what is mixed, how much, and that any number of processes mixes alike."""

import numpy as np
import pytest
import torch

from otrw.data.loader import Loader, SampleSet
from otrw.data.mixing import Mix, drawn_mix, mixed

SIZE = 8


def draws(number, **alphas):
    options = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0} | alphas
    return [drawn_mix(5, 1, step, height=SIZE, width=2 * SIZE, **options) for step in range(number)]


def images_set(number=11):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(number, 3, SIZE, 2 * SIZE, generator=generator)
    labels = torch.arange(number) % 4
    return SampleSet(images, labels, labels, labels, torch.arange(number))


def test_without_either_nothing_is_mixed():
    assert draws(3) == [Mix()] * 3


def test_a_square_has_the_share_that_counts_in_the_label():
    for mix in draws(200, cutmix_alpha=1.0):
        own, other = torch.zeros(2, 3, SIZE, 2 * SIZE), torch.ones(2, 3, SIZE, 2 * SIZE)
        result = mixed(own, other, mix)
        assert result.mean().item() == pytest.approx(mix.share, abs=1e-6)
        assert set(result.unique().tolist()) <= {0.0, 1.0}
        assert torch.equal(own, torch.zeros_like(own))


def test_areas_follow_the_beta_distribution_where_nothing_is_cut_off():
    shares = np.array([drawn_mix(5, 0, s, mixup_alpha=0, cutmix_alpha=1.0, height=400, width=400).share for s in range(4000)])
    whole = np.array([mix.share for mix in draws(4000, cutmix_alpha=1.0)])
    # alpha 1: the square's area is uniform before it is cut off at the border; a centre is uniform too. For a square of side s
    # (of 1) the expected length inside is s (1 - s / 4), so the expected share is E[s^2 (1 - s/4)^2] = 1/2 - 1/5 + 1/48
    assert shares.mean() == pytest.approx(1 / 2 - 1 / 5 + 1 / 48, abs=0.015)
    assert 0 <= whole.min() <= whole.max() <= 1


def test_both_take_turns_at_random():
    mixes = draws(400, mixup_alpha=0.2, cutmix_alpha=1.0)
    assert np.mean([mix.rows is None for mix in mixes]) == pytest.approx(0.5, abs=0.08)
    blends = [mix.share for mix in mixes if mix.rows is None]
    assert len(set(blends)) == len(blends)


@pytest.mark.parametrize("alphas", [{"mixup_alpha": 0.4}, {"cutmix_alpha": 1.0}, {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}])
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_sees_the_same_mixed_images(alphas, world_size):
    samples = images_set()
    (whole,) = (list(Loader(samples, 7, seed=3, **alphas).epoch(2)),)
    several = [list(Loader(samples, 7, seed=3, rank=r, world_size=world_size, **alphas).epoch(2)) for r in range(world_size)]
    for step, batch in enumerate(whole):
        for name in ("inputs", "index", "partner", "labels"):
            parts = torch.cat([getattr(loader[step], name)[loader[step].mask] for loader in several])
            assert torch.equal(parts, getattr(batch, name)), name
        assert {loader[step].partner_share for loader in several} == {batch.partner_share}
        own, other = samples.inputs[batch.index], samples.inputs[batch.partner]
        mix = drawn_mix(3, 2, step, height=SIZE, width=2 * SIZE, **({"mixup_alpha": 0, "cutmix_alpha": 0} | alphas))
        assert torch.equal(batch.inputs, mixed(own, other, mix))
        assert mix.share == batch.partner_share


def test_every_image_of_a_step_is_augmented_once():
    counts = []

    def transform(images, index, key):
        counts.append(len(index))
        return images[index]

    samples = images_set()
    list(Loader(samples, 7, seed=3, transform=transform, mixup_alpha=0.4).epoch())
    assert counts == [7, 4]
