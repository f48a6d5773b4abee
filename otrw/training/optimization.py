"""The optimiser and its learning rate over the steps of a phase."""

import math

import torch
from torch import nn

from otrw.config import OptimizerConfig


def make_optimizer(
    module: nn.Module, options: OptimizerConfig, *, steps_per_epoch: int, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """Stochastic gradient descent on the parameters that are trained, and the schedule of its learning rate.

    Args:
        module: what is trained; parameters that need no gradient are left out.
        options: learning rate, momentum, weight decay and schedule.
        steps_per_epoch: optimiser steps in an epoch.
        epochs: epochs of the phase.

    Returns:
        The optimiser, and the schedule, to be stepped once after every optimiser step.
    """
    optimizer = torch.optim.SGD(
        [parameter for parameter in module.parameters() if parameter.requires_grad],
        lr=options.learning_rate,
        momentum=options.momentum,
        nesterov=options.nesterov and options.momentum > 0,
        weight_decay=options.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(options, step, steps_per_epoch, epochs)
    )
    return optimizer, schedule


def learning_rate_factor(options: OptimizerConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the peak learning rate at a global step."""
    total, warmup = steps_per_epoch * epochs, round(options.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / warmup
    match options.schedule:
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))
        case "step":
            return options.decay_factor ** sum(step >= round(share * total) for share in options.milestones)
        case _:
            return 1.0
