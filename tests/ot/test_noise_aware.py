"""The noise-aware plan: what must come out of data whose transition matrix and class sizes are known."""

import math

import pytest
import torch
from processes import run_distributed

from otrw import distributed
from otrw.ot.metric import SHARPNESSES, Metric, fit_metric
from otrw.ot.noise_aware import noise_aware_plan, noise_aware_weights, symmetric_transition, wrong_label_scores
from otrw.ot.sinkhorn import sinkhorn, transport_plan

NUM_CLASSES, SIZE = 4, 8


def made(sizes, transition=None, *, spread=0.25, num_trusted=10, seed=0, dtype=torch.float32):
    """Embeddings around one axis a class, given labels drawn from `transition`, right labels, and a trusted set."""
    generator = torch.Generator().manual_seed(seed)
    num_classes = len(sizes)
    centres = 1.5 * torch.eye(num_classes, SIZE)
    right = torch.arange(num_classes).repeat_interleave(torch.tensor(sizes))
    trusted_labels = torch.arange(num_classes).repeat_interleave(num_trusted)

    def around(labels):
        return (centres[labels] + spread * torch.randn(len(labels), SIZE, generator=generator)).to(dtype)

    given = right
    if transition is not None:
        given = torch.multinomial(transition[right], 1, generator=generator).squeeze(1)
    return around(right), given, right, around(trusted_labels), trusted_labels


def plan_of(embeddings, given, trusted, trusted_labels, num_classes=NUM_CLASSES, **settings):
    return noise_aware_plan(embeddings, given, trusted, trusted_labels, num_classes, **settings)


