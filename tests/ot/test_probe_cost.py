"""The noise-aware plan with a learned cost."""

import numpy as np
import pytest
import torch
from processes import run_distributed
from test_noise_aware import NUM_CLASSES, TRANSITION, made

from otrw import distributed
from otrw.ot import probe_cost
from otrw.ot.noise_aware import noise_aware_plan, wrong_label_scores
from otrw.ot.probe_cost import with_probe_cost
from otrw.ot.semi_dual import uniform_hash
from otrw.training.metrics import auroc


def both(embeddings, given, trusted, trusted_labels, num_classes=NUM_CLASSES, **settings):
    plan = noise_aware_plan(embeddings, given, trusted, trusted_labels, num_classes)
    return plan, with_probe_cost(plan, embeddings, given, trusted, trusted_labels, torch.arange(len(given)), **settings)


def test_known_transition_matrix_and_class_sizes_come_out():
    sizes = [3000, 2000, 1500, 1000]
    embeddings, given, right, *trusted = made(sizes, TRANSITION, spread=0.2)
    plan = both(embeddings, given, *trusted)[1]
    assert torch.allclose(plan.transition, TRANSITION.double(), atol=0.03)
    assert torch.allclose(plan.class_share, torch.tensor(sizes).double() / sum(sizes), atol=0.01)
    assert float((plan.log_posterior.argmax(1) == right).float().mean()) > 0.99
    assert torch.allclose(plan.log_posterior.exp().sum(1), torch.ones(len(given)))


def stretched(num_trusted=10):
    """Classes that vary most along directions that do not tell them apart, which few trusted samples miss."""
    embeddings, given, right, trusted, trusted_labels = made(
        [2000, 500, 200, 60], TRANSITION, spread=0.5, num_trusted=num_trusted
    )
    generator = torch.Generator().manual_seed(3)
    along = torch.randn(12, embeddings.shape[1], generator=generator)
    noise = [torch.randn(len(x), 12, generator=generator) @ along * 0.4 for x in (embeddings, trusted)]
    return embeddings + noise[0], given, right, trusted + noise[1], trusted_labels


def test_where_few_trusted_samples_do_not_know_the_shape_of_a_class_the_others_tell_it():
    embeddings, given, right, *trusted = stretched()
    wrong = given != right
    plain, learned = both(embeddings, given, *trusted)
    assert auroc(wrong_label_scores(learned, given), wrong) > auroc(wrong_label_scores(plain, given), wrong) + 0.003
    plain, learned = both(embeddings, given, *trusted, num_rounds=8)
    assert auroc(wrong_label_scores(learned, given), wrong) > auroc(wrong_label_scores(plain, given), wrong) + 0.02
    assert (learned.log_posterior.argmax(1) == right).float().mean() > (plain.log_posterior.argmax(1) == right).float().mean()


def test_its_probe_is_the_logistic_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    embeddings, _, right, trusted, trusted_labels = made([60, 40, 30, 20], TRANSITION, spread=0.5)
    x, reference = probe_cost._standardized(embeddings.double(), trusted.double(), lambda total: total)
    folds = torch.arange(len(x)) % probe_cost.NUM_FOLDS
    probes = probe_cost._Probes(x, folds, reference, trusted_labels, NUM_CLASSES, lambda total: total)
    target = torch.nn.functional.one_hot(right, NUM_CLASSES).double()
    for _ in range(20):  # each goes on from the last
        log_p, _ = probes.fit(target)
    for fold in range(probe_cost.NUM_FOLDS):
        out = folds == fold
        seen = probes.trusted_folds != fold
        fitted = torch.cat([x[~out], reference[seen]]).numpy()
        labels = torch.cat([right[~out], trusted_labels[seen]]).numpy()
        mass = np.concatenate([np.ones(int((~out).sum())), np.full(int(seen.sum()), probe_cost.TRUSTED_MASS)])
        for label in range(NUM_CLASSES):
            mass[labels == label] /= NUM_CLASSES * mass[labels == label].sum()
        scale = len(mass)
        model = linear_model.LogisticRegression(C=1 / (probe_cost.PENALTY * scale), max_iter=10_000, tol=1e-10)
        model.fit(fitted, labels, sample_weight=mass * scale)
        assert np.allclose(model.predict_proba(x[out].numpy()), log_p[out].exp().numpy(), atol=5e-3)


