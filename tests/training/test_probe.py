"""Linear probes: folds that share nothing, and opinions that separate what can be separated."""

import numpy as np
import pytest

from otrw.training.probe import (
    FOLDS,
    STRENGTH_OF_ONE,
    STRENGTHS,
    chosen_strength,
    fold_of_sample,
    out_of_fold_opinions,
    probe_opinions,
    trusted_opinions,
)


def clusters(sizes, spread=0.3, seed=0):
    """Gaussian clusters at the corners of a simplex: (N, C) embeddings, (N,) labels."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.eye(len(sizes))[labels] + spread * generator.normal(size=(len(labels), len(sizes))), labels


def test_every_class_is_dealt_out_evenly_and_no_fold_is_left_empty():
    labels = np.repeat(np.arange(4), [23, 11, 2, 1])
    folds = fold_of_sample(labels, FOLDS, seed=3)
    for label in range(4):
        counts = np.bincount(folds[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1
    assert np.bincount(folds, minlength=FOLDS).max() - np.bincount(folds, minlength=FOLDS).min() <= 1


def test_a_sample_does_not_see_its_own_label():
    """With more dimensions than a fold has samples a probe fits any labels; out of fold it is no better than a coin."""
    generator = np.random.default_rng(0)
    embeddings, labels = generator.normal(size=(200, 150)), generator.integers(0, 2, 200)
    opinions = out_of_fold_opinions(embeddings, labels, 2, seed=0)
    assert abs((opinions.argmax(1) == labels).mean() - 0.5) < 0.12
    seen = probe_opinions(embeddings, labels, embeddings, 2, strength=1.0)
    assert (seen.argmax(1) == labels).mean() > 0.95


def test_a_probe_of_few_trusted_samples_tells_right_labels_from_wrong_ones():
    trusted, classes = clusters([5, 5, 5])
    embeddings, truth = clusters([80, 20, 10], seed=1)
    opinions = trusted_opinions(trusted, classes, embeddings, 3)
    np.testing.assert_allclose(opinions.sum(1), 1)
    right = opinions[np.arange(110), truth]
    wrong = opinions[np.arange(110), (truth + 1) % 3]
    assert (right > wrong).mean() > 0.95


def test_a_class_without_a_trusted_sample_has_no_probability():
    trusted, classes = clusters([5, 5, 5])
    opinions = trusted_opinions(trusted[:10], classes[:10], trusted, 3)
    assert (opinions[:, 2] == 0).all()
    only = trusted_opinions(trusted[:5], classes[:5], trusted, 3)
    np.testing.assert_array_equal(only, np.tile([1.0, 0.0, 0.0], (15, 1)))


@pytest.mark.parametrize("num_trusted", [1, 2, 10])
def test_the_penalty_is_chosen_on_held_out_trusted_samples_where_there_are_two_a_class(num_trusted):
    trusted, classes = clusters([num_trusted] * 3)
    strength = chosen_strength(trusted, classes, 3)
    assert strength == STRENGTH_OF_ONE if num_trusted == 1 else strength in STRENGTHS
    if num_trusted == 10:  # pure noise wants the strongest penalty, clean clusters a weak one
        noise = np.random.default_rng(0).normal(size=(30, 50))
        assert chosen_strength(noise, classes, 3) == STRENGTHS[0]
        assert strength > STRENGTHS[0]


def test_opinions_do_not_hang_on_the_rounding_of_a_feature_that_hardly_varies():
    trusted, classes = clusters([5, 5, 5])
    embeddings, _ = clusters([30, 20, 10], seed=1)
    generator = np.random.default_rng(0)

    def opinions():
        dead = (1e-6 * generator.normal(size=(len(x), 4)) for x in (trusted, embeddings))
        widened = [np.concatenate([x, more], 1) for x, more in zip((trusted, embeddings), dead, strict=True)]
        return trusted_opinions(widened[0], classes, widened[1], 3)

    np.testing.assert_allclose(opinions(), opinions(), atol=1e-3)
