"""Meta-Weight-Net: a small net from a sample's loss to its weight, trained so that a step helps the trusted samples.

arXiv 1902.07379, equations 4 to 9, through the classifier alone: the look-ahead step and its gradient are exact where the
classifier is what trains, and leave out the backbone where the whole net does. For a linear classifier they have a closed
form, so nothing is differentiated twice.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from otrw import distributed
from otrw.data.loader import Batch
from otrw.models.heads import FrozenBackbone
from otrw.seeds import seed_for

HIDDEN_SIZE = 100  # the paper's 1-100-1
LEARNING_RATE = 1e-3  # as released
WEIGHT_DECAY = 1e-4  # as released


class Samples(NamedTuple):
    """What the look-ahead needs of samples, of all processes."""

    embeddings: Tensor
    """(n, D)"""
    targets: Tensor
    """(n, C) distributions over classes"""


class MetaWeightNet(nn.Module):
    """V: loss (n,) -> weight (n,) in (0, 1), and the optimiser that trains it. Replicated."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(seed, "meta-weight-net"))
            self.layers = nn.Sequential(nn.Linear(1, HIDDEN_SIZE), nn.ReLU(), nn.Linear(HIDDEN_SIZE, 1))
        self.optimizer = torch.optim.Adam(self.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)

    def forward(self, losses: Tensor) -> Tensor:
        """(n,) -> (n,)."""
        return torch.sigmoid(self.layers(losses[:, None])).squeeze(1)

    def of_step(
        self, net: nn.Module, batch: Batch, meta: Batch, num_classes: int, learning_rate: float
    ) -> tuple[Tensor, Tensor]:
        """Learn from a step's samples, of all processes at once; (indices (n,), weights (n,)) of all of them, replicated.

        Args:
            net: gives (embedding, logits), its classifier as `net.head`; not changed.
            batch: this process's training samples.
            meta: this process's trusted samples.
            num_classes: C.
            learning_rate: of the look-ahead step.
        """
        was_training = net.training
        net.eval()
        with torch.no_grad():
            train, trusted = (_of_all(net(part.inputs).embedding, part, num_classes) for part in (batch, meta))
        net.train(was_training)
        head = (net.net if isinstance(net, FrozenBackbone) else net).head
        assert isinstance(head, nn.Linear)
        index = distributed.all_gather_rows(batch.index)[distributed.all_gather_rows(batch.mask)]
        return index, self.learn(head, train, trusted, learning_rate)

    def full_state(self) -> dict[str, Tensor]:
        """Parameters, and the optimiser's moments, as one dict of tensors."""
        state = dict(self.state_dict())
        for number, moments in self.optimizer.state_dict()["state"].items():
            state |= {f"adam.{number}.{name}": value for name, value in moments.items()}
        return state

    def load_full_state(self, state: dict[str, Tensor]) -> None:
        """Take over a `full_state`."""
        self.load_state_dict({name: value for name, value in state.items() if not name.startswith("adam.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in state.items():
            if name.startswith("adam."):
                _, number, key = name.split(".")
                moments.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    def learn(self, head: nn.Linear, train: Samples, trusted: Samples, learning_rate: float) -> Tensor:
        """One step of V, and the weights (n,) that it then gives the training samples.

        Args:
            head: the classifier as it is; it is not changed.
            train: samples of one step.
            trusted: trusted samples.
            learning_rate: of the look-ahead step of the classifier.
        """
        with torch.no_grad():
            losses, errors = _losses_and_errors(head.weight, head.bias, train)
        with torch.enable_grad():
            weights = self(losses)
            gains = gains_of_weights(head, train, trusted, weights.detach(), errors, learning_rate)
            self.optimizer.zero_grad()
            # the chain rule: dL(trusted)/dtheta = sum_n dL/dv_n dv_n/dtheta, and -gains are dL/dv
            (-(gains * weights).sum()).backward()
        self.optimizer.step()
        with torch.no_grad():
            return self(losses)


def gains_of_weights(
    head: nn.Linear, train: Samples, trusted: Samples, weights: Tensor, errors: Tensor, learning_rate: float
) -> Tensor:
    """(n,) by how much the mean trusted loss after the look-ahead step falls with each sample's weight, to first order.

    The step is W' = W - (r / n) sum_n v_n (p_n - y_n) [x_n, 1]^T, so that -dL(W')/dv_n = (r / n) <(p_n - y_n) [x_n, 1]^T,
    dL/dW'>: a sample gains where its gradient points the way of the trusted ones (the paper's equation 8).

    Args:
        head: the classifier W.
        train: samples x, y of the step.
        trusted: samples of the loss L.
        weights: (n,) v.
        errors: (n, C) p - y of the training samples under W.
        learning_rate: r.
    """
    scaled = learning_rate / len(weights)
    with torch.no_grad():
        step = weights[:, None] * errors
        matrix = head.weight - scaled * step.T @ train.embeddings
        bias = head.bias - scaled * step.sum(0)
        _, trusted_errors = _losses_and_errors(matrix, bias, trusted)
        gradient = trusted_errors.T @ trusted.embeddings / len(trusted_errors)  # (C, D), dL/dW'
        return scaled * (errors * (train.embeddings @ gradient.T + trusted_errors.mean(0))).sum(1)


def _of_all(embeddings: Tensor, batch: Batch, num_classes: int) -> Samples:
    """The samples of all processes."""
    vectors = torch.eye(num_classes, device=embeddings.device)[batch.labels]
    kept = distributed.all_gather_rows(batch.mask)
    return Samples(*(distributed.all_gather_rows(x)[kept] for x in (embeddings.float(), vectors)))


def _losses_and_errors(matrix: Tensor, bias: Tensor, samples: Samples) -> tuple[Tensor, Tensor]:
    """Cross-entropy (n,), and its gradient by the logits (n, C)."""
    logits = F.linear(samples.embeddings.float(), matrix.float(), bias.float())
    return F.cross_entropy(logits, samples.targets, reduction="none"), logits.softmax(1) - samples.targets
