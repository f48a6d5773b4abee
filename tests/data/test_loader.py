"""Loaders: any number of processes together sees the global batches of one process, and every sample once an epoch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw.data.augment import Augmentation, augmented
from otrw.data.loader import Loader, SampleSet
from otrw.errors import UserError

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True, database=None)
WORLD_SIZES = (1, 2, 3, 5)
SIZES = {"num_samples": st.integers(5, 40), "batch_size": st.integers(1, 50), "epoch": st.integers(0, 3)}


def sample_set(num_samples, num_classes=3):
    labels = torch.arange(num_samples) % num_classes
    images = torch.arange(num_samples * 12).remainder(251).to(torch.uint8).view(num_samples, 2, 2, 3)
    return SampleSet(images, labels, labels, labels, torch.arange(num_samples))


def transform(images, index, key):
    return augmented(images, index, key, Augmentation(1, "zero", True, 0))


def global_batches(samples, batch_size, world_size, epoch, **options):
    """Per step: what all processes hold, in rank order with padding left out, as (index, inputs, labels, partner)."""
    ranks = [
        Loader(samples, batch_size, seed=3, rank=rank, world_size=world_size, transform=transform, **options).epoch(epoch)
        for rank in range(world_size)
    ]
    steps = []
    for batches in zip(*ranks, strict=True):
        fields = ("index", "inputs", "labels", "partner")
        rows = {field: torch.cat([getattr(batch, field)[batch.mask] for batch in batches]) for field in fields}
        assert len({len(batch.index) for batch in batches}) == 1  # collectives need the same shape everywhere
        assert len({batch.partner_share for batch in batches}) == 1
        steps.append((rows, batches[0].partner_share))
    return steps


def assert_same_steps(left, right):
    assert len(left) == len(right)
    for (rows, share), (other_rows, other_share) in zip(left, right, strict=True):
        assert share == other_share
        for field, value in rows.items():
            assert torch.equal(value, other_rows[field]), field


@PROPERTY
@given(**SIZES, mixup_alpha=st.sampled_from([0.0, 0.4]), shuffle=st.booleans())
def test_processes_together_see_the_batches_of_one_process(num_samples, batch_size, epoch, mixup_alpha, shuffle):
    samples = sample_set(num_samples)
    options = {"mixup_alpha": mixup_alpha, "shuffle": shuffle}
    whole = global_batches(samples, batch_size, 1, epoch, **options)
    for world_size in WORLD_SIZES[1:]:
        assert_same_steps(global_batches(samples, batch_size, world_size, epoch, **options), whole)


@PROPERTY
@given(**SIZES, world_size=st.sampled_from(WORLD_SIZES))
def test_every_sample_comes_exactly_once_an_epoch(num_samples, batch_size, epoch, world_size):
    samples = sample_set(num_samples)
    steps = global_batches(samples, batch_size, world_size, epoch)
    seen = torch.cat([rows["index"] for rows, _ in steps])
    assert torch.equal(seen.sort().values, torch.arange(num_samples))
    sizes = [len(rows["index"]) for rows, _ in steps]
    full = min(batch_size, num_samples)
    assert max(sizes) <= full <= 2 * min(sizes)
    assert all(size == full for size in sizes[:-2])
    assert len(Loader(samples, batch_size, seed=0)) == len(steps)


def test_rows_of_a_batch_belong_together():
    samples = sample_set(17)
    for batch in Loader(samples, 5, seed=0, rank=1, world_size=2).epoch():
        assert torch.equal(batch.labels, samples.labels[batch.index])
        assert torch.equal(batch.inputs, samples.inputs[batch.index])
        assert torch.equal(batch.partner, batch.index)
        assert batch.partner_share == 0


def test_padding_repeats_the_last_sample_of_the_global_batch():
    samples = sample_set(7)
    batches = [list(Loader(samples, 7, seed=0, rank=rank, world_size=3, shuffle=False).epoch()) for rank in range(3)]
    assert [part[0].index.tolist() for part in batches] == [[0, 1, 2], [3, 4, 5], [6, 6, 6]]
    assert [part[0].mask.tolist() for part in batches] == [[True] * 3, [True] * 3, [True, False, False]]


def test_a_last_batch_smaller_than_the_number_of_processes_leaves_some_with_padding_alone():
    samples = sample_set(8)
    last = [list(Loader(samples, 5, seed=0, rank=rank, world_size=5, shuffle=False).epoch())[-1] for rank in range(5)]
    assert [batch.mask.tolist() for batch in last] == [[True], [True], [True], [False], [False]]
    assert [batch.index.tolist() for batch in last] == [[5], [6], [7], [7], [7]]


@pytest.mark.parametrize(
    ("num_samples", "sizes"),
    [(323, [64, 64, 64, 64, 34, 33]), (357, [64, 64, 64, 64, 64, 37]), (128, [64, 64]), (65, [33, 32]), (40, [40]), (1, [1])],
)
def test_a_small_rest_shares_with_the_batch_before_it(num_samples, sizes):
    loader = Loader(sample_set(num_samples), 64, seed=0)
    assert loader.sizes == sizes
    assert [len(batch.index) for batch in loader.epoch()] == sizes


def test_the_order_is_one_of_its_own_for_each_epoch_and_seed_and_otherwise_fixed():
    samples = sample_set(30)
    first, again, other = (Loader(samples, 4, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.order(0), again.order(0))
    assert not torch.equal(first.order(0), first.order(1))
    assert not torch.equal(first.order(0), other.order(0))
    assert torch.equal(Loader(samples, 4, seed=1, shuffle=False).order(5), torch.arange(30))


def test_a_sample_is_augmented_anew_in_each_epoch():
    samples = sample_set(30)
    loader = Loader(samples, 30, seed=1, transform=transform, shuffle=False)
    first, again, second = (next(loader.epoch(epoch)).inputs for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@PROPERTY
@given(num_samples=st.integers(5, 20), batch_size=st.integers(1, 25), num_steps=st.integers(1, 12))
def test_cycle_gives_full_batches_and_every_sample_nearly_equally_often(num_samples, batch_size, num_steps):
    samples = sample_set(num_samples)
    loader = Loader(samples, batch_size, seed=0)
    batches = list(loader.cycle(2, num_steps))
    assert len(batches) == num_steps
    assert all(len(batch.index) == min(batch_size, num_samples) for batch in batches)
    counts = torch.cat([batch.index for batch in batches]).bincount(minlength=num_samples)
    assert counts.max() - counts.min() <= 1


@PROPERTY
@given(num_samples=st.integers(5, 20), batch_size=st.integers(1, 25), num_steps=st.integers(1, 6))
def test_cycle_is_the_same_for_any_number_of_processes(num_samples, batch_size, num_steps):
    samples = sample_set(num_samples)
    whole = [batch.index for batch in Loader(samples, batch_size, seed=0).cycle(1, num_steps)]
    for world_size in WORLD_SIZES[1:]:
        ranks = [
            Loader(samples, batch_size, seed=0, rank=rank, world_size=world_size).cycle(1, num_steps)
            for rank in range(world_size)
        ]
        for expected, batches in zip(whole, zip(*ranks, strict=True), strict=True):
            assert torch.equal(torch.cat([batch.index[batch.mask] for batch in batches]), expected)


def test_epochs_of_a_cycle_do_not_repeat_each_other():
    loader = Loader(sample_set(20), 20, seed=0)
    orders = [tuple(batch.index.tolist()) for epoch in range(3) for batch in loader.cycle(epoch, 4)]
    assert len(set(orders)) == 12


def test_weighted_sampling_draws_in_proportion_to_the_weights():
    num_samples = 20_000
    samples = sample_set(num_samples, num_classes=4)
    weights = torch.tensor([0.0, 1.0, 2.0, 5.0])[samples.labels]
    loader = Loader(samples, 64, seed=0, sampling_weights=weights)
    drawn = samples.labels[loader.order(0)]
    assert len(drawn) == num_samples
    shares = drawn.bincount(minlength=4) / num_samples
    torch.testing.assert_close(shares, torch.tensor([0, 1 / 8, 2 / 8, 5 / 8]), rtol=0, atol=0.02)
    assert not torch.equal(loader.order(0), loader.order(1))


def test_weighted_sampling_is_the_same_for_any_number_of_processes():
    samples = sample_set(23)
    options = {"sampling_weights": torch.arange(23.0)}
    whole = global_batches(samples, 6, 1, 0, **options)
    for world_size in WORLD_SIZES[1:]:
        assert_same_steps(global_batches(samples, 6, world_size, 0, **options), whole)


def test_mixup_blends_each_input_with_its_partner():
    samples = sample_set(12)
    samples = samples.with_inputs(samples.inputs.float())
    loader = Loader(samples, 5, seed=0, mixup_alpha=0.4)
    shares = set()
    for batch in loader.epoch():
        assert 0 <= batch.partner_share <= 1
        expected = torch.lerp(samples.inputs[batch.index], samples.inputs[batch.partner], batch.partner_share)
        torch.testing.assert_close(batch.inputs, expected)
        assert torch.equal(batch.partner, batch.index.roll(-1))
        shares.add(batch.partner_share)
    assert len(shares) == len(loader)


def test_mixup_shares_follow_the_beta_distribution():
    alpha = 0.5
    samples = sample_set(400).with_inputs(torch.zeros(400, 1))
    loader = Loader(samples, 1, seed=0, mixup_alpha=alpha)
    shares = torch.tensor([batch.partner_share for batch in loader.epoch()])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), abs=0.02)


def test_more_processes_than_samples_are_refused():
    with pytest.raises(UserError, match="number of processes must be at most the 4 samples, got 5"):
        Loader(sample_set(4), 2, seed=0, world_size=5)
    assert len(Loader(sample_set(5), 2, seed=0, world_size=5)) == 3
