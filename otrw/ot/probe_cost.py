"""The noise-aware plan with a cost that it learns: how far a sample is from a class is what a probe of the embeddings says.

Distances to prototypes (`otrw.ot.noise_aware`) know a class by its few trusted samples alone. Once there is a plan, every
training sample says something of the classes it is moved to, so that a linear probe p(x) = softmax(A^T x + c) can take their
place:

    C_nk = -s log p_k(x_n) - log T[k, y_n],    q_n(k) = softmax_k(log pi_k - C_nk).

Probe and plan are found in turn. Given the plan, the probe of sample n minimises over the samples m of the other folds, and
over the trusted ones of the other folds with their labels, each counting as `TRUSTED_MASS` samples that are surely of their
class,

    - 1/C sum_k 1/S_k sum_m q_m(k) log p_k(x_m) + lambda / 2 |A|^2,    S_k = sum_m q_m(k),

in which every class has the same mass: so p_k(x) is the density of x in class k but for a factor that is the same for all k,
which the softmax over k takes out. s, one of `SHARPNESSES`, is that under which the trusted samples are most probable, each by
the probe that has not seen it (temperature scaling: Guo et al., arXiv 1706.04599), with log s normal beforehand: it is above 1
where the plan is so unsure of its own labels that the probe understates what it knows. Given the probe, pi and T are taken
from the plan and the plan from them, as there. Folds keep the probe from reading the label of a sample off the sample itself.

Few rounds, on purpose. Where wrong labels depend on the sample and not on its class alone, the given labels are not
independent of the features inside a class, and every further round takes more of the wrong ones for right.

Pooled, three witnesses are asked, the trusted samples by their prototypes, the probe, and the crowd of all given labels,

    C_nk = 1/2 (tau / 2 |W (x_n - mu_k)|^2) - 1/2 s log p_k(x_n) - g log c_k(x_n) - log T[k, y_n],

c a probe in the same folds that is fitted to the given labels as they are, every sample counting the same: a logarithmic
opinion pool (Genest and Zidek, Statistical Science 1986). The crowd knows what few trusted samples do not, and most of what it
says of rare classes may be wrong itself, so that it has the smallest say; analysis/LOG.md has what each is worth.

A classifier and the transition matrix of its labels, alternately estimated: Bekker and Goldberger, ICASSP 2016; labels given
by transport, alternately with the classifier that its cost comes from: Asano et al., arXiv 1911.05371.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.ot.noise_aware import NoiseAwarePlan, estimates, plan_of_cost, prototype_cost
from otrw.ot.semi_dual import SumSamples, uniform_hash, whole

NUM_FOLDS = 5
NUM_ROUNDS = 2
"""Of probe and plan."""
NUM_ESTIMATES = 3
"""Of pi and T for each probe."""
TRUSTED_MASS = 10.0
"""Of a trusted sample in a probe: labels that are wrong in the same way would outvote it otherwise."""
TRANSITION_PRIOR = 0.05
"""beta of `otrw.ot.noise_aware`; less than there, as the plan that this one starts from knows more than nothing."""
CROWD_SHARE = 0.125
"""g, of the crowd's opinion in the pool."""
PENALTY = 1e-2
"""lambda, for features of standard deviation 1. With less of it the result is more that of where `MOST_STEPS` stop than of the
loss (analysis/LOG.md)."""
MOST_STEPS = 15
"""Of L-BFGS for each probe, which starts from the one before."""
SHARPNESSES = tuple(2.0 ** (quarter / 4) for quarter in range(-8, 9))
"""s from 1/4 to 4."""
SHARPNESS_SPREAD = 0.5
"""Standard deviation of log s beforehand: a handful of trusted samples that all come out right does not make it boundless."""
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
    pooled: bool = False,
    num_rounds: int = NUM_ROUNDS,
    transition_prior: float = TRANSITION_PRIOR,
    crowd_share: float = CROWD_SHARE,
    sum_samples: SumSamples = whole,
) -> NoiseAwarePlan:
    """The plan that the given one leads to when its cost is learned, or pooled; formulas at the head of this file.

    Prototypes and metric stay those of the given plan. A step of a probe is one exchange of F C (D + 1) + 1 numbers, F folds.

    Args:
        plan: of `noise_aware_plan`, where it starts.
        embeddings: (n, D) of this process's samples.
        labels: (n,) their given class indices.
        trusted: (M, D), replicated.
        trusted_labels: (M,) class indices.
        sample_index: (n,) index of each sample over all processes: its fold follows from it.
        pooled: whether the learned cost is pooled with the prototypes and the crowd, and pi and T found again with that.
        num_rounds: of probe and plan, >= 1.
        transition_prior: beta, > 0.
        crowd_share: g of the pool, >= 0.
        sum_samples: all-reduce of a sum over samples.

    Raises:
        ValueError: a parameter is out of range.
    """
    if num_rounds < 1 or not transition_prior > 0 or not crowd_share >= 0:
        raise ValueError(
            "num_rounds must be >= 1, transition_prior > 0 and crowd_share >= 0, got "
            f"{num_rounds}, {transition_prior} and {crowd_share}"
        )
    x, reference = _standardized(embeddings.double(), trusted.double(), sum_samples)
    folds = (NUM_FOLDS * uniform_hash(sample_index)).long()
    probes = _Probes(x, folds, reference, trusted_labels, len(plan.class_share), sum_samples)
    learned = plan
    for _ in range(num_rounds):
        log_p, sharpness = probes.fit(learned.log_posterior.double().exp())
        log_p = sharpness * log_p
        learned = _estimated(learned, -log_p.to(plan.log_posterior.dtype), labels, transition_prior, sum_samples)
    if not pooled:
        return learned
    said = log_p / 2 + crowd_share * probes.fit_crowd(labels)
    cost = prototype_cost(plan, embeddings) / 2 - said.to(plan.log_posterior.dtype)
    return _estimated(learned, cost, labels, transition_prior, sum_samples)