def test_right_labels_of_classes_far_apart_are_kept_and_only_balanced():
    embeddings, given, _, *trusted = made([200, 80, 30, 6], spread=0.05)
    plan = plan_of(embeddings, given, *trusted)
    assert torch.allclose(plan.transition, torch.eye(NUM_CLASSES, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(plan.class_share, given.bincount().double() / len(given), atol=1e-4)
    assert float(wrong_label_scores(plan, given).max()) < 1e-3
    expected = len(given) / NUM_CLASSES / given.bincount().float()
    assert torch.allclose(noise_aware_weights(plan, given), expected[given], rtol=1e-3)


TRANSITION = torch.tensor([[0.6, 0.2, 0.1, 0.1], [0.0, 0.7, 0.3, 0.0], [0.1, 0.1, 0.8, 0.0], [0.25, 0.25, 0.0, 0.5]])


def test_a_known_transition_matrix_and_class_sizes_come_out():
    sizes = [3000, 2000, 1500, 1000]
    embeddings, given, right, *trusted = made(sizes, TRANSITION, spread=0.2)
    plan = plan_of(embeddings, given, *trusted, num_rounds=8, transition_prior=1e-3)
    assert torch.allclose(plan.transition, TRANSITION.double(), atol=0.03)
    assert torch.allclose(plan.class_share, torch.tensor(sizes).double() / sum(sizes), atol=0.01)
    wrong = given != right
    scores = wrong_label_scores(plan, given)
    assert float(scores[wrong].mean()) > 0.95
    assert float(scores[~wrong].mean()) < 0.05


def test_shares_of_a_long_tail_come_out_where_classes_overlap():
    sizes = torch.tensor([2000, 500, 100, 20])
    noise = symmetric_transition(NUM_CLASSES, 0.4, torch.zeros(()))
    embeddings, given, right, *trusted = made(sizes.tolist(), noise, spread=0.6)
    plan = plan_of(embeddings, given, *trusted)
    assert float((plan.class_share - sizes / sizes.sum()).abs().sum()) < 0.05
    assert torch.allclose(plan.transition.diagonal(), torch.full((NUM_CLASSES,), 0.6, dtype=torch.float64), atol=0.06)
    assert float((plan.log_posterior.argmax(1) == right).float().mean()) > 0.95


def test_rows_sum_to_one_and_weights_to_equal_classes():
    embeddings, given, _, *trusted = made([300, 100, 40, 9], TRANSITION, spread=0.5)
    plan = plan_of(embeddings, given, *trusted)
    assert torch.allclose(plan.log_posterior.exp().sum(1), torch.ones(len(given)))
    assert torch.allclose(plan.transition.sum(1), torch.ones(NUM_CLASSES, dtype=torch.float64))
    assert float(plan.class_share.sum()) == pytest.approx(1)
    weights = noise_aware_weights(plan, given)
    mass = torch.zeros(NUM_CLASSES).index_add_(0, given, weights)
    assert torch.allclose(mass, torch.full((NUM_CLASSES,), len(given) / NUM_CLASSES), rtol=1e-5)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    scores = wrong_label_scores(plan, given)
    assert bool(((scores >= 0) & (scores <= 1)).all())
    for label in range(NUM_CLASSES):  # inside a class a weight is in proportion to the probability that the label is right
        members = given == label
        right = 1 - scores[members]
        assert torch.allclose(weights[members], right * (weights[members].sum() / right.sum()), atol=1e-4)


def test_smoothing_goes_from_the_plan_to_class_balanced_weights_and_first_where_few_labels_are_right():
    embeddings, given, right, *trusted = made([800, 400, 200, 6], TRANSITION, spread=0.15)
    plan = plan_of(embeddings, given, *trusted)
    sizes = given.bincount().float()
    balanced = (len(given) / NUM_CLASSES / sizes)[given]
    assert torch.equal(noise_aware_weights(plan, given, smoothing=0.0), noise_aware_weights(plan, given))
    assert torch.allclose(noise_aware_weights(plan, given, smoothing=1e9), balanced, rtol=1e-3)
    weights = noise_aware_weights(plan, given, smoothing=5.0)
    own = plan.log_posterior.exp().gather(1, given[:, None]).squeeze(1)
    right_mass = torch.zeros(NUM_CLASSES).index_add_(0, given, own)
    expected = len(given) / NUM_CLASSES * (own + 5 / sizes[given]) / (right_mass[given] + 5)
    assert torch.allclose(weights, expected, rtol=1e-4)
    wrong_share = torch.zeros(NUM_CLASSES).index_add_(0, given, weights * (given != right)) * NUM_CLASSES / len(given)
    assert float(wrong_share[3]) > 0.3 > 0.05 > float(wrong_share[0])


def test_at_the_end_it_is_the_entropic_transport_onto_its_own_class_marginal():
    """The fixed point pi_k = mean_n q_n(k): Sinkhorn at epsilon 1 with that marginal finds the same plan."""
    embeddings, given, _, *trusted = made([60, 40, 30, 20], TRANSITION, spread=0.5, dtype=torch.float64)
    plan = plan_of(embeddings, given, *trusted, num_rounds=200)
    assert plan.change < 1e-12
    x = torch.nn.functional.normalize(embeddings, dim=1)
    cost = plan.metric.squared_distance(x, plan.prototypes).T / 2 - plan.transition.log()[:, given]
    log_b = torch.full((len(given),), 1 / len(given), dtype=torch.float64).log()
    result = sinkhorn(cost, plan.class_share.log(), log_b, epsilon=1.0, tolerance=1e-12, max_iterations=20_000)
    assert torch.allclose(len(given) * transport_plan(cost, result, 1.0).T, plan.log_posterior.exp(), atol=1e-8)


def test_the_order_of_samples_and_the_names_of_classes_do_not_matter():
    embeddings, given, _, trusted, trusted_labels = made([80, 40, 20, 8], TRANSITION, spread=0.5, dtype=torch.float64)
    plan = plan_of(embeddings, given, trusted, trusted_labels)
    order = torch.randperm(len(given), generator=torch.Generator().manual_seed(1))
    other = plan_of(embeddings[order], given[order], trusted, trusted_labels)
    assert torch.allclose(other.log_posterior, plan.log_posterior[order], atol=1e-9)
    rename = torch.tensor([2, 0, 3, 1])
    renamed = plan_of(embeddings, rename[given], trusted, rename[trusted_labels])
    assert torch.allclose(renamed.log_posterior[:, rename], plan.log_posterior, atol=1e-9)
    assert torch.allclose(renamed.transition[rename][:, rename], plan.transition, atol=1e-9)


def test_lengths_and_axes_of_the_embeddings_do_not_matter():
    embeddings, given, _, trusted, trusted_labels = made([80, 40, 20, 8], TRANSITION, spread=0.5, dtype=torch.float64)
    plan = plan_of(embeddings, given, trusted, trusted_labels)
    generator = torch.Generator().manual_seed(2)
    rotation = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))[0]
    lengths = 0.1 + 10 * torch.rand(len(given), 1, generator=generator, dtype=torch.float64)
    other = plan_of(lengths * embeddings @ rotation, given, 7 * trusted @ rotation, trusted_labels)
    assert torch.allclose(other.log_posterior, plan.log_posterior, atol=1e-8)


