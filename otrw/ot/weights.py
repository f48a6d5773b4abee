"""Weights as functions of parameters, their gradients under the OT objective, and the class-balanced control."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from otrw.ot.semi_dual import SumSamples, whole
from otrw.ot.sinkhorn import SinkhornResult, sinkhorn, transport_cost


def effective_number_weights(class_sizes: Tensor, beta: float = 0.9999) -> Tensor:
    """Class weights (1 - beta) / (1 - beta^n_c), scaled to sum to C (arXiv 1901.05555, equation 2). (C,) -> (C,).

    A class without samples gets weight 0: it cannot appear in the loss.
    """
    sizes = class_sizes.double()
    weights = torch.where(sizes > 0, (1 - beta) / (1 - beta**sizes), 0)
    return (weights * len(sizes) / weights.sum()).float()


def envelope_gradient(b: Tensor, g: Tensor, mean_g: Tensor) -> Tensor:
    """d OT_eps(a, softmax(theta)) / d theta_n = b_n (g_n - <b, g>), (n,).

    Envelope theorem: at convergence dOT_eps/db = g up to a constant, with the plan's own entropy as regulariser (with
    the relative entropy to a x b it would be g - epsilon log b). The softmax chain rule removes the constant.
    mean_g is <b, g> over all samples; samples without mass have gradient 0.
    """
    return torch.where(b > 0, b * (g - mean_g), 0)


def descend(theta: Tensor, gradient: Tensor, *, learning_rate: float, weight_decay: float) -> Tensor:
    """theta - lr (gradient + decay theta), (n,); a sample without mass (theta of -inf) stays without."""
    return torch.where(theta == -torch.inf, theta, theta - learning_rate * (gradient + weight_decay * theta))


def product_weights(
    weights: Tensor,
    confidence: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    weight_power: float,
    confidence_power: float,
    sum_samples: SumSamples = whole,
) -> Tensor:
    """w'_n = M_c w_n^alpha p_n^beta / sum over class c of w^alpha p^beta, c the given label of sample n, M_c its sum of w.

    Two opinions of a label: the transport weight w knows what the class looks like to someone trusted, p, the probability of
    the label by a classifier that has not seen the sample, what it looks like to all samples that carry it. As experts that
    err independently their product is the better judge (Hinton, Neural Computation 2002); every class keeps its mass, so
    that only the weights inside a class change. A class whose products are all 0 keeps its weights.

    Args:
        weights: (n,) w >= 0 of this process's samples.
        confidence: (n,) p in [0, 1].
        labels: (n,) given class indices.
        num_classes: C.
        weight_power: alpha >= 0; below 1 smooths, above 1 sharpens.
        confidence_power: beta >= 0.
        sum_samples: all-reduce of a sum over samples.

    Returns:
        (n,) in the type of the weights.
    """
    w = weights.double()
    product = w.pow(weight_power) * confidence.double().pow(confidence_power)
    sums = torch.zeros(2, num_classes, dtype=torch.float64, device=w.device)
    before, after = sum_samples(sums.index_add_(1, labels, torch.stack([w, product])))
    factor = torch.where(after > 0, before / after.clamp_min(torch.finfo(torch.float64).tiny), 0)
    return torch.where(after[labels] > 0, factor[labels] * product, w).to(weights.dtype)


class UnrolledStep(NamedTuple):
    """One gradient step on theta through the Sinkhorn iterations."""

    theta: Tensor
    result: SinkhornResult


def unrolled_step(
    cost: Tensor,
    theta: Tensor,
    *,
    epsilon: float,
    max_iterations: int,
    tolerance: float,
    stopping: str,
    learning_rate: float,
    weight_decay: float,
) -> UnrolledStep:
    """theta <- theta - lr (d<P, C>/dtheta + decay theta) with b = softmax(theta), by backpropagation through the
    iterations: the released code's step (arXiv 2208.02951, equation 6 and its code). cost (K, n), theta (n,); or
    (B, K, n) and (B, n): the steps of B batches that share no sample. A theta of -inf marks padding and stays.
    """
    with torch.enable_grad():
        theta = theta.detach().requires_grad_(True)
        num_atoms = cost.shape[-2]
        log_a = torch.full((num_atoms,), 1 / num_atoms, dtype=cost.dtype, device=cost.device).log()
        result = sinkhorn(
            cost,
            log_a,
            torch.log_softmax(theta, dim=-1),
            epsilon=epsilon,
            max_iterations=max_iterations,
            tolerance=tolerance,
            stopping=stopping,  # type: ignore[arg-type]
        )
        (gradient,) = torch.autograd.grad(transport_cost(cost, result, epsilon), theta)
    new_theta = descend(theta.detach(), gradient, learning_rate=learning_rate, weight_decay=weight_decay)
    return UnrolledStep(new_theta, SinkhornResult(result.f.detach(), result.g.detach(), *result[2:]))


class WeightNet(nn.Module):
    """theta_n = v . tanh(A x_n), to be put through a softmax over samples (arXiv 2208.02951, equation 8).

    Generalises to samples it has not seen, since it is a function of the embedding.
    """

    def __init__(self, embedding_size: int, hidden_size: int = 100) -> None:
        super().__init__()
        self.attention = nn.Linear(embedding_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(n, D) -> (n,)."""
        return self.score(torch.tanh(self.attention(embeddings))).squeeze(1)
