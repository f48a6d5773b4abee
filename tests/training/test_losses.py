"""Losses against their formulas and each other, and the weighted mean that is global under data parallelism."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw.training.losses import (
    balanced_softmax,
    cross_entropy,
    global_total,
    ldam,
    logit_adjusted,
    make_loss,
    share_of_mean,
    smoothed_labels,
    weighted_mean,
)

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)
CLASS_SIZES = torch.tensor([400, 81, 16, 1])
NUM_CLASSES = 4
OPTIONS = {"logit_adjustment": 1.7, "ldam_max_margin": 0.4, "ldam_scale": 12.0}
NAMES = ("cross_entropy", "balanced_softmax", "logit_adjusted", "ldam")


def random_case(num_samples=9, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(num_samples, NUM_CLASSES, generator=generator)
    target = torch.randint(0, NUM_CLASSES, (num_samples,), generator=generator)
    return logits, target


def make(name):
    return make_loss(name, CLASS_SIZES, **OPTIONS)


def test_cross_entropy_is_minus_the_log_of_the_softmax():
    logits, target = random_case()
    expected = [-math.log(math.exp(row[t]) / sum(math.exp(x) for x in row)) for row, t in zip(logits, target, strict=True)]
    torch.testing.assert_close(cross_entropy(logits, target), torch.tensor(expected))


def test_losses_of_half_precision_logits_are_computed_in_float32():
    logits, target = random_case()
    for name in NAMES:
        low = make(name)(logits.bfloat16(), target)
        assert low.dtype == torch.float32
        torch.testing.assert_close(low, make(name)(logits.bfloat16().float(), target))


@pytest.mark.parametrize("name", NAMES)
def test_a_class_index_and_its_one_hot_vector_are_the_same_target(name):
    logits, target = random_case()
    one_hot = F.one_hot(target, NUM_CLASSES).float()
    torch.testing.assert_close(make(name)(logits, one_hot), make(name)(logits, target))


@pytest.mark.parametrize("name", ["cross_entropy", "balanced_softmax", "logit_adjusted"])
def test_a_mixed_target_mixes_the_losses(name):
    logits, target = random_case()
    other = (target + 1) % NUM_CLASSES
    vectors = torch.lerp(F.one_hot(target, NUM_CLASSES).float(), F.one_hot(other, NUM_CLASSES).float(), 0.3)
    expected = 0.7 * make(name)(logits, target) + 0.3 * make(name)(logits, other)
    torch.testing.assert_close(make(name)(logits, vectors), expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name):
    logits, target = random_case(3)
    criterion = make(name)
    logits.requires_grad_(True)
    (gradient,) = torch.autograd.grad(criterion(logits, target).sum(), logits)
    step = 1e-2
    for sample in range(3):
        for label in range(NUM_CLASSES):
            move = torch.zeros_like(logits)
            move[sample, label] = step
            with torch.no_grad():
                slope = (criterion(logits + move, target) - criterion(logits - move, target)).sum() / (2 * step)
            assert gradient[sample, label].item() == pytest.approx(slope.item(), abs=2e-2)


def test_balanced_softmax_weighs_each_exponential_by_its_class_size():
    logits, target = random_case()
    scores = CLASS_SIZES * logits.double().exp()
    expected = -(scores.gather(1, target[:, None]).squeeze(1) / scores.sum(1)).log()
    torch.testing.assert_close(balanced_softmax(logits, target, class_sizes=CLASS_SIZES).double(), expected)


def test_balanced_softmax_is_logit_adjustment_with_tau_1():
    logits, target = random_case()
    torch.testing.assert_close(
        balanced_softmax(logits, target, class_sizes=CLASS_SIZES),
        logit_adjusted(logits, target, class_sizes=CLASS_SIZES, tau=1.0),
    )


def test_logit_adjustment_adds_tau_times_the_log_prior():
    logits, target = random_case()
    prior = CLASS_SIZES / CLASS_SIZES.sum()
    expected = F.cross_entropy(logits + 1.7 * prior.log(), target, reduction="none")
    torch.testing.assert_close(logit_adjusted(logits, target, class_sizes=CLASS_SIZES, tau=1.7), expected)


@PROPERTY
@given(tau=st.floats(0, 3), size=st.integers(1, 1000))
def test_logit_adjustment_does_nothing_without_imbalance(tau, size):
    logits, target = random_case()
    sizes = torch.full((NUM_CLASSES,), size)
    torch.testing.assert_close(
        logit_adjusted(logits, target, class_sizes=sizes, tau=tau), cross_entropy(logits, target), rtol=1e-4, atol=1e-5
    )


def test_logit_adjustment_with_tau_0_is_cross_entropy():
    logits, target = random_case()
    torch.testing.assert_close(logit_adjusted(logits, target, class_sizes=CLASS_SIZES, tau=0.0), cross_entropy(logits, target))


@pytest.mark.parametrize("name", ["balanced_softmax", "logit_adjusted", "ldam"])
def test_a_class_without_samples_leaves_the_loss_finite(name):
    logits, target = random_case()
    criterion = make_loss(name, torch.tensor([10, 0, 3, 5]), **OPTIONS)
    assert criterion(logits, target).isfinite().all()


def test_ldam_margins_fall_as_the_fourth_root_of_the_class_size():
    max_margin, scale = 0.5, 2.0
    margins = max_margin * torch.tensor([1 / math.sqrt(20), 1 / 3, 1 / 2, 1.0])  # of 400, 81, 16 and 1 samples
    logits = torch.randn(NUM_CLASSES, NUM_CLASSES, generator=torch.Generator().manual_seed(0))
    target = torch.arange(NUM_CLASSES)
    expected = F.cross_entropy(scale * (logits - torch.diag(margins)), target, reduction="none")
    result = ldam(logits, target, class_sizes=CLASS_SIZES, max_margin=max_margin, scale=scale)
    torch.testing.assert_close(result, expected)
    assert (result > cross_entropy(scale * logits, target)).all()


def test_make_loss_binds_its_constants_and_refuses_other_names():
    logits, target = random_case()
    expected = {
        "cross_entropy": cross_entropy(logits, target),
        "balanced_softmax": balanced_softmax(logits, target, class_sizes=CLASS_SIZES),
        "logit_adjusted": logit_adjusted(logits, target, class_sizes=CLASS_SIZES, tau=1.7),
        "ldam": ldam(logits, target, class_sizes=CLASS_SIZES, max_margin=0.4, scale=12.0),
    }
    for name, losses in expected.items():
        torch.testing.assert_close(make(name)(logits, target), losses)
    with pytest.raises(ValueError, match="unknown loss 'focal'"):
        make("focal")


def test_smoothed_labels_are_distributions_that_take_most_from_the_largest_class():
    rows = smoothed_labels(CLASS_SIZES, 0.4, 0.1)
    torch.testing.assert_close(rows.sum(1), torch.ones(NUM_CLASSES))
    expected = [0.1 + 0.3 * math.sin(math.pi / 2 * (size - 1) / 399) for size in CLASS_SIZES.tolist()]
    torch.testing.assert_close(1 - rows.diagonal(), torch.tensor(expected))
    assert expected[0] == pytest.approx(0.4)
    assert expected[-1] == pytest.approx(0.1)
    for label in range(NUM_CLASSES):  # the others share equally
        others = torch.cat([rows[label, :label], rows[label, label + 1 :]])
        torch.testing.assert_close(others, others[:1].expand(NUM_CLASSES - 1))


@pytest.mark.parametrize("sizes", [torch.full((NUM_CLASSES,), 7), CLASS_SIZES])
def test_equal_shares_are_plain_label_smoothing(sizes):
    rows = smoothed_labels(sizes, 0.3, 0.3)
    uniform = 0.3 * NUM_CLASSES / (NUM_CLASSES - 1)  # torch's share is spread over all classes, the own one as well
    logits, target = random_case()
    expected = F.cross_entropy(logits, target, reduction="none", label_smoothing=uniform)
    torch.testing.assert_close(cross_entropy(logits, rows[target]), expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_smoothed_loss_is_the_loss_of_the_smoothed_target(name):
    logits, target = random_case()
    rows = smoothed_labels(CLASS_SIZES, 0.4, 0.1)
    smooth = make_loss(name, CLASS_SIZES, **OPTIONS, label_smoothing=0.4, label_smoothing_tail=0.1)
    torch.testing.assert_close(smooth(logits, target), make(name)(logits, rows[target]))
    mixed = torch.lerp(F.one_hot(target, NUM_CLASSES).float(), F.one_hot((target + 1) % NUM_CLASSES, NUM_CLASSES).float(), 0.3)
    torch.testing.assert_close(smooth(logits, mixed), make(name)(logits, mixed @ rows))
    in_tail_alone = make_loss(name, CLASS_SIZES, **OPTIONS, label_smoothing_tail=0.2)
    torch.testing.assert_close(in_tail_alone(logits, target * 0), make(name)(logits, target * 0))
    everywhere = make_loss(name, CLASS_SIZES, **OPTIONS, label_smoothing=0.2)
    torch.testing.assert_close(everywhere(logits, target), make(name)(logits, smoothed_labels(CLASS_SIZES, 0.2, 0.2)[target]))


@pytest.mark.parametrize("normalizer", ["weights", "samples", "none"])
def test_the_parts_of_a_batch_add_up_to_the_whole(normalizer):
    losses, weights, mask = weighted_case()
    total = global_total(weights, mask, normalizer=normalizer)
    parts = [share_of_mean(*part, total) for part in zip(losses.split(5), weights.split(5), mask.split(5), strict=True)]
    torch.testing.assert_close(sum(parts), weighted_mean(losses, weights, mask, normalizer=normalizer))


def weighted_case(num_samples=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    losses, weights = torch.rand(2, num_samples, generator=generator)
    mask = torch.rand(num_samples, generator=generator) < 0.7
    return losses, weights, mask


def test_weighted_mean_normalizers_by_hand():
    losses, weights = torch.tensor([1.0, 2.0, 4.0, 100.0]), torch.tensor([1.0, 3.0, 0.5, 7.0])
    mask = torch.tensor([True, True, True, False])
    assert weighted_mean(losses, weights, mask).item() == pytest.approx(9 / 4.5)
    assert weighted_mean(losses, weights, mask, normalizer="samples").item() == pytest.approx(9 / 3)
    assert weighted_mean(losses, weights, mask, normalizer="none").item() == pytest.approx(9)
    with pytest.raises(ValueError, match="unknown normalizer 'batch'"):
        weighted_mean(losses, weights, mask, normalizer="batch")


def test_weights_of_one_give_the_plain_mean():
    losses, _, mask = weighted_case()
    for normalizer in ("weights", "samples"):
        result = weighted_mean(losses, torch.ones_like(losses), mask, normalizer=normalizer)
        torch.testing.assert_close(result, losses[mask].mean())


def test_the_sum_of_weights_does_not_matter_to_the_normalised_mean():
    losses, weights, mask = weighted_case()
    torch.testing.assert_close(weighted_mean(losses, 37 * weights, mask), weighted_mean(losses, weights, mask))


@pytest.mark.parametrize("normalizer", ["weights", "samples", "none"])
def test_padding_counts_nowhere_even_where_its_loss_is_not_a_number(normalizer):
    losses, weights, mask = weighted_case()
    losses[~mask] = torch.nan
    result = weighted_mean(losses, weights, mask, normalizer=normalizer)
    everything = torch.ones(int(mask.sum()), dtype=torch.bool)
    torch.testing.assert_close(result, weighted_mean(losses[mask], weights[mask], everything, normalizer=normalizer))


@pytest.mark.parametrize("normalizer", ["weights", "samples", "none"])
@pytest.mark.parametrize("sizes", [(12,), (6, 6), (5, 4, 3), (12, 0)])
def test_ranks_average_to_the_loss_and_gradient_of_the_whole(normalizer, sizes):
    losses, weights, mask = weighted_case()

    def gradient_of(value, leaf):
        return torch.autograd.grad(value, leaf)[0]

    leaf = losses.clone().requires_grad_(True)
    whole = weighted_mean(leaf, weights, mask, normalizer=normalizer)
    expected = gradient_of(whole, leaf)
    totals = {"weights": (weights * mask).sum(), "samples": mask.sum().float(), "none": None}
    values, gradients = [], []
    for part in torch.arange(12).split(list(sizes)):
        local = losses[part].clone().requires_grad_(True)
        value = weighted_mean(
            local,
            weights[part],
            mask[part],
            normalizer=normalizer,
            all_reduce_sum=lambda _: totals[normalizer],
            num_ranks=len(sizes),
        )
        values.append(value.detach())
        gradients.append(gradient_of(value, local) / len(sizes))
    torch.testing.assert_close(torch.stack(values).mean(), whole.detach())
    torch.testing.assert_close(torch.cat(gradients), expected)


def test_no_weight_at_all_gives_zero_and_a_zero_gradient():
    losses = torch.rand(5, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    for weights, mask in ((torch.zeros(5), torch.ones(5)), (torch.ones(5), torch.zeros(5))):
        value = weighted_mean(losses, weights, mask.bool())
        assert value.item() == 0
        assert torch.autograd.grad(value, losses)[0].tolist() == [0] * 5
