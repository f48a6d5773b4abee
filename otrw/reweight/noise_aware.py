"""Weights for wrong labels: the noise-aware plan of a reference and its samples, and products with a confidence."""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw.config import OTConfig
from otrw.ot.cost import label_vectors
from otrw.ot.noise_aware import label_mass, noise_aware_plan
from otrw.ot.probe_cost import with_probe_cost
from otrw.ot.sinkhorn import SinkhornResult
from otrw.ot.weights import product_weights
from otrw.reweight.problem import Reference, SampleAxis
from otrw.reweight.solvers import Solution


class NoiseAware(NamedTuple):
    """What the plan says of this process's samples, and of the classes."""

    solution: Solution
    posterior: Tensor
    """(n, C) probability that a sample is of each class; local"""
    targets: Tensor | None
    """(n, C) training targets with label transport; local"""
    transition: Tensor
    """(C, C) T; replicated"""
    class_share: Tensor
    """(C,) pi; replicated"""


def solve_noise_aware(
    config: OTConfig, atoms: Reference, embeddings: Tensor, labels: Tensor, sample_index: Tensor, axis: SampleAxis
) -> NoiseAware:
    """The plan and the mass that follows from it (`otrw.ot.noise_aware`).

    Args:
        config: rounds, prior and cap of the plan; share of transported labels.
        atoms: all trusted samples.
        embeddings: (n, D).
        labels: (n,) given class indices.
        sample_index: (n,) which samples they are, over all processes.
        axis: reductions over the samples.
    """
    plan = noise_aware_plan(
        embeddings,
        labels,
        atoms.embeddings,
        atoms.labels,
        atoms.num_classes,
        num_rounds=config.num_plan_rounds,
        transition_prior=config.transition_prior,
        prototype_cap=config.prototype_cap,
        sum_samples=axis.sum,
    )
    if config.plan_cost != "prototypes":
        trusted = (atoms.embeddings, atoms.labels)
        pooled = config.plan_cost == "pool"
        plan = with_probe_cost(plan, embeddings, labels, *trusted, sample_index, pooled=pooled, sum_samples=axis.sum)
    mass = label_mass(
        plan, labels, config.label_transport, smoothing=config.smoothing_samples, logsumexp_samples=axis.logsumexp
    )
    weights, targets = mass.sum(1), None
    if config.label_transport > 0:  # a sample without mass keeps its given label: it has no say
        given = label_vectors(labels, atoms.num_classes)
        targets = torch.where(weights[:, None] > 0, mass / weights[:, None], given)
    change = torch.tensor(plan.change, device=weights.device)
    zeros = torch.zeros_like(weights)
    result = SinkhornResult(plan.class_share.log(), zeros, change, config.num_plan_rounds, True, "closed_form")
    solution = Solution(weights / float(plan.given_sizes.sum()), result, 0, 0.0)
    return NoiseAware(solution, plan.log_posterior.exp(), targets, plan.transition, plan.class_share)


def confident_weights(
    config: OTConfig, weights: Tensor, labels: Tensor, predictions: Tensor | None, num_classes: int, axis: SampleAxis
) -> Tensor:
    """(n,) w^alpha p^beta with the mass of every given class kept, p the predicted probability of the given label.

    Args:
        config: the two powers.
        weights: (n,) of this process's samples.
        labels: (n,) given class indices.
        predictions: (n, C); looked at where its power is not 0.
        num_classes: C.
        axis: reductions over the samples.
    """
    confidence = torch.ones_like(weights)
    if predictions is not None and config.confidence_power > 0:
        confidence = predictions.gather(1, labels[:, None]).squeeze(1)
    return product_weights(
        weights,
        confidence,
        labels,
        num_classes,
        weight_power=config.weight_power,
        confidence_power=config.confidence_power,
        sum_samples=axis.sum,
    )
