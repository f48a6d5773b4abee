"""The noise-aware plan with a cost that it learns: how far a sample is from a class is what a probe of the embeddings says.

Distances to prototypes (`otrw.ot.noise_aware`) know a class by its few trusted samples alone. Once there is a plan, every
training sample says something of the classes it is moved to, so that a linear probe p(x) = softmax(A^T x + c) can take their
place:

    C_nk = -log p_k(x_n) - log T[k, y_n],    q_n(k) = softmax_k(log pi_k - C_nk).

Probe and plan are found in turn. Given the plan, the probe of sample n minimises over the samples m of the other folds, and
over the trusted ones with their labels, each counting as `TRUSTED_MASS` samples that are surely of their class,

    - 1/C sum_k 1/S_k sum_m q_m(k) log p_k(x_m) + lambda / 2 |A|^2,    S_k = sum_m q_m(k),

in which every class has the same mass: so p_k(x) is the density of x in class k but for a factor that is the same for all k,
which the softmax over k takes out. Given the probe, pi and T are taken from the plan and the plan from them, as there. Folds
keep the probe from reading the label of a sample off the sample itself.

A classifier and the transition matrix of its labels, alternately estimated: Bekker and Goldberger, ICASSP 2016; labels given
by transport, alternately with the classifier that its cost comes from: Asano et al., arXiv 1911.05371.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.ot.noise_aware import NoiseAwarePlan, estimates, plan_of_cost
from otrw.ot.semi_dual import SumSamples, uniform_hash, whole

NUM_FOLDS = 5
NUM_ROUNDS = 8
"""Of probe and plan."""
NUM_ESTIMATES = 3
"""Of pi and T for each probe."""
TRUSTED_MASS = 5.0
"""Of a trusted sample in a probe: labels that are wrong in the same way would outvote it otherwise."""
TRANSITION_PRIOR = 0.05
"""beta of `otrw.ot.noise_aware`; less than there, as the plan that this one starts from knows more than nothing."""
PENALTY = 1e-3
"""lambda, for features of standard deviation 1."""
MOST_STEPS = 15
"""Of L-BFGS for each probe, which starts from the one before."""
SMALLEST_SPREAD = 0.1
"""Standard deviation of a feature, as a share of the root mean square of all: one that hardly varies is not blown up."""
MAX_BLOCK_ENTRIES = 1 << 23
"""Log-probabilities that exist at a time, in float64."""


def with_probe_cost(
    plan: NoiseAwarePlan,
    embeddings: Tensor,
    labels: Tensor,
    trusted: Tensor,
    trusted_labels: Tensor,
    sample_index: Tensor,
    *,
    num_rounds: int = NUM_ROUNDS,
    transition_prior: float = TRANSITION_PRIOR,
    sum_samples: SumSamples = whole,
) -> NoiseAwarePlan:
    """The plan that the given one leads to when its cost is learned; formulas at the head of this file.

    Prototypes and metric stay those of the given plan. A step of a probe is one exchange of F C (D + 1) + 1 numbers, F folds.

    Args:
        plan: of `noise_aware_plan`, where it starts.
        embeddings: (n, D) of this process's samples.
        labels: (n,) their given class indices.
        trusted: (M, D), replicated.
        trusted_labels: (M,) class indices.
        sample_index: (n,) index of each sample over all processes: its fold follows from it.
        num_rounds: of probe and plan, >= 1.
        transition_prior: beta, > 0.
        sum_samples: all-reduce of a sum over samples.

    Raises:
        ValueError: a parameter is out of range.
    """
    if num_rounds < 1 or not transition_prior > 0:
        raise ValueError(f"num_rounds must be >= 1 and transition_prior > 0, got {num_rounds} and {transition_prior}")
    x, reference = _standardized(embeddings.double(), trusted.double(), sum_samples)
    folds = (NUM_FOLDS * uniform_hash(sample_index)).long()
    probes = _Probes(x, folds, reference, trusted_labels, len(plan.class_share), sum_samples)
    log_q, share, change = plan.log_posterior, plan.class_share, plan.change
    transition = plan.transition
    for _ in range(num_rounds):
        log_p = probes.fit(log_q.double().exp())
        for _ in range(NUM_ESTIMATES):
            log_q = plan_of_cost(-log_p.to(log_q.dtype), labels, share, transition)
            before = share
            share, transition = estimates(log_q, labels, transition_prior, sum_samples)
            change = float((share - before).abs().sum())
    log_q = plan_of_cost(-log_p.to(log_q.dtype), labels, share, transition)
    return plan._replace(log_posterior=log_q, transition=transition, class_share=share, change=change)


def _standardized(x: Tensor, trusted: Tensor, sum_samples: SumSamples) -> tuple[Tensor, Tensor]:
    """Samples (n, D) and trusted ones (M, D) with the samples' mean taken out and their standard deviation divided by."""
    count = x.new_tensor([float(len(x))])
    total = sum_samples(torch.cat([x.sum(0), count]))
    mean = total[:-1] / total[-1]
    spread = (sum_samples((x - mean).square().sum(0)) / total[-1]).sqrt()
    smallest = SMALLEST_SPREAD * float(spread.square().mean().sqrt())
    spread = spread.clamp_min(max(smallest, 1e-12))
    return (x - mean) / spread, (trusted - mean) / spread


