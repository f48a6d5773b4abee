"""Meta-Weight-Net: the closed form of the look-ahead's gradient against differentiating twice, and what it learns."""

import torch
import torch.nn.functional as F

from otrw.training.meta_weight_net import MetaWeightNet, Samples, _losses_and_errors, gains_of_weights

NUM_CLASSES, SIZE = 4, 6


def samples(num, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (num,), generator=generator)
    return Samples(torch.randn(num, SIZE, generator=generator), F.one_hot(labels, NUM_CLASSES).float())


def test_gains_are_minus_the_gradient_through_the_look_ahead_step():
    torch.manual_seed(0)
    head, train, trusted, rate = torch.nn.Linear(SIZE, NUM_CLASSES), samples(9, 1), samples(5, 2), 0.7
    weights = torch.rand(9, requires_grad=True)
    losses = F.cross_entropy(F.linear(train.embeddings, head.weight, head.bias), train.targets, reduction="none")
    gradients = torch.autograd.grad((weights * losses).mean(), (head.weight, head.bias), create_graph=True)
    matrix, bias = (p - rate * g for p, g in zip((head.weight, head.bias), gradients, strict=True))
    after = F.cross_entropy(F.linear(trusted.embeddings, matrix, bias), trusted.targets)
    (expected,) = torch.autograd.grad(after, weights)
    _, errors = _losses_and_errors(head.weight, head.bias, train)
    found = gains_of_weights(head, train, trusted, weights.detach(), errors, rate)
    torch.testing.assert_close(found, -expected)


def test_samples_of_large_loss_lose_weight_where_their_labels_are_wrong():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(NUM_CLASSES, (200,), generator=generator)
    points = torch.eye(NUM_CLASSES, SIZE)[truth] + 0.1 * torch.randn(200, SIZE, generator=generator)
    wrong = torch.rand(200, generator=generator) < 0.3
    given = torch.where(wrong, (truth + 1) % NUM_CLASSES, truth)
    train = Samples(points, F.one_hot(given, NUM_CLASSES).float())
    trusted = Samples(points[:40], F.one_hot(truth[:40], NUM_CLASSES).float())
    head = torch.nn.Linear(SIZE, NUM_CLASSES)
    with torch.no_grad():
        head.weight.copy_(3 * torch.eye(NUM_CLASSES, SIZE))  # knows the classes: wrong labels have large losses
        head.bias.zero_()
    net = MetaWeightNet(0)
    before = net(_losses_and_errors(head.weight, head.bias, train)[0]).detach()
    for _ in range(300):
        weights = net.learn(head, train, trusted, 0.1)
    assert weights[~wrong].mean() - weights[wrong].mean() > before[~wrong].mean() - before[wrong].mean() + 0.1


def test_its_state_goes_on_where_it_was():
    torch.manual_seed(0)
    head, train, trusted = torch.nn.Linear(SIZE, NUM_CLASSES), samples(9, 1), samples(5, 2)
    whole, first = MetaWeightNet(3), MetaWeightNet(3)
    for _ in range(4):
        expected = whole.learn(head, train, trusted, 0.5)
    for _ in range(2):
        first.learn(head, train, trusted, 0.5)
    second = MetaWeightNet(4)
    second.load_full_state({name: value.clone() for name, value in first.full_state().items()})
    for _ in range(2):
        found = second.learn(head, train, trusted, 0.5)
    assert torch.equal(found, expected)
