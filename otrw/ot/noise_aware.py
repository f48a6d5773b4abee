"""The noise-aware plan: transport of samples onto classes when given labels are wrong by an unknown transition matrix.

Sample n with embedding x_n (scaled to length 1) and given label y_n is moved onto class k at the cost

    C_kn = tau / 2 |W (x_n - mu_k)|^2 - log T[k, y_n],

W and tau from the trusted set (`otrw.ot.metric`), T[k, j] the probability that a sample of class k carries the label j. With
the mass of every sample fixed and that of the classes free, entropic transport with prior pi has the plan

    q_n(k) = softmax_k(log pi_k - C_kn),

and its minimum over pi, T and mu is the maximum of a likelihood (Rigollet and Weed, arXiv 1809.05572): alternating the plan
with its parameters is expectation maximisation (Dempster et al. 1977). The parameters given a plan are

    pi_k     = mean_n q_n(k),
    T[k, j]  ~ sum_n q_n(k) 1[y_n = j] + beta (N / C) T0[k, j], each row to sum 1,
    T0       = the pooled symmetric matrix: 1 - rho on the diagonal, rho / (C - 1) beside it, rho = 1 - mean_n q_n(y_n),
    mu_k     = (m_k t_k + s_k v_k) / (m_k + s_k), s_k = min(S_k, cap m_k), S_k = sum_n q_n(k) 1[y_n = k],

t_k the mean of the m_k trusted samples of class k, and v_k the mean of the samples given that label, by q_n(k). The prior mass
beta keeps classes of few samples near the noise of all. The cap keeps the many samples, whose labels may all be wrong in the
same way, from outvoting the few trusted ones. A transition matrix of given labels is that of Patrini et al., arXiv 1609.03683;
estimating it beside trusted samples that of Hendrycks et al., arXiv 1802.05300.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from otrw.ot.metric import Metric, class_means, fit_metric
from otrw.ot.semi_dual import SumSamples, whole
from otrw.ot.sinkhorn import LogSumExp, logsumexp_rows

NUM_ROUNDS = 3
TRANSITION_PRIOR = 0.2
PROTOTYPE_CAP = 1.0
INITIAL_NOISE_RATE = 0.5
"""Of the first T. From 0.4 to 0.6 the plan ends nearly alike."""


class NoiseAwarePlan(NamedTuple):
    """The plan and its parameters. N samples, of which this process has n; C classes."""

    log_posterior: Tensor
    """(n, C) log q_n(k): how probable it is that sample n is of class k; local"""
    transition: Tensor
    """(C, C) T, rows sum to 1; replicated, float64, as all that follow"""
    class_share: Tensor
    """(C,) pi, sums to 1"""
    prototypes: Tensor
    """(C, D) mu"""
    given_sizes: Tensor
    """(C,) samples a class by their given labels"""
    metric: Metric
    change: float
    """L1 change of pi in the last round"""


def noise_aware_plan(
    embeddings: Tensor,
    labels: Tensor,
    trusted: Tensor,
    trusted_labels: Tensor,
    num_classes: int,
    *,
    num_rounds: int = NUM_ROUNDS,
    transition_prior: float = TRANSITION_PRIOR,
    prototype_cap: float = PROTOTYPE_CAP,
    sum_samples: SumSamples = whole,
) -> NoiseAwarePlan:
    """The plan of the samples onto the classes of a trusted set; formulas at the head of this file.

    It starts from pi uniform, mu the trusted means and T symmetric, a label as likely wrong as right; each round takes pi, T
    and mu from the plan, then the plan from them. A round is one exchange of C (C + D) numbers. Where features are weak, a
    start from them alone (T constant) sees rare classes everywhere, and pi comes down from there only slowly; a start from
    the shares of the given labels believes in a rare class that a frequent one is mistaken for. A class without trusted
    samples starts from the mean of the samples given its label, and moves freely.

    Args:
        embeddings: (n, D) of this process's samples; only their direction counts.
        labels: (n,) their given class indices.
        trusted: (M, D), replicated.
        trusted_labels: (M,) class indices.
        num_classes: C.
        num_rounds: of parameters and plan, >= 1.
        transition_prior: beta, > 0.
        prototype_cap: what plan mass may count beside the trusted mass; inf is no cap.
        sum_samples: all-reduce of a sum over samples.

    Raises:
        ValueError: there is no trusted sample, or a parameter is out of range.
    """
    if len(trusted) == 0:
        raise ValueError("trusted must have at least one sample, got none")
    if num_rounds < 1 or not transition_prior > 0 or prototype_cap < 0:
        raise ValueError(
            "num_rounds must be >= 1, transition_prior > 0 and prototype_cap >= 0, got "
            f"{num_rounds}, {transition_prior} and {prototype_cap}"
        )
    x = _directions(embeddings)
    reference = F.normalize(trusted.double(), dim=1)
    metric = fit_metric(reference, trusted_labels, x, labels, num_classes, sum_samples=sum_samples)
    means, sizes = class_means(reference, trusted_labels, num_classes)
    everything = torch.ones(len(x), dtype=torch.float64, device=x.device)
    given_sizes, given_sums = _by_given_label(everything, x, labels, num_classes, sum_samples)
    prototypes = torch.where((sizes > 0)[:, None], means, given_sums / given_sizes.clamp_min(1)[:, None])
    is_known = (sizes > 0) | (given_sizes > 0)
    share = is_known.double() / is_known.sum()
    transition = symmetric_transition(num_classes, INITIAL_NOISE_RATE, share)
    log_q = plan_of_cost(metric.squared_distance(x, prototypes) / 2, labels, share, transition)
    change = 0.0
    for _ in range(num_rounds):
        before = share
        share, transition, agreeing, sums = _estimates(log_q, labels, transition_prior, x, sum_samples)
        change = float((share - before).abs().sum())
        counted = torch.where(sizes > 0, torch.minimum(agreeing, prototype_cap * sizes), agreeing)
        factor = torch.where(agreeing > 0, counted / agreeing.clamp_min(torch.finfo(torch.float64).tiny), 0)
        moved = (sizes[:, None] * means + factor[:, None] * sums) / (sizes + counted).clamp_min(1e-12)[:, None]
        prototypes = torch.where((sizes + counted > 1e-12)[:, None], moved, prototypes)
        log_q = plan_of_cost(metric.squared_distance(x, prototypes) / 2, labels, share, transition)
    return NoiseAwarePlan(log_q, transition, share, prototypes, given_sizes, metric, change)


def prototype_cost(plan: NoiseAwarePlan, embeddings: Tensor) -> Tensor:
    """(n, C) tau / 2 |W (x_n - mu_k)|^2 of samples with these embeddings (n, D), by the plan's metric and prototypes."""
    return plan.metric.squared_distance(_directions(embeddings), plan.prototypes) / 2