def test_the_crowds_probe_is_the_plain_logistic_regression_of_given_labels():
    linear_model = pytest.importorskip("sklearn.linear_model")
    embeddings, given, _, trusted, trusted_labels = made([60, 40, 30, 20], TRANSITION, spread=0.5)
    x, reference = probe_cost._standardized(embeddings.double(), trusted.double(), lambda total: total)
    folds = torch.arange(len(x)) % probe_cost.NUM_FOLDS
    probes = probe_cost._Probes(x, folds, reference, trusted_labels, NUM_CLASSES, lambda total: total)
    for _ in range(20):
        log_c = probes.fit_crowd(given)
    for fold in range(probe_cost.NUM_FOLDS):
        out = folds == fold
        model = linear_model.LogisticRegression(C=1 / (probe_cost.PENALTY * int((~out).sum())), max_iter=10_000, tol=1e-10)
        model.fit(x[~out].numpy(), given[~out].numpy())
        assert np.allclose(model.predict_proba(x[out].numpy()), log_c[out].exp().numpy(), atol=5e-3)


def test_the_crowd_has_as_much_of_a_say_as_its_share():
    embeddings, given, _, trusted, trusted_labels = made([600, 300, 200, 100], TRANSITION, spread=1.0)
    index = torch.arange(len(given))
    plan = noise_aware_plan(embeddings, given, trusted, trusted_labels, NUM_CLASSES)
    x, reference = probe_cost._standardized(embeddings.double(), trusted.double(), lambda total: total)
    folds = (probe_cost.NUM_FOLDS * uniform_hash(index)).long()
    crowd = probe_cost._Probes(x, folds, reference, trusted_labels, NUM_CLASSES, lambda total: total).fit_crowd(given)
    agreement = []
    for share in (0.0, probe_cost.CROWD_SHARE, 1.0, 50.0):
        pooled = with_probe_cost(plan, embeddings, given, trusted, trusted_labels, index, pooled=True, crowd_share=share)
        agreement.append(float((pooled.log_posterior.exp() * crowd.exp()).sum(1).mean()))
    assert agreement == sorted(agreement)
    assert agreement[1] > agreement[0] + 1e-3
    assert float((pooled.log_posterior.argmax(1) == crowd.argmax(1)).float().mean()) > 0.9


def test_the_pool_of_plain_witnesses_is_half_of_each():
    data = made([200, 80, 30, 9], TRANSITION, spread=0.5)
    embeddings, given, _, *trusted = data
    plan, learned = both(embeddings, given, *trusted)
    index = torch.arange(len(given))
    pooled = with_probe_cost(plan, embeddings, given, *trusted, index, pooled=True, crowd_share=0.0)

    def cost(one):  # but for a number of each sample's own
        prior = one.class_share.log()[:, None] + one.transition.log()
        return (one.log_posterior.double() - prior.T[given]).log_softmax(1)

    expected = ((cost(plan) + cost(learned)) / 2).log_softmax(1)
    assert torch.allclose(cost(pooled).exp(), expected.exp(), atol=1e-5)


def test_a_sample_has_no_say_in_its_own_cost():
    embeddings, _, right, trusted, trusted_labels = made([60, 40, 30, 20], TRANSITION, spread=0.5)
    x, reference = probe_cost._standardized(embeddings.double(), trusted.double(), lambda total: total)
    folds = torch.arange(len(x)) % probe_cost.NUM_FOLDS
    target = torch.nn.functional.one_hot(right, NUM_CLASSES).double()
    changed = target.clone()
    changed[7] = target[7].roll(1)

    def fitted(q):
        return probe_cost._Probes(x, folds, reference, trusted_labels, NUM_CLASSES, lambda total: total).fit(q)[0]

    first, second = fitted(target), fitted(changed)
    # probes of all folds share a line search, so that theirs differ by what is left of it
    difference = (first.exp() - second.exp()).abs().amax(1)
    assert float(difference[folds != folds[7]].max()) > 10 * float(difference[folds == folds[7]].max()) > 0


