"""Samples to check are spread over each class: they cover its modes, where the most typical ones would all be of one."""

import numpy as np
import pytest

from otrw.data.choice import MOST_OF_A_CLASS, candidates, picture_features, spread_over_classes
from otrw.errors import UserError


def modes(sizes, seed=0, spread=0.1):
    """Points around (10 m, 0), (0, 10 m), ... and the mode of each."""
    random = np.random.default_rng(seed)
    mode = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes))[mode] * 10 + random.normal(0, spread, (len(mode), len(sizes))), mode


def test_every_mode_of_a_class_is_covered_however_rare_and_the_largest_comes_first():
    features, mode = modes([200, 30, 5, 1])
    chosen = spread_over_classes(features, np.zeros(len(mode), dtype=int), 4, seed=0)
    assert mode[chosen].tolist() == [0, 1, 2, 3]


def test_each_class_gives_its_number_and_a_small_one_half_of_it_each_once():
    features, _ = modes([50, 50], spread=3)
    labels = np.repeat([0, 1, 2], [90, 7, 3])
    chosen = spread_over_classes(features, labels, 7, seed=1)
    assert np.bincount(labels[chosen]).tolist() == [7, 3, 1]
    assert len(np.unique(chosen)) == len(chosen)


def test_a_class_of_equal_samples_gives_as_many_as_asked():
    labels = np.zeros(20, dtype=int)
    assert spread_over_classes(np.ones((20, 3)), labels, 5, seed=0).tolist() == [0, 1, 2, 3, 4]


def test_a_sample_stands_for_the_middle_of_its_cluster_and_the_seed_decides():
    features, mode = modes([101, 101], spread=1)
    labels = np.zeros(len(mode), dtype=int)
    chosen = spread_over_classes(features, labels, 2, seed=0)
    for row in chosen:
        distances = np.linalg.norm(features[mode == mode[row]] - features[mode == mode[row]].mean(0), axis=1)
        assert np.linalg.norm(features[row] - features[mode == mode[row]].mean(0)) == pytest.approx(distances.min())
    assert (chosen == spread_over_classes(features, labels, 2, seed=0)).all()


def test_of_a_huge_class_a_part_is_looked_at_and_of_others_all():
    labels = np.repeat([0, 1], [3 * MOST_OF_A_CLASS, 50])
    rows = candidates(labels, 2, seed=0)
    assert np.bincount(labels[rows]).tolist() == [MOST_OF_A_CLASS, 50]
    assert (np.diff(rows) > 0).all()


def test_less_than_one_a_class_is_refused():
    with pytest.raises(UserError, match="--per-class must be >= 1, got 0"):
        spread_over_classes(np.ones((3, 2)), np.zeros(3, dtype=int), 0, seed=0)


def test_features_of_pictures_tell_dark_from_bright_and_left_from_right():
    random = np.random.default_rng(0)
    pictures = random.integers(0, 40, (60, 8, 8, 3))
    kind = np.arange(60) % 3
    pictures[kind == 1] += 200
    pictures[kind == 2, :, :4] += 200
    features = picture_features(pictures.astype(np.uint8), 5)
    assert features.shape == (60, 5)
    centres = np.stack([features[kind == k].mean(0) for k in range(3)])
    nearest = np.linalg.norm(features[:, None] - centres, axis=2).argmin(1)
    assert (nearest == kind).all()