def test_a_class_whose_given_samples_are_all_wrong_keeps_finite_weights_and_is_found_out():
    embeddings, given, _, *trusted = made([300, 200, 100, 0], spread=0.2)
    given = given.clone()
    given[:12] = 3
    plan = plan_of(embeddings, given, *trusted)
    assert bool(plan.log_posterior.isfinite().all())
    assert float(wrong_label_scores(plan, given)[:12].min()) > 0.9
    assert float(plan.class_share[3]) < 0.01
    assert float(noise_aware_weights(plan, given)[:12].sum()) == pytest.approx(len(given) / NUM_CLASSES, rel=1e-4)


def test_the_cap_keeps_many_wrong_labels_from_moving_a_prototype():
    """Half of class 0 is called 1: uncapped, prototype 1 goes where those are; capped, it stays with the trusted ones."""
    transition = torch.eye(NUM_CLASSES)
    transition[0] = torch.tensor([0.5, 0.5, 0.0, 0.0])
    embeddings, given, _, trusted, trusted_labels = made([2000, 20, 50, 50], transition, spread=0.6, num_trusted=5)
    truth = torch.nn.functional.normalize(1.5 * torch.eye(NUM_CLASSES, SIZE).double(), dim=1)[1]
    distances = {}
    for cap in (1.0, math.inf):
        prototypes = plan_of(embeddings, given, trusted, trusted_labels, prototype_cap=cap, num_rounds=10).prototypes
        distances[cap] = float((torch.nn.functional.normalize(prototypes[1], dim=0) - truth).norm())
    assert distances[1.0] < distances[math.inf]


@pytest.mark.parametrize("num_trusted", [1, 2, 3])
def test_very_few_trusted_samples_are_enough_where_classes_are_apart(num_trusted):
    embeddings, given, right, *trusted = made([400, 200, 100, 40], TRANSITION, spread=0.15, num_trusted=num_trusted)
    plan = plan_of(embeddings, given, *trusted)
    assert plan.metric.shrinkage == 1.0 or num_trusted == 3
    agree = plan.log_posterior.argmax(1) == right
    assert float(agree.float().mean()) > 0.98


def test_a_class_without_trusted_samples_is_taken_from_the_samples_given_its_label():
    embeddings, given, right, trusted, trusted_labels = made([300, 200, 100, 60], TRANSITION, spread=0.15)
    kept = trusted_labels != 2
    plan = plan_of(embeddings, given, trusted[kept], trusted_labels[kept])
    assert float((plan.log_posterior.argmax(1) == right)[right == 2].float().mean()) > 0.95


def test_a_class_nobody_knows_gets_no_mass():
    embeddings, given, _, *trusted = made([50, 30, 20, 10], TRANSITION)
    plan = noise_aware_plan(embeddings, given, *trusted, NUM_CLASSES + 1)
    assert float(plan.log_posterior[:, NUM_CLASSES].exp().max()) < 1e-6
    weights = noise_aware_weights(plan, given)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_embeddings_that_are_all_alike_give_finite_weights_by_class(value):
    given = torch.tensor([0, 0, 0, 1, 2, 3])
    alike = torch.full((6, SIZE), value)
    plan = plan_of(alike, given, torch.full((4, SIZE), value), torch.arange(4))
    weights = noise_aware_weights(plan, given)
    assert torch.allclose(weights, 6 / 4 / given.bincount().float()[given])


