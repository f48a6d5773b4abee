"""Long-tailed selection: the profile against its formula, nesting over factors, and what is cut out first."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw.data.long_tail import class_profile, long_tail_indices
from otrw.errors import UserError

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


def shuffled_labels(*sizes, seed=0):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(labels)


def formula(num_classes, head_size, imbalance_factor):
    return [int(head_size * (1 / imbalance_factor) ** (c / (num_classes - 1))) for c in range(num_classes)]


@pytest.mark.parametrize("imbalance_factor", [1, 10, 20, 50, 100, 200])
@pytest.mark.parametrize(("num_classes", "head_size"), [(10, 4990), (100, 490)])
def test_profile_is_the_formula_at_every_factor_of_the_published_tables(num_classes, head_size, imbalance_factor):
    profile = class_profile(num_classes, head_size, imbalance_factor)
    assert profile.tolist() == formula(num_classes, head_size, imbalance_factor)


def test_official_cifar10_profile_by_hand():
    assert class_profile(10, 4990, 100).tolist() == [4990, 2991, 1793, 1075, 644, 386, 231, 138, 83, 49]


def test_official_cifar100_profile_ends_with_4():
    profile = class_profile(100, 490, 100)
    assert (profile[0], profile[-1]) == (490, 4)


@PROPERTY
@given(
    num_classes=st.integers(2, 40),
    head_size=st.integers(1, 5000),
    imbalance_factor=st.floats(1, 500, allow_nan=False),
)
def test_profile_falls_from_head_to_head_over_factor(num_classes, head_size, imbalance_factor):
    profile = class_profile(num_classes, head_size, imbalance_factor)
    assert profile[0] == head_size
    assert (np.diff(profile) <= 0).all()
    exact = head_size * (1 / imbalance_factor) ** (np.arange(num_classes) / (num_classes - 1))
    assert (profile <= exact + 1e-8).all()
    assert (profile > exact - 1).all()


def test_factor_one_keeps_every_class_whole():
    assert class_profile(10, 123, 1).tolist() == [123] * 10
    assert class_profile(10, 123, 1, "step").tolist() == [123] * 10


@pytest.mark.parametrize("num_classes", [2, 10, 11])
def test_step_profile_has_a_large_first_half_and_a_small_second_half(num_classes):
    num_large = -(-num_classes // 2)
    expected = [4990] * num_large + [499] * (num_classes - num_large)
    assert class_profile(num_classes, 4990, 10, "step").tolist() == expected


def test_a_size_that_is_whole_but_for_rounding_is_not_cut_by_one():
    positions = np.arange(5) / 4
    assert int(49 * (1 / 49)) == 0  # binary fractions: 0.9999999999999999
    assert class_profile(3, 49, 49).tolist() == [49, 7, 1]
    assert class_profile(5, 490, 49, positions=positions).tolist() == [490, 185, 70, 26, 10]
    assert class_profile(5, 490, 50, positions=positions).tolist() == [490, 184, 69, 26, 9]


def test_positions_order_the_classes_of_each_group_anew():
    positions = np.array([0.0, 1.0, 0.5, 1.0, 0.0, 0.5])  # two groups of three classes, interleaved
    labels = shuffled_labels(*[120] * 6)
    split = long_tail_indices(labels, 25, seed=0, num_meta_per_class=20, positions=positions)
    assert np.bincount(labels[split.train]).tolist() == [100, 4, 20, 4, 100, 20]


def test_official_split_of_cifar10_sizes():
    labels = shuffled_labels(*[5000] * 10)
    split = long_tail_indices(labels, 100, seed=0, num_meta_per_class=10)
    assert np.bincount(labels[split.train]).tolist() == class_profile(10, 4990, 100).tolist()
    assert np.bincount(labels[split.meta]).tolist() == [10] * 10
    assert len(split.validation) == 0


@PROPERTY
@given(
    seed=st.integers(0, 1000),
    num_meta=st.integers(0, 5),
    num_validation=st.integers(0, 5),
    factor=st.sampled_from([1, 2, 7.5, 20]),
)
def test_meta_and_validation_are_balanced_and_disjoint_from_training(seed, num_meta, num_validation, factor):
    labels = shuffled_labels(31, 40, 35, seed=seed)
    split = long_tail_indices(labels, factor, seed=seed, num_meta_per_class=num_meta, num_validation_per_class=num_validation)
    assert np.bincount(labels[split.meta], minlength=3).tolist() == [num_meta] * 3
    assert np.bincount(labels[split.validation], minlength=3).tolist() == [num_validation] * 3
    together = np.concatenate(split)
    assert len(np.unique(together)) == len(together)
    for part in split:
        assert (np.diff(part) > 0).all()
    assert np.bincount(labels[split.train])[0] == 31 - num_meta - num_validation  # the smallest class sets the head


def test_training_sets_are_nested_over_factors_and_the_rest_does_not_depend_on_the_factor():
    labels = shuffled_labels(*[300] * 8)
    splits = [
        long_tail_indices(labels, factor, seed=3, num_meta_per_class=7, num_validation_per_class=5)
        for factor in (1, 2, 10, 50, 200)
    ]
    for larger, smaller in itertools.pairwise(splits):
        assert set(smaller.train) < set(larger.train)
        np.testing.assert_array_equal(larger.meta, smaller.meta)
        np.testing.assert_array_equal(larger.validation, smaller.validation)


def test_meta_does_not_depend_on_the_size_of_the_validation_set():
    labels = shuffled_labels(*[100] * 4)
    without, with_validation = (
        long_tail_indices(labels, 10, seed=1, num_meta_per_class=6, num_validation_per_class=n) for n in (0, 9)
    )
    np.testing.assert_array_equal(without.meta, with_validation.meta)


def test_one_seed_gives_one_split_and_another_seed_another():
    labels = shuffled_labels(*[80] * 5)
    hashes = [long_tail_indices(labels, 8, seed=seed, num_meta_per_class=3).hash for seed in (0, 0, 1, 2)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in hashes)


def test_hash_tells_which_part_an_index_is_in():
    labels = shuffled_labels(*[80] * 5)
    split = long_tail_indices(labels, 8, seed=0, num_meta_per_class=3, num_validation_per_class=3)
    assert split.hash != split._replace(meta=split.validation, validation=split.meta).hash
    assert split.hash != split._replace(train=split.train[:-1]).hash


def test_a_factor_that_empties_a_class_is_refused_with_the_largest_that_does_not():
    labels = shuffled_labels(*[30] * 4)
    with pytest.raises(UserError, match=r"data\.imbalance_factor .* got 21: class 3 would be empty; use at most 20"):
        long_tail_indices(labels, 21, seed=0, num_meta_per_class=10)
    split = long_tail_indices(labels, 20, seed=0, num_meta_per_class=10)
    assert np.bincount(labels[split.train])[3] == 1


@pytest.mark.parametrize(("num_meta", "num_validation"), [(12, 0), (0, 12), (6, 6), (100, 100)])
def test_cutting_as_much_as_the_smallest_class_holds_is_refused(num_meta, num_validation):
    labels = shuffled_labels(30, 12, 20)
    with pytest.raises(UserError, match=rf"12 images of class 1, got {num_meta + num_validation}; take fewer"):
        long_tail_indices(labels, 1, seed=0, num_meta_per_class=num_meta, num_validation_per_class=num_validation)


@pytest.mark.parametrize("factor", [0.5, 0, -3, float("nan")])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(UserError, match=r"data\.imbalance_factor must be >= 1, got"):
        long_tail_indices(shuffled_labels(9, 9), factor, seed=0)