class _Probes:
    """One linear probe a fold, all fitted at once; parameters are replicated and start from those of the last fit."""

    def __init__(
        self, x: Tensor, folds: Tensor, trusted: Tensor, trusted_labels: Tensor, num_classes: int, sum_samples: SumSamples
    ) -> None:
        self.x, self.folds, self.num_classes, self.sum_samples = x, folds, num_classes, sum_samples
        self.trusted = trusted
        self.trusted_target = TRUSTED_MASS * F.one_hot(trusted_labels, num_classes).double()
        self.weight = x.new_zeros(x.shape[1], NUM_FOLDS * num_classes)
        self.bias = x.new_zeros(NUM_FOLDS * num_classes)
        self.block = max(1, MAX_BLOCK_ENTRIES // (NUM_FOLDS * num_classes))

    def fit(self, q: Tensor) -> Tensor:
        """(n, C) log-probabilities of every sample by the probe that has not seen it, for plan q (n, C)."""
        seen = self.folds[:, None] != torch.arange(NUM_FOLDS, device=q.device)  # (n, F)
        sizes = self.sum_samples(seen.double().T @ q) + self.trusted_target.sum(0)  # (F, C)
        scale = 1 / (self.num_classes * sizes.clamp_min(1e-6))
        self.weight.requires_grad_()
        self.bias.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=MOST_STEPS, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            value, by_weight, by_bias = self._loss(q, seen, scale)
            self.weight.grad, self.bias.grad = by_weight, by_bias
            return value

        optimizer.step(closure)
        self.weight, self.bias = self.weight.detach(), self.bias.detach()
        own = [
            self._log_p(part).gather(1, fold[:, None, None].expand(-1, 1, self.num_classes)).squeeze(1)
            for part, fold in zip(self.x.split(self.block), self.folds.split(self.block), strict=True)
        ]
        return torch.cat(own)

    def _log_p(self, x: Tensor) -> Tensor:
        """(n, F, C) of all probes."""
        return torch.addmm(self.bias, x, self.weight).view(len(x), NUM_FOLDS, self.num_classes).log_softmax(2)

    @torch.no_grad()
    def _loss(self, q: Tensor, seen: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of all probes together, over all processes, with its gradients."""
        total = self.x.new_zeros(1 + self.weight.numel() + len(self.bias))
        for part in torch.arange(len(q), device=q.device).split(self.block):
            total += self._terms(self.x[part], q[part], scale * seen[part].double()[:, :, None])
        total = self.sum_samples(total) + self._terms(self.trusted, self.trusted_target, scale)
        value, by_weight, by_bias = total.split([1, self.weight.numel(), len(self.bias)])
        value = value + PENALTY / 2 * self.weight.square().sum()
        return value[0], by_weight.view_as(self.weight) + PENALTY * self.weight, by_bias

    def _terms(self, x: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """What samples add to loss and gradients, in one row: x (n, D), target (n, C), scale of it (n or 1, F, C)."""
        mass = target[:, None, :] * scale
        log_p = self._log_p(x)
        residual = (log_p.exp() * mass.sum(2, keepdim=True) - mass).flatten(1)
        return torch.cat([-(mass * log_p).sum()[None], (x.T @ residual).flatten(), residual.sum(0)])