def test_one_sample():
    plan = plan_of(torch.eye(SIZE)[:1], torch.tensor([0]), torch.eye(SIZE)[:4], torch.arange(4))
    assert noise_aware_weights(plan, torch.tensor([0])).tolist() == [1.0]


def test_samples_far_from_everything_do_not_underflow():
    embeddings, given, _, *trusted = made([50, 30, 20, 10], spread=0.02)
    far = -embeddings
    plan = plan_of(far, given, *trusted)
    assert bool(noise_aware_weights(plan, given).isfinite().all())
    assert float(noise_aware_weights(plan, given).mean()) == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize(
    "settings", [{"num_rounds": 0}, {"transition_prior": 0.0}, {"prototype_cap": -1.0}, {"transition_prior": math.nan}]
)
def test_parameters_out_of_range_are_refused(settings):
    embeddings, given, _, *trusted = made([5, 5, 5, 5])
    with pytest.raises(ValueError, match="must be"):
        plan_of(embeddings, given, *trusted, **settings)
    with pytest.raises(ValueError, match="at least one"):
        plan_of(embeddings, given, embeddings[:0], given[:0])


def test_sharpness_is_that_of_the_data():
    """Isotropic Gaussians of known spread, many trusted samples: the metric is the true one, up to the grid."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(4).repeat_interleave(200)
    centres = torch.randn(4, SIZE, generator=generator, dtype=torch.float64)
    trusted = centres[labels] + 0.7 * torch.randn(800, SIZE, generator=generator, dtype=torch.float64)
    metric = fit_metric(trusted, labels, trusted[:0], labels[:0], 4)
    precision = metric.sharpness * metric.whitening @ metric.whitening
    assert torch.allclose(precision.diagonal() * 0.49, torch.ones(SIZE, dtype=torch.float64), atol=0.35)
    assert metric.sharpness in SHARPNESSES


def test_the_symmetric_matrix():
    matrix = symmetric_transition(3, 0.4, torch.zeros((), dtype=torch.float64))
    assert torch.allclose(matrix.sum(1), torch.ones(3, dtype=torch.float64))
    assert matrix[0].tolist() == pytest.approx([0.6, 0.2, 0.2])


def sharded():
    """Plans, weights and parameters with five and with one trusted sample a class, for two ways to deal out the samples."""
    rank, size, results = distributed.rank(), distributed.world_size(), []
    for num_trusted in (5, 1):
        embeddings, given, _, *trusted = made([40, 20, 10, 3], TRANSITION, spread=0.5, num_trusted=num_trusted)
        everyone = torch.arange(len(given))
        for mine in (everyone[rank::size], everyone if rank == 0 else everyone[:0]):
            plan = plan_of(embeddings[mine], given[mine], *trusted, sum_samples=distributed.all_reduce_sum)
            weights = noise_aware_weights(plan, given[mine], logsumexp_samples=distributed.logsumexp_samples)
            both = torch.cat([plan.log_posterior, weights[:, None]], 1)
            results += [distributed.gather_by_index(mine, both, len(given)), plan.transition, plan.class_share, plan.prototypes]
    return results


@pytest.mark.parametrize("world_size", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_shares_of_the_samples_give_the_plan_of_the_whole(world_size):
    whole = sharded()
    for result in run_distributed(sharded, world_size):
        for got, expected in zip(result, whole, strict=True):
            assert torch.allclose(got, expected, atol=2e-5)


def test_distances_in_float32_hold_where_all_vectors_have_much_in_common():
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(1 + 1e-3 * torch.randn(200, 16, generator=generator, dtype=torch.float64), dim=1)
    metric = Metric(850 * torch.eye(16, dtype=torch.float64), 1.0, 0.1)
    exact = metric.squared_distance(x, x[:5])
    torch.testing.assert_close(exact, 850**2 * torch.cdist(x, x[:5]).square(), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(metric.squared_distance(x.float(), x[:5]).double(), exact, rtol=1e-3, atol=1e-2)