def test_classes_without_trusted_samples_or_without_any_are_survived():
    embeddings, given, _, trusted, trusted_labels = made([200, 80, 30, 6], TRANSITION, spread=0.4)
    known = trusted_labels != 3
    plan = both(embeddings, given, trusted[known], trusted_labels[known], NUM_CLASSES + 1)[1]
    assert bool(plan.log_posterior.exp().isfinite().all())
    assert float(plan.class_share[NUM_CLASSES]) < 1e-3


def test_a_plan_unsure_of_its_labels_makes_a_probe_that_is_sharpened():
    embeddings, _, right, trusted, trusted_labels = made([200, 150, 100, 60], TRANSITION, spread=0.6, num_trusted=20)
    x, reference = probe_cost._standardized(embeddings.double(), trusted.double(), lambda total: total)
    folds = torch.arange(len(x)) % probe_cost.NUM_FOLDS
    sure = torch.nn.functional.one_hot(right, NUM_CLASSES).double()
    sharpness = []
    for q in (sure, 0.3 * sure + 0.7 / NUM_CLASSES):
        probes = probe_cost._Probes(x, folds, reference, trusted_labels, NUM_CLASSES, lambda total: total)
        sharpness.append(probes.fit(q)[1])
    assert sharpness[1] > 1.3 * sharpness[0]


def test_trusted_samples_of_a_class_lie_in_different_folds():
    labels = torch.tensor([2, 0, 2, 2, 1, 0, 2, 2, 2])
    assert probe_cost._dealt_out(labels, 4).tolist() == [0, 0, 1, 2, 0, 1, 3, 4, 0]


def test_blocks_change_nothing(monkeypatch):
    data = made([200, 80, 30, 9], TRANSITION, spread=0.5)
    whole = both(data[0], data[1], *data[3:])[1]
    monkeypatch.setattr(probe_cost, "MAX_BLOCK_ENTRIES", 1000)
    blocks = both(data[0], data[1], *data[3:])[1]
    assert torch.allclose(whole.log_posterior.exp(), blocks.log_posterior.exp(), atol=1e-6)


@pytest.mark.parametrize("settings", [{"num_rounds": 0}, {"transition_prior": 0.0}, {"crowd_share": -1.0}])
def test_parameters_out_of_range_are_refused(settings):
    embeddings, given, _, *trusted = made([20, 10, 5, 5], spread=0.5)
    plan = noise_aware_plan(embeddings, given, *trusted, NUM_CLASSES)
    with pytest.raises(ValueError, match="num_rounds must be >= 1, transition_prior > 0 and crowd_share >= 0"):
        with_probe_cost(plan, embeddings, given, *trusted, torch.arange(len(given)), **settings)


def sharded(pooled):
    """Plans of every process's share, as tables of the whole."""
    embeddings, given, _, *trusted = made([300, 100, 40, 9], TRANSITION, spread=0.5)
    mine = torch.arange(distributed.rank(), len(given), distributed.world_size())
    sums = distributed.all_reduce_sum
    plan = noise_aware_plan(embeddings[mine], given[mine], *trusted, NUM_CLASSES, sum_samples=sums)
    plan = with_probe_cost(plan, embeddings[mine], given[mine], *trusted, mine, pooled=pooled, sum_samples=sums)
    return distributed.gather_by_index(mine, plan.log_posterior.exp(), len(given)), plan.transition


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_finds_the_same_plan(world_size, pooled):
    whole = sharded(pooled)
    for result in run_distributed(sharded, world_size, pooled):
        for got, expected in zip(result, whole, strict=True):
            assert torch.allclose(got.double(), expected.double(), atol=2e-5)
