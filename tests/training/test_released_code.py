"""The weight step of the paper's released code, stated again on its own, equals `OTReweighter.step` in that setting."""

import pytest
import torch
import torch.nn.functional as F

from otrw.ot.weights import unrolled_step
from otrw.reweight import OTReweighter

NUM_CLASSES, EMBEDDING_SIZE, NUM_SAMPLES, BATCH_SIZE = 10, 16, 60, 16
EPSILON, MAX_ITERATIONS, THRESHOLD = 0.1, 200, 0.1
WEIGHT_DECAY, MOMENTUM = 5e-4, 0.9
SETTINGS = {
    "weights": "sgd",
    "scope": "batch",
    "gradient": "unrolled",
    "parametrization": "weights",
    "mixing": 0.5,
    "label_cost": "mean_squared",
    "reference": "prototypes",
    "epsilon": EPSILON,
    "max_iterations": MAX_ITERATIONS,
    "tolerance": THRESHOLD,
    "stopping": "potential",
    "weight_decay": WEIGHT_DECAY,
}


def released_cost(prototypes, features, labels):
    """Half cosine distance, half mean squared difference of one-hot labels; prototype k is class k. (K, n)."""
    cosine = F.cosine_similarity(prototypes[:, None, :], features[None, :, :], dim=-1)
    one_hot = torch.eye(NUM_CLASSES, dtype=features.dtype)
    difference = one_hot[:, None, :] - one_hot[labels][None, :, :]
    return 0.5 * (1 - cosine) + 0.5 * (difference**2).mean(-1)


def released_loss(cost, weights):
    """(<P, C>, number of iterations): log-domain Sinkhorn with 1e-8 inside its logarithms."""
    num_atoms, num_samples = cost.shape
    mu = torch.full((num_atoms,), 1 / num_atoms, dtype=cost.dtype)
    nu = torch.softmax(weights, dim=0)
    u, v = torch.zeros(num_atoms, dtype=cost.dtype), torch.zeros(num_samples, dtype=cost.dtype)

    def exponent():
        return (-cost + u[:, None] + v[None, :]) / EPSILON

    num_iterations = 0
    for _ in range(MAX_ITERATIONS):
        num_iterations += 1
        old_u = u
        u = EPSILON * (torch.log(mu + 1e-8) - torch.logsumexp(exponent(), dim=1)) + u
        v = EPSILON * (torch.log(nu + 1e-8) - torch.logsumexp(exponent().T, dim=1)) + v
        if (u - old_u).abs().sum() < THRESHOLD:
            break
    return (exponent().exp() * cost).sum(), num_iterations


def released_step(cost, weights, learning_rate):
    """(new weights, number of iterations): one step of a fresh SGD with momentum and weight decay."""
    parameter = torch.nn.Parameter(weights.clone())
    optimizer = torch.optim.SGD([parameter], lr=learning_rate, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    loss, num_iterations = released_loss(cost, parameter)
    loss.backward()
    optimizer.step()
    return parameter.detach(), num_iterations


def random_data(seed):
    """Prototypes, clustered features, long-tailed labels and raw class-balanced weights."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(NUM_CLASSES, EMBEDDING_SIZE, generator=generator).relu()
    labels = torch.multinomial(0.7 ** torch.arange(NUM_CLASSES), NUM_SAMPLES, replacement=True, generator=generator)
    features = (prototypes[labels] + torch.randn(NUM_SAMPLES, EMBEDDING_SIZE, generator=generator)).relu()
    weights = torch.linspace(0.05, 4.03, NUM_CLASSES)[labels]
    order = torch.randperm(NUM_SAMPLES, generator=generator)
    return prototypes, features, labels, weights, order


def released_reweighter(prototypes, weights, learning_rate):
    settings = SETTINGS | {"initial_weights": weights, "learning_rate": learning_rate}
    reweighter = OTReweighter(NUM_SAMPLES, NUM_CLASSES, **settings)
    reweighter.set_reference(prototypes, torch.arange(NUM_CLASSES))
    return reweighter


# 1e-8 inside the logarithms changes log mu by 1e-7 and log nu by 1e-8 / nu, 1e-5 where a class-balanced weight is
# smallest: so relative 1e-4 of the gradient. A step of the released size, 1e-6 to 1e-4, is near the rounding of a
# float32 weight; a step a thousand times as large shows the gradient itself.
@pytest.mark.parametrize(("learning_rate", "seed"), [(0.01, 0), (0.01, 1), (10.0, 0), (10.0, 1), (10.0, 2)])
def test_steps_equal_those_of_the_released_code(learning_rate, seed):
    prototypes, features, labels, weights, order = random_data(seed)
    reweighter = released_reweighter(prototypes, weights, learning_rate)
    expected = weights.clone()
    for batch in order.split(BATCH_SIZE):  # the last one is smaller
        before = expected[batch]
        cost = released_cost(prototypes, features[batch], labels[batch])
        after, num_iterations = released_step(cost, before, learning_rate)
        expected[batch] = after
        ours = reweighter.step(batch, features[batch], labels[batch])
        assert reweighter.diagnostics.num_iterations == num_iterations
        moved = (after - before).abs().max()
        assert moved > 0
        torch.testing.assert_close(ours, after, rtol=0, atol=2e-4 * float(moved) + 5e-7)
    torch.testing.assert_close(reweighter.weights, expected, rtol=1e-4, atol=5e-7)


def test_the_gradient_equals_that_of_the_released_code_in_float64():
    prototypes, features, labels, weights, order = random_data(3)
    batch = order[:BATCH_SIZE]
    cost = released_cost(prototypes.double(), features[batch].double(), labels[batch])
    before = weights[batch].double()
    expected, num_iterations = released_step(cost, before, learning_rate=1.0)
    step = unrolled_step(
        cost,
        before,
        epsilon=EPSILON,
        max_iterations=MAX_ITERATIONS,
        tolerance=THRESHOLD,
        stopping="potential",
        learning_rate=1.0,
        weight_decay=WEIGHT_DECAY,
    )
    assert step.result.num_iterations == num_iterations
    gradient = before - step.theta - WEIGHT_DECAY * before
    expected_gradient = before - expected - WEIGHT_DECAY * before
    difference = (gradient - expected_gradient).abs().max()
    assert 0 < difference < 1e-4 * expected_gradient.abs().max()
