"""The two stages, each as phases of the one loop."""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from otrw import distributed
from otrw.config import Config
from otrw.data.datasets import Datasets
from otrw.data.loader import SampleSet
from otrw.models.build import build_model
from otrw.models.heads import FrozenBackbone, HeadOnly, Net
from otrw.models.library_nets import synchronized
from otrw.seeds import seed_for
from otrw.training.evaluation import embed
from otrw.training.loop import train
from otrw.training.session import Phase, Session, Views
from otrw.training.weighting import Embedded, Weighting


def fresh_net(config: Config, data: Datasets, device: torch.device, *purpose: str | int) -> Net:
    """A new net on the device; its parameters depend on the root seed and the purpose, and on the weights it starts from."""
    model = config.model

    def build() -> Net:
        torch.manual_seed(seed_for(config.run.seed, "parameters", *purpose))
        return build_model(
            model.name,
            data.num_classes,
            in_channels=data.in_channels,
            width_multiplier=model.width_multiplier,
            head=model.head,
            image_size=config.data.image_size,
            weights=model.weights,
            pretrained=model.pretrained,
        )

    with torch.random.fork_rng(devices=[]):
        net = distributed.first_on_each_machine(build) if model.pretrained else build()
    if device.type == "cuda" and distributed.world_size() > 1:
        # one normalisation for all processes; torch has it on GPUs only
        net = synchronized(net, model.name)  # type: ignore[assignment]
    return net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def image_views(session: Session) -> Views:
    """All sets as images."""
    data = session.data
    transforms = data.transform(train=True), data.transform(train=False)
    return Views(data.train, data.meta, data.validation, data.test, *transforms)


def stage1(session: Session, net: Net, state: dict | None) -> None:
    """Plain training of the whole net on the long-tailed set, in place."""
    config, data = session.config, session.data
    settings = config.stage1
    kind: Literal["none", "class_balanced"] = "none" if settings.class_balanced_from_epoch is None else "class_balanced"
    table_config = replace(config, ot=replace(config.ot, weights=kind), variants=("stage1",))
    phase = Phase(
        "stage1",
        1,
        net,
        image_views(session),
        settings,
        Weighting(table_config, data, partial(_embed_images, session)),
        sampling_weights=_class_balanced_sampling(data.train.labels) if settings.sampling == "class_balanced" else None,
        weigh_loss=kind != "none",
        class_balanced_from_epoch=settings.class_balanced_from_epoch,
    )
    train(session, phase, state)


def stage2(session: Session, net: Net, state: dict | None) -> tuple[Net, Weighting]:
    """Rounds of: weights from the net's embeddings, then training on the re-weighted loss. Returns the last net."""
    config, settings = session.config, session.config.stage2
    weighting = Weighting(config, session.data, partial(_embed_images, session))
    first_round = state["round"] if state else 1
    net_moves = settings.trainable != "classifier" or settings.embeddings == "forward"
    moves = weighting.per_batch and net_moves
    for round_number in range(first_round, settings.rounds + 1):
        resumed = state if round_number == first_round else None
        # a batch-scope reference that moves with the net is taken at every epoch instead, by the loop
        if not moves and (resumed is None or weighting.per_batch):
            figures = weighting.refresh(net)
            if figures is not None and resumed is None:
                session.journal.solve(figures)
                session.journal.weights(weighting.weights, session.data.train.labels, session.data.class_names)
        if resumed is not None:
            weighting.load_state_dict(resumed["weighting"])
        if settings.trainable == "scratch":
            net = fresh_net(config, session.data, session.accelerator.device, "stage2", round_number)
        module, views = _trained_part(session, net)
        by_sampling = settings.apply_weights == "sampling"
        phase = Phase(
            "stage2",
            round_number,
            module,
            views,
            settings,
            weighting,
            sample_by_weighting=by_sampling,
            weigh_loss=not by_sampling,
            normalizer=settings.normalizer,
            meta_loss_factor=settings.meta_loss_factor,
            meta_batch_size=settings.meta_batch_size,
            meta_forward=settings.meta_forward,
            refresh_every_epochs=1 if moves else settings.refresh_every_epochs,
        )
        train(session, phase, resumed)
    return net, weighting


def _trained_part(session: Session, net: Net) -> tuple[nn.Module, Views]:
    """The module that stage 2 trains, and the sets as it sees them."""
    settings, views = session.config.stage2, image_views(session)
    if settings.trainable != "classifier":
        return net, views
    if settings.embeddings == "forward":
        return FrozenBackbone(net), views

    def embedded(samples: SampleSet) -> SampleSet:
        return samples.with_inputs(_embed_images(session, net, samples, False)[1])

    validation = None if views.validation is None else embedded(views.validation)
    seen = Views(embedded(views.train), embedded(views.meta), validation, embedded(views.test), None, None)
    return HeadOnly(net.head), seen


def _embed_images(session: Session, module: nn.Module, samples: SampleSet, train_mode: bool) -> tuple[Embedded, Tensor]:
    net = module.net if isinstance(module, FrozenBackbone) else module
    assert isinstance(net, Net)
    return embed(session, net, samples, session.data.transform(train=False), train_mode)


def _class_balanced_sampling(labels: Tensor) -> Tensor:
    return 1 / torch.bincount(labels)[labels].double()
