"""Figures against scikit-learn and hand-computed cases; counts of parts merge to the counts of the whole."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, log_loss, roc_auc_score

from otrw.training.metrics import NUM_CALIBRATION_BINS, auroc, count, group_error, merge, summarize, zero_counts

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)
LIMITS = {"many_above": 100, "few_below": 20}
SIZES = torch.tensor([500, 101, 100, 20, 19, 1])


def random_case(num_samples=200, num_classes=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, num_classes, (num_samples,), generator=generator)
    logits = 2 * torch.randn(num_samples, num_classes, generator=generator)
    logits[torch.arange(num_samples), labels] += 1
    return logits, labels


def everything(labels):
    return torch.ones_like(labels, dtype=torch.bool)


def logits_of(*probabilities):
    return torch.tensor(probabilities, dtype=torch.float64).log().float()


def test_confusion_errors_and_loss_are_those_of_scikit_learn():
    logits, labels = random_case()
    counts = count(logits, labels, everything(labels))
    predicted = logits.argmax(1)
    np.testing.assert_array_equal(counts.confusion.numpy(), confusion_matrix(labels, predicted))
    figures = summarize(counts, SIZES, **LIMITS)
    assert figures["error"] == pytest.approx(100 * (1 - accuracy_score(labels, predicted)))
    assert figures["balanced_error"] == pytest.approx(100 * (1 - balanced_accuracy_score(labels, predicted)))
    probabilities = logits.double().softmax(1).numpy()
    assert figures["loss"] == pytest.approx(log_loss(labels, probabilities, labels=range(6)), rel=1e-5)


@PROPERTY
@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_counts_of_parts_merge_to_those_of_the_whole(sizes, seed):
    logits, labels = random_case(sum(sizes), seed=seed)
    merged = zero_counts(6)
    for part_logits, part_labels in zip(logits.split(sizes), labels.split(sizes), strict=True):
        merged = merge(merged, count(part_logits, part_labels, everything(part_labels)))
    whole = count(logits, labels, everything(labels))
    for left, right in zip(merged, whole, strict=True):
        torch.testing.assert_close(left, right)


def test_padding_is_not_counted():
    logits, labels = random_case()
    mask = torch.arange(len(labels)) % 3 > 0
    for left, right in zip(
        count(logits, labels, mask), count(logits[mask], labels[mask], everything(labels[mask])), strict=True
    ):
        torch.testing.assert_close(left, right)


def test_expected_calibration_error_by_hand():
    logits = logits_of((0.9, 0.1), (0.88, 0.12), (0.3, 0.7), (0.55, 0.45))
    labels = torch.tensor([0, 1, 1, 1])
    # bins of width 1/15: 0.88 and 0.9 share [13/15, 14/15), 0.7 is in [10/15, 11/15), 0.55 in [8/15, 9/15)
    gaps = (abs(1 - (0.9 + 0.88)), abs(1 - 0.7), abs(0 - 0.55))
    figures = summarize(count(logits, labels, everything(labels)), torch.tensor([5, 5]), **LIMITS)
    assert figures["ece"] == pytest.approx(100 * sum(gaps) / 4, abs=1e-4)
    assert figures["error"] == pytest.approx(50)


def test_expected_calibration_error_against_a_plain_loop():
    logits, labels = random_case(500)
    probabilities = logits.softmax(1)
    confidence, predicted = (x.numpy() for x in probabilities.max(1))
    correct = predicted == labels.numpy()
    expected = 0.0
    for low in np.arange(NUM_CALIBRATION_BINS) / NUM_CALIBRATION_BINS:
        members = (confidence >= low) & (confidence < low + 1 / NUM_CALIBRATION_BINS)
        if members.any():
            expected += members.mean() * abs(correct[members].mean() - confidence[members].mean())
    figures = summarize(count(logits, labels, everything(labels)), SIZES, **LIMITS)
    assert figures["ece"] == pytest.approx(100 * expected, abs=1e-3)


def test_certain_predictions_fall_into_the_last_bin():
    logits = torch.tensor([[100.0, 0.0], [0.0, 100.0]])
    counts = count(logits, torch.tensor([0, 0]), torch.ones(2, dtype=torch.bool))
    assert counts.calibration[:, -1].tolist() == [2, 1, 2]
    assert counts.calibration[:, :-1].sum() == 0


def test_shot_groups_follow_the_limits():
    predicted = torch.tensor([0, 0, 1, 0, 2, 0, 3, 3, 4, 0, 0, 0])
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5])
    counts = count(10 * F.one_hot(predicted, 6).float(), labels, everything(labels))
    figures = summarize(counts, SIZES, **LIMITS)
    assert figures["class_error"] == pytest.approx([0, 50, 50, 0, 50, 100])
    assert figures["many_error"] == pytest.approx((0 + 50) / 2)  # of 500 and 101 images
    assert figures["medium_error"] == pytest.approx((50 + 0) / 2)  # of 100 and 20
    assert figures["few_error"] == pytest.approx((50 + 100) / 2)  # of 19 and 1
    assert figures["balanced_error"] == pytest.approx(250 / 6)


def test_a_group_without_classes_is_null_and_a_class_without_samples_counts_nowhere():
    labels = torch.tensor([0, 0, 1])
    counts = count(10 * F.one_hot(torch.tensor([0, 1, 1]), 3).float(), labels, everything(labels))
    figures = summarize(counts, torch.tensor([500, 300, 50]), **LIMITS)
    assert figures["few_error"] is None
    assert figures["medium_error"] is None
    assert figures["many_error"] == pytest.approx(25)
    assert figures["class_error"] == [pytest.approx(50), pytest.approx(0), None]
    assert figures["balanced_error"] == pytest.approx(25)


def test_zero_counts_change_nothing():
    logits, labels = random_case()
    counts = count(logits, labels, everything(labels))
    for left, right in zip(merge(zero_counts(6), counts), counts, strict=True):
        assert torch.equal(left, right)


def test_group_error_by_hand():
    correct = torch.tensor([True, False, True, True, False])
    group = torch.tensor([0, 0, 2, 2, 3])
    assert group_error(correct, group)[0] == pytest.approx(50)
    assert group_error(correct, group)[2:] == pytest.approx([0, 100])


@PROPERTY
@given(num_samples=st.integers(2, 60), num_values=st.integers(1, 20), seed=st.integers(0, 1000))
def test_auroc_is_that_of_scikit_learn_ties_included(num_samples, num_values, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, num_values, (num_samples,), generator=generator) / 7
    positive = torch.rand(num_samples, generator=generator) < 0.4
    positive[0], positive[1] = True, False
    assert auroc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def test_auroc_needs_both_kinds():
    scores = torch.tensor([0.1, 0.2])
    assert auroc(scores, torch.tensor([True, True])) is None
    assert auroc(scores, torch.tensor([False, False])) is None
    assert auroc(scores, torch.tensor([False, True])) == 1
    assert auroc(torch.ones(2), torch.tensor([False, True])) == 0.5