def _directions(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings if embeddings.dtype == torch.float64 else embeddings.float(), dim=1)


def symmetric_transition(num_classes: int, noise_rate: float, like: Tensor) -> Tensor:
    """(C, C) matrix in the type of `like`: a label is wrong at that rate, and then any other class alike."""
    beside = noise_rate / max(1, num_classes - 1)
    matrix = torch.full((num_classes, num_classes), beside, dtype=like.dtype, device=like.device)
    return matrix.fill_diagonal_(1 - noise_rate)


def wrong_label_scores(plan: NoiseAwarePlan, labels: Tensor) -> Tensor:
    """(n,) probability 1 - q_n(y_n) that the given label is wrong, in [0, 1]."""
    return -_of_given(plan.log_posterior, labels).clamp_max(0).expm1()


def noise_aware_weights(
    plan: NoiseAwarePlan, labels: Tensor, *, smoothing: float = 0.0, logsumexp_samples: LogSumExp = logsumexp_rows
) -> Tensor:
    """(n,) weights w_n = (N / C) (q_n(y_n) + kappa / n_c) / (A_c + kappa), c = y_n; mean 1 over all samples.

    n_c samples carry the label c, of which A_c = sum of their q_m(c) are right by the plan; C counts the classes that have
    samples. Every class weighs the same, and inside it a sample by how probable its label is, with kappa right samples
    granted to every class beforehand and spread over all that carry its label: the posterior mean under a Dirichlet prior of
    that mass. Where A_c is well above kappa the weights are those of the plan; a class of few right samples is smoothed,
    since to train on two or three images alone, be they surely right, is to learn them by heart. kappa 0 smooths nothing,
    and as it grows class-balanced weights come out.

    Args:
        plan: of these samples.
        labels: (n,) given class indices.
        smoothing: kappa >= 0, in samples.
        logsumexp_samples: log-sum-exp over all processes' samples.
    """
    own = _of_given(plan.log_posterior, labels)
    if smoothing > 0:
        own = torch.logaddexp(own, (smoothing / plan.given_sizes.clamp_min(1)).log().to(own.dtype)[labels])
    num_classes = len(plan.given_sizes)
    is_given = labels[None, :] == torch.arange(num_classes, device=labels.device)[:, None]
    log_sum = logsumexp_samples(torch.where(is_given, own[None, :], -torch.inf))  # (C,)
    mass = plan.given_sizes.sum() / (plan.given_sizes > 0).sum()
    return mass.to(own.dtype) * (own - log_sum[labels]).exp()


