"""The optimiser of a phase, its learning rate over the steps, and what is done to gradients and weights around a step."""

import contextlib
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from otrw.config import OptimizerConfig


def make_optimizer(
    module: nn.Module, options: OptimizerConfig, *, steps_per_epoch: int, epochs: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The optimiser of the parameters that are trained, and the schedule of its learning rate.

    Args:
        module: what is trained; parameters that need no gradient are left out.
        options: which optimiser, learning rates, momentum, weight decay and schedule.
        steps_per_epoch: optimiser steps in an epoch.
        epochs: epochs of the phase.

    Returns:
        The optimiser, and the schedule, to be stepped once after every optimiser step.
    """
    groups = parameter_groups(module, options)
    optimizer: torch.optim.Optimizer
    if options.name == "adamw":
        optimizer = torch.optim.AdamW(
            groups,
            lr=options.learning_rate,
            betas=(options.momentum, options.beta2),
            weight_decay=options.weight_decay,
        )
    else:
        optimizer = torch.optim.SGD(
            groups,
            lr=options.learning_rate,
            momentum=options.momentum,
            nesterov=options.nesterov and options.momentum > 0,
            weight_decay=options.weight_decay,
        )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(options, step, steps_per_epoch, epochs)
    )
    return optimizer, schedule


def parameter_groups(module: nn.Module, options: OptimizerConfig) -> list[dict]:
    """Trained parameters, apart by learning rate and weight decay where these differ; the head's learning rate first."""
    groups: dict[tuple[bool, bool], dict] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_backbone = options.backbone_learning_rate_factor != 1 and "backbone" in name.split(".")
        is_free = options.weight_decay_on == "matrices" and parameter.dim() < 2
        group = groups.setdefault((is_backbone, is_free), {"params": []})
        group["params"].append(parameter)
        if is_backbone:
            group["lr"] = options.learning_rate * options.backbone_learning_rate_factor
        if is_free:
            group["weight_decay"] = 0.0
    return [groups[key] for key in sorted(groups)]


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


def is_sharpness_aware(options: OptimizerConfig, step: int, total: int) -> bool:
    """Whether a phase's step (from 0) of `total` takes its gradient at the worst near point: from `sam_start` on."""
    return options.sam_radius > 0 and step >= round(options.sam_start * total)


@contextlib.contextmanager
def at_the_worst_near(module: nn.Module, radius: float) -> Iterator[None]:
    """Inside, the weights stand where the loss is worst within `radius` of them, to first order: w + radius g / |g|.

    Sharpness-aware minimisation (arXiv 2010.01412, equation 2 with p = 2) takes the gradient of its step there. g is the
    gradient that the parameters hold, which under DDP is that of the global batch: the point is the same on every process.
    Gradients are set to None on the way in. On the way out weights and buffers (statistics of BatchNorm) are what they were,
    bit for bit.

    Args:
        module: its parameters hold gradients.
        radius: rho, an L2 distance over all parameters together.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.grad is not None]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = torch.where(norm > 0, radius / norm, 0.0)
    moving = [*parameters, *module.buffers()]
    before = [value.detach().clone() for value in moving]
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.add_(gradient * factor)
            parameter.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for value, old in zip(moving, before, strict=True):
                value.copy_(old)


def average_of(module: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a module's parameters and buffers: w_ema <- d w_ema + (1 - d) w.

    The t-th update (from 0) takes d = min(decay, (1 + t) / (10 + t)), so that the first steps, which know nothing, are
    forgotten in short trainings as well; the update with t = 0 copies. Call `update_parameters(module)` after each step;
    its `module` is the averaged net.

    Args:
        module: what is averaged.
        decay: the share that stays at a step once the start is over, in (0, 1).
    """

    def moved(averages: list[Tensor], present: list[Tensor], num_updates: Tensor) -> None:
        share = 1 - ((1 + num_updates) / (10 + num_updates)).clamp_max(decay)
        for average, value in zip(averages, present, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share.to(average.dtype))
            else:
                average.copy_(value)

    return AveragedModel(module, multi_avg_fn=moved, use_buffers=True)  # type: ignore[arg-type]
