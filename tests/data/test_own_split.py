"""How data of one's own are divided: every sample once, every class everywhere that it must be, whatever the sizes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otrw.config import DataConfig
from otrw.data.raw import Parts, RawData, Skipped, kept
from otrw.data.split import own_split, with_test_set
from otrw.errors import UserError


def made(sizes, seed=0, trusted=0, given_test=False):
    """Labels in a random order; `trusted` samples a class are checked, and the last of each class may be a test sample."""
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    rank = np.zeros(len(labels), dtype=int)
    for label in range(len(sizes)):
        rank[labels == label] = np.arange(sizes[label])
    is_trusted, is_test = rank < trusted, given_test & (rank == np.array(sizes)[labels] - 1)
    parts = Parts(
        np.flatnonzero(~is_trusted & ~is_test),
        np.flatnonzero(is_trusted) if trusted else None,
        None,
        np.flatnonzero(is_test) if given_test else None,
    )
    names = tuple(f"class {label}" for label in range(len(sizes)))
    return RawData(np.zeros((len(labels), 2, 2, 3), np.uint8), labels, parts, names)


def divided(raw, seed=0, **settings):
    config = DataConfig(source="folder", **settings)
    raw = with_test_set(raw, config.test_share)
    return raw, own_split(config, raw, seed)


SIZES = st.lists(st.integers(2, 60), min_size=2, max_size=6)


@given(
    sizes=SIZES,
    share=st.floats(0.05, 0.6),
    num_meta=st.integers(1, 12),
    num_validation=st.integers(0, 12),
    seed=st.integers(0, 1000),
)
def test_every_sample_is_in_one_part_and_every_class_can_be_trained_and_trusted(sizes, share, num_meta, num_validation, seed):
    if all(size == 2 for size in sizes):
        sizes = [3, *sizes]
    settings = {"test_share": share, "num_meta_per_class": num_meta, "num_validation_per_class": num_validation}
    raw, found = divided(made(sizes), seed, **settings)
    parts = (*found.split, raw.parts.test)
    assert sorted(np.concatenate(parts).tolist()) == list(range(sum(sizes)))
    train, meta, validation, test = (np.bincount(raw.labels[rows], minlength=len(sizes)) for rows in parts)
    assert (train >= 1).all()
    assert ((meta >= 1) & (meta <= num_meta)).all()
    assert (validation <= num_validation).all()
    assert (meta <= np.ceil((np.array(sizes) - test) / 2)).all()
    enough = np.array(sizes) >= 3
    assert (test[enough] >= 1).all()
    large = np.array(sizes) >= 10
    assert (np.abs(test - share * np.array(sizes))[large] <= 1).all()
    assert not found.meta_is_checked


@given(sizes=SIZES, seed=st.integers(0, 1000), num_validation=st.integers(0, 5))
def test_a_trusted_set_is_taken_whole_and_nothing_is_drawn_beside_it(sizes, seed, num_validation):
    sizes = [size + 4 for size in sizes]
    raw = made(sizes, trusted=2, given_test=True)
    _, found = divided(raw, seed, num_validation_per_class=num_validation)
    np.testing.assert_array_equal(found.split.meta, raw.parts.trusted)
    assert found.meta_is_checked
    assert len(found.notes) == (num_validation > 0)
    taken = np.concatenate([found.split.train, found.split.validation])
    np.testing.assert_array_equal(np.sort(taken), raw.parts.train)


def test_the_test_set_is_the_same_for_every_seed_and_whatever_else_is_asked_for():
    raw = made([40, 20, 5])
    (first, of_first), (second, of_second) = divided(raw, 0), divided(raw, 7, num_meta_per_class=2, num_validation_per_class=3)
    np.testing.assert_array_equal(first.parts.test, second.parts.test)
    assert set(of_first.split.meta.tolist()) != set(of_second.split.meta.tolist())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([9, 1], "in the trusted set, got none of 'class 1'"),
        ([9, 0], "to train on, got none of 'class 1'"),
        ([2, 2], "data.test_share must"),
    ],
)
def test_what_cannot_be_divided_is_refused(sizes, message):
    with pytest.raises(UserError, match=message):
        divided(made(sizes))


@given(sizes=SIZES, seed=st.integers(0, 1000))
def test_rows_that_go_leave_all_that_stays_as_it_was(sizes, seed):
    raw = made(sizes, seed, trusted=1, given_test=True)
    raw = raw._replace(identities=tuple(f"{label}/{row}" for row, label in enumerate(raw.labels)))
    keep = np.random.default_rng(seed).random(len(raw.labels)) < 0.7
    if not keep.any():
        keep[0] = True
    left = kept(raw, keep, (Skipped("x", "gone"),))
    assert left.identities == tuple(np.array(raw.identities)[keep])
    assert [left.class_names[label] for label in left.labels] == [raw.class_names[label] for label in raw.labels[keep]]
    assert set(left.class_names) == {raw.class_names[label] for label in raw.labels[keep]}
    for part in ("train", "trusted", "test"):
        before = {raw.identities[row] for row in getattr(raw.parts, part) if keep[row]}
        assert {left.identities[row] for row in getattr(left.parts, part)} == before
    assert left.parts.validation is None
    assert left.skipped == (Skipped("x", "gone"),)
