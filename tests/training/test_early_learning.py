"""Early-learning regularisation against its formula, and the forward correction against its fixed point."""

import torch
import torch.nn.functional as F

from otrw.data.loader import Batch
from otrw.training.early_learning import EarlyLearning
from otrw.training.losses import cross_entropy, forward_corrected


def batch_of(index, mask):
    index = torch.tensor(index)
    return Batch(index, torch.zeros(len(index), 2), index % 3, torch.tensor(mask), index, 0.0)


def test_the_penalty_holds_a_sample_to_the_running_mean_of_its_opinions():
    early, batch = EarlyLearning(5, 3, 2.0, 0.7, torch.device("cpu")), batch_of([4, 1], [True, True])
    first, second = torch.randn(2, 2, 3, generator=torch.Generator().manual_seed(0))
    early.penalties(first, batch)
    found = early.penalties(second, batch)
    means = 0.7 * (0.3 * first.softmax(1)) + 0.3 * second.softmax(1)
    torch.testing.assert_close(found, 2.0 * (1 - (means * second.softmax(1)).sum(1)).log())
    torch.testing.assert_close(early.means[[4, 1]], means)
    assert (early.means[[0, 2, 3]] == 0).all()


def test_padding_repeats_a_sample_and_must_not_count_twice():
    early, plain = (EarlyLearning(5, 3, 1.0, 0.5, torch.device("cpu")) for _ in range(2))
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    plain.penalties(logits, batch_of([0, 1], [True, True]))
    early.penalties(logits[[0, 1, 1]], batch_of([0, 1, 1], [True, True, False]))
    assert torch.equal(early.means, plain.means)


def test_the_corrected_loss_is_least_at_the_true_posterior_though_labels_are_wrong():
    """With y drawn from p T the mean loss -log (softmax(z) T)_y has gradient 0 at softmax(z) = p; cross-entropy has not."""
    transition = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    posterior = torch.tensor([0.7, 0.2, 0.1])
    given = posterior @ transition

    def gradient(loss):
        logits = posterior.log().clone().requires_grad_(True)
        losses = loss(logits.expand(3, 3), torch.arange(3))
        (found,) = torch.autograd.grad((given * losses).sum(), logits)
        return found

    assert gradient(lambda z, y: forward_corrected(z, y, transition=transition)).abs().max() < 1e-6
    assert gradient(cross_entropy).abs().max() > 0.05


def test_without_wrong_labels_the_corrected_loss_is_cross_entropy_for_both_kinds_of_target():
    logits, target = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.arange(6) % 3
    for one in (target, F.one_hot(target, 3).float()):
        torch.testing.assert_close(forward_corrected(logits, one, transition=torch.eye(3)), cross_entropy(logits, target))