def label_mass(
    plan: NoiseAwarePlan,
    labels: Tensor,
    share: float,
    *,
    smoothing: float = 0.0,
    logsumexp_samples: LogSumExp = logsumexp_rows,
) -> Tensor:
    """(n, C) mass of sample n with label k in the training loss, every class weighing N / C: given and transported labels.

    (1 - share) w_n 1[k = y_n] + share (N / C) q_n(k) / sum_m q_m(k), w_n the weights of `noise_aware_weights`. The loss of a
    target distribution is linear in it, so training with weights sum_k mass and targets mass / sum_k mass is training with
    this mass. Share 0 keeps the given labels; share 1 is transport of the samples onto the balanced classes, each sample
    counting under every label by how probable that is. C counts the classes that have samples.
    """
    num_classes = len(plan.given_sizes)
    weights = noise_aware_weights(plan, labels, smoothing=smoothing, logsumexp_samples=logsumexp_samples)
    mass = (1 - share) * weights[:, None] * F.one_hot(labels, num_classes).to(weights.dtype)
    if share == 0:
        return mass
    is_given = plan.given_sizes > 0
    of_class = plan.given_sizes.sum() / is_given.sum() * is_given
    log_sum = logsumexp_samples(plan.log_posterior.T.contiguous())  # (C,)
    return mass + share * of_class.to(mass.dtype) * (plan.log_posterior - log_sum).exp()


def plan_of_cost(cost: Tensor, labels: Tensor, share: Tensor, transition: Tensor) -> Tensor:
    """(n, C) log softmax_k(log pi_k + log T[k, y_n] - c_nk), in the type of the cost.

    Args:
        cost: c (n, C) of moving each sample onto each class, but for the part of its label.
        labels: (n,) given class indices y.
        share: (C,) pi.
        transition: (C, C) T.
    """
    log_prior = (_log(share)[:, None] + _log(transition)).to(cost.dtype)  # (C, C): class, given label
    return (log_prior.T[labels] - cost).log_softmax(1)


def estimates(log_q: Tensor, labels: Tensor, transition_prior: float, sum_samples: SumSamples) -> tuple[Tensor, Tensor]:
    """pi (C,) and T (C, C) given a plan, replicated, in float64.

    Args:
        log_q: (n, C) of this process's samples.
        labels: (n,) their given class indices.
        transition_prior: beta.
        sum_samples: all-reduce of a sum over samples.
    """
    nothing = log_q.new_zeros(len(labels), 0)
    share, transition, _, _ = _estimates(log_q, labels, transition_prior, nothing, sum_samples)
    return share, transition


def _estimates(
    log_q: Tensor, labels: Tensor, transition_prior: float, x: Tensor, sum_samples: SumSamples
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """pi; T; sum_n q_n(k) 1[y_n = k] (C,); and sum_n q_n(k) 1[y_n = k] x_n (C, D): in one exchange."""
    num_classes = log_q.shape[1]
    q = log_q.double().exp()
    own = q.gather(1, labels[:, None])
    by_label = q.new_zeros(num_classes, num_classes).index_add_(0, labels, q)
    sums = q.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, own * x)
    both = sum_samples(torch.cat([by_label.T, sums], dim=1))
    joint, sums = both.split([num_classes, x.shape[1]], dim=1)
    num_samples = joint.sum()
    noise_rate = float(1 - joint.diagonal().sum() / num_samples)
    prior = transition_prior * num_samples / num_classes * symmetric_transition(num_classes, noise_rate, joint)
    transition = joint + prior
    return joint.sum(1) / num_samples, transition / transition.sum(1, keepdim=True), joint.diagonal(), sums


def _by_given_label(
    mass: Tensor, x: Tensor, labels: Tensor, num_classes: int, sum_samples: SumSamples
) -> tuple[Tensor, Tensor]:
    """Mass (C,) and weighted sum of x (C, D) of the samples given each label."""
    columns = torch.cat([mass[:, None], mass[:, None] * x], dim=1)
    total = sum_samples(columns.new_zeros(num_classes, columns.shape[1]).index_add_(0, labels, columns))
    return total[:, 0], total[:, 1:]


def _of_given(log_q: Tensor, labels: Tensor) -> Tensor:
    return log_q.gather(1, labels[:, None]).squeeze(1)


def _log(x: Tensor) -> Tensor:
    """log with a finite floor: an empty class stays improbable, not impossible, and never makes 0 / 0."""
    return x.clamp_min(1e-30).log()
