"""Run-time facts of what is being trained: the session of one variant, its sets, and one phase of optimisation."""

from typing import NamedTuple

import torch
from accelerate.accelerator import Accelerator
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from otrw.config import Config, Stage1Config, Stage2Config
from otrw.data.datasets import Datasets
from otrw.data.loader import Loader, SampleSet, Transform
from otrw.training.embeddings import EmbeddingCache
from otrw.training.losses import Loss
from otrw.training.progress import Progress
from otrw.training.stop import StopRequest
from otrw.training.tracking import Journal
from otrw.training.weighting import Weighting


class Views(NamedTuple):
    """The sets as the trained module sees them: images, or embeddings of a frozen backbone."""

    train: SampleSet
    meta: SampleSet
    validation: SampleSet | None
    test: SampleSet
    train_transform: Transform | None
    transform: Transform | None


class Phase(NamedTuple):
    """What one optimisation trains, on what, with which weights."""

    stage: str
    round: int
    module: nn.Module
    views: Views
    settings: Stage1Config | Stage2Config
    weighting: Weighting
    sampling_weights: Tensor | None = None
    """(N,) fixed weights to draw samples by."""
    sample_by_weighting: bool = False
    """Draw samples in proportion to the weighting's present weights."""
    weigh_loss: bool = True
    normalizer: str = "weights"
    meta_loss_factor: float = 0.0
    meta_batch_size: int | None = None
    meta_forward: str = "joint"
    refresh_every_epochs: int | None = None
    class_balanced_from_epoch: int | None = None
    """Stage 1: the weights count from this epoch on; None: always."""


class Training(NamedTuple):
    """What a phase trains with."""

    module: nn.Module
    """As accelerate prepared it, and compiled where asked for."""
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    loader: Loader
    meta_loader: Loader | None
    criterion: Loss
    average: AveragedModel | None = None
    """Of the weights over the steps; None where none is asked for."""


class Session(NamedTuple):
    """Run-time facts of one variant."""

    config: Config
    accelerator: Accelerator
    data: Datasets
    journal: Journal
    progress: Progress
    stop: StopRequest
    embeddings: EmbeddingCache | None = None
    """Of the finished stage 1; None while it is being trained."""
