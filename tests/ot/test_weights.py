"""Weights of classes and samples: the effective number of samples, the unrolled gradient, the weight net."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otrw.ot.weights import WeightNet, effective_number_weights, envelope_gradient, product_weights, unrolled_step

PROPERTY = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@PROPERTY
@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=8), beta=st.sampled_from([0.0, 0.5, 0.9, 0.9999]))
def test_class_weights_are_one_over_a_geometric_series_scaled_to_the_number_of_classes(sizes, beta):
    effective_numbers = np.array([(beta ** np.arange(size)).sum() for size in sizes])
    expected = 1 / effective_numbers
    expected *= len(sizes) / expected.sum()
    np.testing.assert_allclose(effective_number_weights(torch.tensor(sizes), beta).numpy(), expected, rtol=1e-5)


def test_beta_goes_from_uniform_weights_to_inverse_frequency():
    sizes = torch.tensor([5000, 500, 50, 5])
    assert effective_number_weights(sizes, beta=0.0).tolist() == [1.0] * 4
    inverse = 1 / sizes.double()
    torch.testing.assert_close(
        effective_number_weights(sizes, beta=1 - 1e-9).double(), inverse * 4 / inverse.sum(), rtol=1e-4, atol=0
    )


def test_a_class_without_samples_has_weight_zero():
    weights = effective_number_weights(torch.tensor([10, 0, 3]))
    assert weights[1] == 0
    assert weights.isfinite().all()
    assert float(weights.sum()) == pytest.approx(3)


def test_envelope_gradient_is_the_softmax_chain_rule_and_ignores_samples_without_mass():
    theta = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    g = torch.linspace(-1, 2, 6, dtype=torch.float64)
    (expected,) = torch.autograd.grad((theta.softmax(0) * g).sum(), theta)
    b = theta.softmax(0).detach()
    torch.testing.assert_close(envelope_gradient(b, g, (b * g).sum()), expected)
    torch.testing.assert_close(envelope_gradient(b, g + 7, (b * (g + 7)).sum()), expected)
    b = torch.tensor([0.5, 0.0, 0.5])
    g = torch.tensor([1.0, -torch.inf, 3.0])
    assert envelope_gradient(b, g, torch.tensor(2.0)).tolist() == [-0.5, 0.0, 0.5]


def scaling_cost(cost, theta, epsilon, num_iterations):
    """<P, C> after a fixed number of Sinkhorn iterations in scaling form, in numpy: no logarithm, no autograd."""
    num_atoms = len(cost)
    kernel = np.exp(-cost / epsilon)
    b = np.exp(theta) / np.exp(theta).sum()
    right = np.ones(len(theta))
    for _ in range(num_iterations):
        left = (1 / num_atoms) / (kernel @ right)
        right = b / (kernel.T @ left)
    return (left[:, None] * kernel * right[None, :] * cost).sum()


@pytest.mark.parametrize("num_iterations", [1, 2, 5, 60])
def test_the_unrolled_step_follows_the_numerical_gradient_of_the_iterated_cost(num_iterations):
    generator = torch.Generator().manual_seed(num_iterations)
    cost = torch.rand(3, 5, generator=generator, dtype=torch.float64)
    theta = torch.randn(5, generator=generator, dtype=torch.float64)
    epsilon, learning_rate, weight_decay, small = 0.2, 0.7, 0.03, 1e-5
    step = unrolled_step(
        cost,
        theta,
        epsilon=epsilon,
        max_iterations=num_iterations,
        tolerance=1e-300,
        stopping="marginal",
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    gradient = [
        (
            scaling_cost(cost.numpy(), theta.numpy() + small * direction, epsilon, num_iterations)
            - scaling_cost(cost.numpy(), theta.numpy() - small * direction, epsilon, num_iterations)
        )
        / (2 * small)
        for direction in np.eye(5)
    ]
    assert np.abs(gradient).max() > 1e-3
    expected = theta.numpy() - learning_rate * (np.array(gradient) + weight_decay * theta.numpy())
    np.testing.assert_allclose(step.theta.numpy(), expected, rtol=0, atol=1e-9)
    assert step.result.num_iterations == num_iterations
    assert not step.theta.requires_grad
    assert not step.result.f.requires_grad


def test_the_unrolled_step_works_under_no_grad_and_leaves_theta_as_it_was():
    cost = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))
    theta = torch.zeros(5)
    arguments = {
        "epsilon": 0.1,
        "max_iterations": 10,
        "tolerance": 1e-6,
        "stopping": "marginal",
        "learning_rate": 1.0,
        "weight_decay": 0.0,
    }
    outside = unrolled_step(cost, theta, **arguments)
    with torch.no_grad():
        inside = unrolled_step(cost, theta, **arguments)
    assert torch.equal(inside.theta, outside.theta)
    assert not torch.equal(inside.theta, theta)
    assert torch.equal(theta, torch.zeros(5))


def test_weight_net_is_its_formula_and_scores_each_sample_alone():
    torch.manual_seed(0)
    net = WeightNet(4, hidden_size=6)
    embeddings = torch.randn(7, 4)
    matrix, offset, vector = net.attention.weight, net.attention.bias, net.score.weight[0]
    expected = torch.stack([vector @ torch.tanh(matrix @ x + offset) for x in embeddings])
    scores = net(embeddings)
    torch.testing.assert_close(scores, expected)
    order = torch.tensor([3, 1, 6, 0, 2, 5, 4])
    torch.testing.assert_close(net(embeddings[order]), scores[order])
    torch.testing.assert_close(net(embeddings[2:3]), scores[2:3])


def test_products_of_weights_keep_the_mass_of_every_class_and_are_products_inside_it():
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    weights, confidence = torch.tensor([0.2, 0.8, 0.5, 2.0, 1.0, 3.0]), torch.tensor([1.0, 0.5, 0.0, 0.25, 0.5, 0.1])
    got = product_weights(weights, confidence, labels, 4, weight_power=1.0, confidence_power=1.0)
    assert got.tolist() == pytest.approx([0.5, 1.0, 0.0, 1.5, 1.5, 3.0])
    same = product_weights(weights, confidence, labels, 4, weight_power=1.0, confidence_power=0.0)
    assert torch.allclose(same, weights)
    flat = product_weights(weights, confidence, labels, 4, weight_power=0.0, confidence_power=0.0)
    assert flat.tolist() == pytest.approx([0.5, 0.5, 0.5, 1.5, 1.5, 3.0])


def test_a_class_whose_products_vanish_keeps_its_weights():
    labels, weights = torch.tensor([0, 0, 1]), torch.tensor([0.5, 1.5, 1.0])
    got = product_weights(weights, torch.tensor([0.0, 0.0, 1.0]), labels, 2, weight_power=1.0, confidence_power=1.0)
    assert torch.equal(got, weights)
