"""Wrong labels: how many, which, and that everything trusted stays right."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otrw.config import DataConfig
from otrw.data.datasets import make_datasets
from otrw.data.noise import (
    SIMILAR_CIFAR10,
    SIMILAR_DIGITS,
    instance_dependent_labels,
    next_in_group,
    noisy_labels,
    some_wrong_labels,
)
from otrw.errors import UserError

CPU = torch.device("cpu")
DIGITS = DataConfig(num_meta_per_class=8, num_validation_per_class=4, imbalance_factor=10)


def tolerance(rate, num_samples):
    return 5 * (rate * (1 - rate) / num_samples) ** 0.5


@pytest.mark.parametrize("rate", [0.1, 0.4, 0.8])
def test_symmetric_noise_has_its_rate_and_every_other_class_is_equally_likely(rate):
    num_classes = 5
    labels = np.random.default_rng(0).integers(0, num_classes, 40_000)
    given = noisy_labels(labels, num_classes, rate, seed=1)
    wrong = given != labels
    assert wrong.mean() == pytest.approx(rate, abs=tolerance(rate, len(labels)))
    distance = (given - labels)[wrong] % num_classes
    shares = np.bincount(distance, minlength=num_classes) / wrong.sum()
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], 1 / (num_classes - 1), atol=tolerance(0.25, wrong.sum()))


def test_rate_zero_changes_nothing():
    labels = np.arange(100) % 7
    np.testing.assert_array_equal(noisy_labels(labels, 7, 0.0, seed=0), labels)


def test_labels_given_are_classes_and_the_input_is_left_alone():
    labels = np.arange(1000) % 7
    before = labels.copy()
    given = noisy_labels(labels, 7, 0.9, seed=0)
    assert given.dtype == labels.dtype
    assert given.min() >= 0
    assert given.max() < 7
    np.testing.assert_array_equal(labels, before)


def test_noise_depends_on_the_seed_alone():
    labels = np.arange(2000) % 10
    first, again, other = (noisy_labels(labels, 10, 0.3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("similar", [SIMILAR_DIGITS, SIMILAR_CIFAR10])
def test_similar_noise_gives_the_similar_class_and_spares_classes_without_one(similar):
    labels = np.arange(20_000) % 10
    given = noisy_labels(labels, 10, 0.4, kind="similar", seed=0, similar=similar)
    for label in range(10):
        members = given[labels == label]
        if label in similar:
            assert set(members.tolist()) == {label, similar[label]}
            assert (members != label).mean() == pytest.approx(0.4, abs=tolerance(0.4, len(members)))
        else:
            assert (members == label).all()


def test_next_in_group_is_a_circle_inside_each_group():
    groups = np.array([1, 0, 1, 0, 1, 2])
    table = next_in_group(groups)
    assert table == {0: 2, 2: 4, 4: 0, 1: 3, 3: 1, 5: 5}


def test_meta_validation_and_test_labels_stay_right():
    data = make_datasets(replace(DIGITS, label_noise="symmetric", label_noise_rate=0.5), 0, CPU)
    assert data.validation is not None
    for clean in (data.meta, data.validation, data.test):
        assert torch.equal(clean.labels, clean.true_labels)
    wrong = (data.train.labels != data.train.true_labels).double().mean()
    assert wrong.item() == pytest.approx(0.5, abs=tolerance(0.5, len(data.train)))
    assert data.given_sizes.tolist() == data.train.labels.bincount(minlength=10).tolist()
    assert data.true_sizes.tolist() == data.train.true_labels.bincount(minlength=10).tolist()
    assert data.given_sizes.tolist() != data.true_sizes.tolist()


def test_noise_does_not_change_which_samples_are_selected():
    clean, noisy = (
        make_datasets(config, 0, CPU) for config in (DIGITS, replace(DIGITS, label_noise="symmetric", label_noise_rate=0.3))
    )
    assert clean.split_hash == noisy.split_hash
    assert torch.equal(clean.train.source_index, noisy.train.source_index)
    assert torch.equal(clean.train.labels, noisy.train.true_labels)
    assert torch.equal(clean.train.inputs, noisy.train.inputs)


def test_a_subset_carries_the_same_wrong_labels():
    noisy = replace(DIGITS, label_noise="symmetric", label_noise_rate=0.3)
    large, small = (make_datasets(replace(noisy, imbalance_factor=factor), 0, CPU) for factor in (2, 10))
    given = dict(zip(large.train.source_index.tolist(), large.train.labels.tolist(), strict=True))
    assert len(small.train) < len(large.train)
    for row, label in zip(small.train.source_index.tolist(), small.train.labels.tolist(), strict=True):
        assert given[row] == label


def test_a_higher_rate_keeps_the_wrong_labels_of_a_lower_one():
    labels = np.arange(5000) % 10
    low, high = (noisy_labels(labels, 10, rate, seed=4) for rate in (0.2, 0.5))
    wrong = low != labels
    np.testing.assert_array_equal(high[wrong], low[wrong])


def test_similar_noise_of_digits_uses_the_table_of_digits():
    data = make_datasets(replace(DIGITS, label_noise="similar", label_noise_rate=0.5), 0, CPU)
    wrong = data.train.labels != data.train.true_labels
    pairs = set(zip(data.train.true_labels[wrong].tolist(), data.train.labels[wrong].tolist(), strict=True))
    assert pairs
    assert pairs <= set(SIMILAR_DIGITS.items())


@pytest.mark.parametrize("changes", [{"label_noise": "symmetric"}, {"label_noise_rate": 0.2}])
def test_kind_and_rate_of_noise_come_together(changes):
    with pytest.raises(UserError, match=r"data\.label_noise_rate must agree with data\.label_noise"):
        DataConfig(**changes)


def test_instance_noise_has_its_rate_and_gives_alike_samples_of_a_class_the_same_wrong_label():
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 5000)
    kinds = generator.integers(0, 6, len(labels))  # every class looks one of six ways
    ways = generator.normal(size=(4, 6, 8))
    inputs = ways[labels, kinds]
    given = instance_dependent_labels(inputs, labels, 4, 0.3, seed=1)
    wrong = given != labels
    assert wrong.mean() == pytest.approx(0.3, abs=tolerance(0.3, len(labels)))
    generator = np.random.default_rng(0)
    shuffled = instance_dependent_labels(generator.normal(size=inputs.shape), labels, 4, 0.3, seed=1)

    def most_common_share(given):
        shares = []
        for label in range(4):
            for kind in range(6):
                members = given[(labels == label) & (kinds == kind) & (given != labels)]
                shares.append(np.bincount(members, minlength=4).max() / len(members))
        return np.mean(shares)

    assert most_common_share(given) > most_common_share(shuffled) + 0.2
    np.testing.assert_array_equal(given, instance_dependent_labels(inputs, labels, 4, 0.3, seed=1))


def test_rates_of_samples_stay_probabilities_however_close_the_mean_is_to_none():
    labels = np.zeros(5000, dtype=np.int64)
    inputs = np.random.default_rng(0).normal(size=(5000, 3))
    given = instance_dependent_labels(inputs, labels, 3, 0.02, seed=0)
    assert 0.03 < (given != labels).mean() < 0.15  # a normal cut at 0 has a larger mean


@pytest.mark.parametrize("share", [0.05, 0.1, 0.0])
def test_so_many_trusted_labels_are_wrong_and_no_more(share):
    labels = np.arange(100) % 10
    given = some_wrong_labels(labels, 10, share, seed=0)
    assert (given != labels).sum() == round(100 * share)


def test_fewer_trusted_images_are_a_part_of_more_and_the_split_stays():
    sets = {num: make_datasets(replace(DIGITS, num_meta_used_per_class=num), 0, CPU) for num in (1, 3, None)}
    rows = {num: set(data.meta.source_index.tolist()) for num, data in sets.items()}
    assert rows[1] < rows[3] < rows[None]
    assert [len(rows[num]) for num in rows] == [10, 30, 80]
    assert torch.equal(torch.bincount(sets[3].meta.labels), torch.full((10,), 3))
    for data in sets.values():
        assert data.split_hash == sets[1].split_hash
        assert torch.equal(data.train.source_index, sets[1].train.source_index)


def test_the_rarest_classes_can_be_without_trusted_images_and_some_can_be_wrong():
    data = make_datasets(replace(DIGITS, num_classes_without_meta=2, meta_label_noise_rate=0.25), 0, CPU)
    rarest = torch.argsort(data.true_sizes, stable=True)[:2]
    assert not torch.isin(data.meta.true_labels, rarest).any()
    assert len(data.meta) == 64
    assert (data.meta.labels != data.meta.true_labels).sum() == 16
    assert torch.equal(data.train.labels, data.train.true_labels)
    with pytest.raises(UserError, match=r"^data\.num_classes_without_meta must leave a class its meta images, got 10 of 10$"):
        make_datasets(replace(DIGITS, num_classes_without_meta=10), 0, CPU)