def _estimated(
    plan: NoiseAwarePlan, cost: Tensor, labels: Tensor, transition_prior: float, sum_samples: SumSamples
) -> NoiseAwarePlan:
    """The plan of a cost (n, C), with pi and T found in turn with it from those of the given plan."""
    share, transition, change = plan.class_share, plan.transition, plan.change
    for _ in range(NUM_ESTIMATES):
        log_q = plan_of_cost(cost, labels, share, transition)
        before = share
        share, transition = estimates(log_q, labels, transition_prior, sum_samples)
        change = float((share - before).abs().sum())
    log_q = plan_of_cost(cost, labels, share, transition)
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


def _dealt_out(labels: Tensor, num_classes: int) -> Tensor:
    """(M,) folds of trusted samples: those of a class are dealt out in turn."""
    is_of = F.one_hot(labels, num_classes)
    return (is_of.cumsum(0) * is_of).sum(1).sub(1) % NUM_FOLDS


class _Probes:
    """One linear probe a fold, all fitted at once; parameters are replicated and start from those of the last fit."""

    def __init__(
        self, x: Tensor, folds: Tensor, trusted: Tensor, trusted_labels: Tensor, num_classes: int, sum_samples: SumSamples
    ) -> None:
        self.x, self.folds, self.num_classes, self.sum_samples = x, folds, num_classes, sum_samples
        self.trusted, self.trusted_labels = trusted, trusted_labels
        self.trusted_folds = _dealt_out(trusted_labels, num_classes)
        self.trusted_target = TRUSTED_MASS * F.one_hot(trusted_labels, num_classes).double()
        self.weight = x.new_zeros(x.shape[1], NUM_FOLDS * num_classes)
        self.bias = x.new_zeros(NUM_FOLDS * num_classes)
        self.block = max(1, MAX_BLOCK_ENTRIES // (NUM_FOLDS * num_classes))

    def fit(self, q: Tensor) -> tuple[Tensor, float]:
        """(n, C) log-probabilities of every sample by the probe that has not seen it, for plan q (n, C); and their s."""
        everyone = torch.arange(NUM_FOLDS, device=q.device)
        seen, seen_trusted = (of[:, None] != everyone for of in (self.folds, self.trusted_folds))  # (n, F), (M, F)
        sizes = self.sum_samples(seen.double().T @ q) + seen_trusted.double().T @ self.trusted_target  # (F, C)
        self._minimize(q, seen, seen_trusted, 1 / (self.num_classes * sizes.clamp_min(1e-6)))
        return self._unseen_samples(), self._sharpness()

    def fit_crowd(self, labels: Tensor) -> Tensor:
        """(n, C) log-probabilities of every sample by a probe of the other folds' given labels (n,), from where the last fit
        ended."""
        everyone = torch.arange(NUM_FOLDS, device=labels.device)
        seen = self.folds[:, None] != everyone
        nobody = torch.zeros_like(self.trusted_folds[:, None] != everyone)
        sizes = self.sum_samples(seen.double().sum(0))[:, None].expand(-1, self.num_classes)
        self._minimize(F.one_hot(labels, self.num_classes).double(), seen, nobody, 1 / sizes.clamp_min(1e-6))
        return self._unseen_samples()

    def _minimize(self, q: Tensor, seen: Tensor, seen_trusted: Tensor, scale: Tensor) -> None:
        """Fit all probes, the mass of a sample in a class times scale (F, C) where the fold sees it."""
        self.weight.requires_grad_()
        self.bias.requires_grad_()
        optimizer = torch.optim.LBFGS(
            [self.weight, self.bias], max_iter=MOST_STEPS, history_size=20, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            value, by_weight, by_bias = self._loss(q, seen, seen_trusted, scale)
            self.weight.grad, self.bias.grad = by_weight, by_bias
            return value

        optimizer.step(closure)
        self.weight, self.bias = self.weight.detach(), self.bias.detach()

    def _unseen_samples(self) -> Tensor:
        """(n, C) log-probabilities of the samples."""
        parts = zip(self.x.split(self.block), self.folds.split(self.block), strict=True)
        return torch.cat([self._unseen(part, fold) for part, fold in parts])

    def _sharpness(self) -> float:
        """s."""
        log_p = self._unseen(self.trusted, self.trusted_folds)

        def log_probability(s: float) -> float:
            of_trusted = (s * log_p).log_softmax(1).gather(1, self.trusted_labels[:, None]).sum()
            return float(of_trusted) - (math.log(s) / SHARPNESS_SPREAD) ** 2 / 2

        return max(SHARPNESSES, key=log_probability)

    def _unseen(self, x: Tensor, folds: Tensor) -> Tensor:
        """(n, C) log-probabilities of samples by the probes of their folds."""
        return self._log_p(x).gather(1, folds[:, None, None].expand(-1, 1, self.num_classes)).squeeze(1)

    def _log_p(self, x: Tensor) -> Tensor:
        """(n, F, C) of all probes."""
        return torch.addmm(self.bias, x, self.weight).view(len(x), NUM_FOLDS, self.num_classes).log_softmax(2)

    @torch.no_grad()
    def _loss(self, q: Tensor, seen: Tensor, seen_trusted: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss of all probes together, over all processes, with its gradients."""
        total = self.x.new_zeros(1 + self.weight.numel() + len(self.bias))
        for part in torch.arange(len(q), device=q.device).split(self.block):
            total += self._terms(self.x[part], q[part], scale * seen[part].double()[:, :, None])
        of_trusted = self._terms(self.trusted, self.trusted_target, scale * seen_trusted.double()[:, :, None])
        total = self.sum_samples(total) + of_trusted
        value, by_weight, by_bias = total.split([1, self.weight.numel(), len(self.bias)])
        value = value + PENALTY / 2 * self.weight.square().sum()
        return value[0], by_weight.view_as(self.weight) + PENALTY * self.weight, by_bias

    def _terms(self, x: Tensor, target: Tensor, scale: Tensor) -> Tensor:
        """What samples add to loss and gradients, in one row: x (n, D), target (n, C), scale of it (n, F, C)."""
        mass = target[:, None, :] * scale
        log_p = self._log_p(x)
        residual = (log_p.exp() * mass.sum(2, keepdim=True) - mass).flatten(1)
        return torch.cat([-(mass * log_p).sum()[None], (x.T @ residual).flatten(), residual.sum(0)])
