"""The weights and targets that stage 2 trains on: computed from a net's embeddings, or a control's fixed table."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from otrw import distributed
from otrw.config import Config
from otrw.data.datasets import Datasets
from otrw.data.decoding import all_decoded
from otrw.data.files import ImageFiles
from otrw.data.loader import Batch, Loader, SampleSet
from otrw.data.view import ImageTransform
from otrw.ot.cost import label_vectors
from otrw.ot.weights import effective_number_weights
from otrw.reweight import OTReweighter
from otrw.training import competitors
from otrw.training.early_learning import EarlyLearning
from otrw.training.losses import Loss, forward_corrected
from otrw.training.meta_weight_net import MetaWeightNet
from otrw.training.metrics import wrong_label_figures
from otrw.training.probe import out_of_fold_opinions


@dataclass(frozen=True)
class Embedded:
    """A net's view of samples; one process's share, every sample on exactly one process."""

    index: Tensor
    """(n,) sample index"""
    embeddings: Tensor
    """(n, D) float32"""
    probabilities: Tensor
    """(n, C) float32"""


OPTIONAL = ("quality", "opinions", "transition")
"""Tensors of a weighting that some variants have."""
Embed = Callable[[nn.Module, SampleSet, bool], tuple[Embedded, Tensor]]
"""(net, samples, train mode) -> the local share, and all embeddings by sample index (N, D)."""


class Weighting:
    """Weights (N,) and targets, (N,) or (N, C), of the training samples, and how to make them anew."""

    quality: Tensor | None = None
    """(N,) how right each label looks, on any scale, where that is more than the weight within its class."""
    opinions: Tensor | None = None
    """(N, C) a competitor's class probabilities, where targets are made of them."""
    transition: Tensor | None = None
    """(C, C) of the gold loss correction."""
    early_learning: EarlyLearning | None = None
    meta_weight_net: MetaWeightNet | None = None

    def __init__(self, config: Config, data: Datasets, embed: Embed) -> None:
        self.config = config
        self.data = data
        self.embed = embed
        self.weights = start_weights(config, data)
        self.targets = data.train.labels
        self.reweighter: OTReweighter | None = None
        device = data.train.labels.device
        loss = None if config.variants[0] == "stage1" else config.stage2.loss
        self._corrects = loss is not None and loss.name == "gold_correction"
        if loss is not None and loss.name == "early_learning":
            settings = loss.early_learning_factor, loss.early_learning_momentum
            self.early_learning = EarlyLearning(len(data.train), data.num_classes, *settings, device)
        if config.ot.weights == "meta_weight_net":
            self.meta_weight_net = MetaWeightNet(config.run.seed).to(device)
        if config.variants[0].startswith("ot"):
            self.reweighter = OTReweighter(
                len(data.train),
                data.num_classes,
                config.ot,
                initial_weights=self.weights,
                seed=config.run.seed,
                device=device,
            )

    @property
    def is_empty(self) -> bool:
        """Whether no training sample counts."""
        return self.config.ot.weights == "zero"

    @property
    def per_batch(self) -> bool:
        """Whether every step solves for its own samples."""
        return self.reweighter is not None and self.config.ot.scope == "batch"

    @property
    def whole_epochs(self) -> bool:
        """Whether the solves of an epoch depend on nothing that trains, so that they can be done before it, at once."""
        ot, stage2 = self.config.ot, self.config.stage2
        frozen = stage2.trainable == "classifier" and stage2.embeddings == "cached" and stage2.mixup_alpha == 0
        return self.per_batch and frozen and ot.weights == "sgd" and ot.gradient == "unrolled"

    def of_epoch(self, loader: Loader, epoch: int) -> None:
        """Solve for all batches of an epoch of embeddings at once, where `whole_epochs`."""
        assert self.reweighter is not None
        order = loader.order(epoch).to(loader.samples.labels.device)
        index = pad_sequence(order.split(loader.sizes), batch_first=True, padding_value=-1)
        self.reweighter.steps(index, loader.samples.in_memory, loader.samples.labels)
        self.weights = self.reweighter.weights

    def refresh(self, net: nn.Module) -> dict | None:
        """Take the reference from the net, and with dataset scope all weights; returns diagnostics to log, if any."""
        if self._corrects:
            local, _ = self.embed(net, self.data.meta, False)
            probabilities = distributed.gather_by_index(local.index, local.probabilities, len(self.data.meta))
            self.transition = competitors.transition_matrix(probabilities, self.data.meta.labels, self.data.num_classes)
        if self.config.ot.weights in competitors.KINDS:
            self._take(self._judged(net))
            return self.describe()
        if self.reweighter is None:
            return None
        lacks = self.config.data.num_classes_without_meta > 0
        self.reweighter.set_reference(*self._reference(net), allow_missing=lacks)
        if self.per_batch:
            return None
        local, embeddings = self.embed(net, self.data.train, False)
        predictions = self._predictions(local, embeddings)
        self.weights = self.reweighter.fit(local.embeddings, self.data.train.labels[local.index], local.index, predictions)
        self.targets = self.reweighter.targets(self.data.train.labels)
        if self.config.ot.weights == "noise_aware":
            scores = self.wrong_label_scores()
            self.quality = None if scores is None else -scores
        return self.describe()

    def of_batch(self, batch: Batch, net: nn.Module, meta: Batch | None = None) -> Tensor:
        """Weights (n,) of a batch; mixed samples get the mix of both weights. meta: the step's meta samples."""
        if self.meta_weight_net is not None and meta is not None:
            rate = self.config.stage2.optimizer.learning_rate
            index, weights = self.meta_weight_net.of_step(net, batch, meta, self.data.num_classes, rate)
            self.weights[index] = weights
        if self.per_batch and not self.whole_epochs:
            assert self.reweighter is not None
            was_training = net.training
            net.eval()
            with torch.no_grad():
                embedding = net(batch.inputs).embedding
            net.train(was_training)
            self.reweighter.step(batch.index, embedding, batch.labels, batch.mask)
            self.weights = self.reweighter.weights
        if batch.partner_share == 0:
            return self.weights[batch.index]
        return torch.lerp(self.weights[batch.index], self.weights[batch.partner], batch.partner_share)

    def losses_of_batch(self, criterion: Loss, logits: Tensor, targets: Tensor, batch: Batch) -> Tensor:
        """Losses (n,) of a batch: the criterion's, or one that knows the transition of labels or the samples' past.

        Args:
            criterion: loss of (logits, targets).
            logits: (n, C).
            targets: (n,) or (n, C).
            batch: which samples they are.
        """
        if self.transition is not None:
            return forward_corrected(logits, targets, transition=self.transition)
        losses = criterion(logits, targets)
        if self.early_learning is not None:
            losses = losses + self.early_learning.penalties(logits, batch)
        return losses

    def targets_of_batch(self, batch: Batch, is_weighted: bool) -> Tensor:
        """Targets of a batch.

        A mixed sample has two labels, and where weights count each label counts by its own sample's weight:
        (1 - s) w_i l(y_i) + s w_j l(y_j) is the mixed weight times the loss of the targets mixed by s w_j over that weight,
        since cross-entropy is linear in its target. Otherwise a label of weight 0 would come back through its partner.

        Args:
            batch: this process's samples.
            is_weighted: whether the weights count in the loss.

        Returns:
            (n,) class indices; (n, C) where labels are transported or samples mixed.
        """
        targets = self.targets
        if batch.partner_share == 0:
            return targets[batch.index]
        vectors = targets if targets.dim() == 2 else torch.eye(self.data.num_classes, device=targets.device)[targets]
        share = torch.full((len(batch.index), 1), batch.partner_share, device=targets.device)
        if is_weighted:
            own, other = self.weights[batch.index], self.weights[batch.partner]
            mixed = torch.lerp(own, other, batch.partner_share)
            share = torch.where(mixed > 0, batch.partner_share * other / mixed, batch.partner_share)[:, None]
        return torch.lerp(vectors[batch.index], vectors[batch.partner], share)

    def describe(self) -> dict:
        """Figures of the present weights: the solve, how many samples they are worth, what wrong labels get."""
        weights, train = self.weights.double(), self.data.train
        squares = float(weights.square().sum())
        figures: dict = {"effective_samples": float(weights.sum() ** 2) / squares if squares else 0.0}
        if self.reweighter is not None and self.reweighter.diagnostics is not None:
            solve = self.reweighter.diagnostics
            figures |= {
                "num_iterations": solve.num_iterations,
                "marginal_error": solve.marginal_error,
                "converged": solve.converged,
                "num_unconverged": solve.num_unconverged,
                "unconverged_in_all": self.reweighter.unconverged_in_all,
                "objective_gap": solve.objective_gap,
                "solver": solve.solver,
            }
        wrong = train.labels != train.true_labels
        if bool(wrong.any()) and squares:
            figures["wrong_label_mass"] = float(weights[wrong].sum() / weights.sum())
            figures |= wrong_label_figures(self.weights, self.quality, train.labels, wrong, self.data.true_sizes)
        if self.reweighter is not None and self.reweighter.noise_rate is not None:
            figures["estimated_noise_rate"] = self.reweighter.noise_rate
        return figures

    def estimates(self) -> dict:
        """What "noise_aware" estimated of each class: its share of the samples, and how much of it is rightly labelled."""
        if self.reweighter is None or self.reweighter.transition is None or self.reweighter.class_share is None:
            return {}
        shares, right = self.reweighter.class_share, self.reweighter.transition.diagonal()
        return {"estimated_class_share": shares.tolist(), "estimated_right_share": right.tolist()}

    def suggested_labels(self) -> Tensor | None:
        """(N,) labels that the plan, or a competitor, holds most probable; None where targets are the given labels."""
        if self.opinions is not None:
            return self.opinions.argmax(1)
        if self.reweighter is None or self.reweighter.label_targets is None:
            return None
        return self.reweighter.label_targets.argmax(1)

    def wrong_label_scores(self) -> Tensor | None:
        """(N,) probability that each given label is wrong; None without a noise-aware plan."""
        return None if self.reweighter is None else self.reweighter.wrong_label_scores(self.data.train.labels)

    def movement(self) -> dict:
        """How far "sgd" moved the weights from where it started: of samples, and the mean weight of each class."""
        if self.reweighter is None or self.config.ot.weights != "sgd":
            return {}
        start, labels = start_weights(self.config, self.data).double(), self.data.train.labels
        change = (self.weights.double() - start).abs()
        sizes = torch.bincount(labels, minlength=self.data.num_classes).clamp_min(1)

        def class_means(weights: Tensor) -> list[float]:
            return (weights.new_zeros(self.data.num_classes).index_add_(0, labels, weights) / sizes).tolist()

        moved = {
            "start_range": [float(start.min()), float(start.max())],
            "mean_change": float(change.mean()),
            "largest_change": float(change.max()),
            "class_mean_start": class_means(start),
            "class_mean_end": class_means(self.weights.double()),
            "class_largest_change": [float(change[labels == c].max()) for c in range(self.data.num_classes)],
        }
        return {"movement": moved}

    def state_dict(self) -> dict[str, Tensor]:
        """Weights, targets and the reweighter's own state."""
        state = {"weights": self.weights, "targets": self.targets}
        state |= {name: value for name in OPTIONAL if (value := getattr(self, name)) is not None}
        if self.early_learning is not None:
            state["early_learning"] = self.early_learning.means
        if self.meta_weight_net is not None:
            state |= {f"meta_weight_net.{name}": value for name, value in self.meta_weight_net.full_state().items()}
        if self.reweighter is not None:
            state |= {f"reweighter.{name}": value for name, value in self.reweighter.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a `state_dict`."""
        device = self.data.train.labels.device
        self.weights, self.targets = state["weights"].to(device), state["targets"].to(device)
        for name in OPTIONAL:
            setattr(self, name, state[name].to(device) if name in state else None)
        if self.early_learning is not None:
            self.early_learning.means = state["early_learning"].to(device)
        if self.meta_weight_net is not None:
            self.meta_weight_net.load_full_state(_below("meta_weight_net.", state))
        if self.reweighter is not None:
            self.reweighter.load_state_dict(_below("reweighter.", state))

    def _predictions(self, local: Embedded, embeddings: Tensor) -> Tensor:
        """(n, C) of this process's samples: the net's, or those of a probe that has not seen the sample."""
        kind, train = self.config.ot.predictions, self.data.train
        if kind == "net":
            return local.probabilities
        probe = partial(
            out_of_fold_opinions,
            embeddings.cpu().numpy(),
            train.labels.cpu().numpy(),
            self.data.num_classes,
            seed=self.config.run.seed,
            balanced=kind == "out_of_fold_balanced",
        )
        return torch.as_tensor(distributed.on_main(probe)).to(local.embeddings)[local.index]

    def _judged(self, net: nn.Module) -> competitors.Judgement:
        """A competitor's judgement of the training samples, made on the main process and shared."""
        data, config = self.data, self.config
        local, embeddings = self.embed(net, data.train, False)
        probabilities = distributed.gather_by_index(local.index, local.probabilities, len(data.train))
        _, trusted = self.embed(net, data.meta, False)
        seen = competitors.Seen(
            embeddings.cpu().numpy(),
            probabilities.cpu().numpy(),
            data.train.labels.cpu().numpy(),
            trusted.cpu().numpy(),
            data.meta.labels.cpu().numpy(),
            data.num_classes,
        )
        dropped = config.ot.dropped_share
        if dropped is None:
            dropped = float((data.train.labels != data.train.true_labels).float().mean())
        judge = partial(competitors.judge, config.ot.weights, seen, dropped_share=dropped, seed=config.run.seed)
        return distributed.on_main(judge)

    def _take(self, judgement: competitors.Judgement) -> None:
        """Make weights, and with ot.label_transport targets, of a competitor's judgement."""
        data, ot = self.data, self.config.ot
        device = data.train.labels.device
        confidence, self.quality = (
            torch.as_tensor(x, device=device).float() for x in (judgement.confidence, judgement.quality)
        )
        self.weights = competitors.confidence_weights(confidence, data.train.labels, data.num_classes, ot.class_balanced_beta)
        if ot.label_transport > 0 and judgement.opinions is not None:
            self.opinions = torch.as_tensor(judgement.opinions, device=device).float()
            self.targets = torch.lerp(label_vectors(data.train.labels, data.num_classes), self.opinions, ot.label_transport)

    def _reference(self, net: nn.Module) -> tuple[Tensor, Tensor]:
        meta = self.data.meta
        if self.config.ot.reference == "prototypes" and self.config.ot.prototype == "mean_image":
            classes = torch.arange(self.data.num_classes, device=meta.labels.device)
            inputs, transform = meta.inputs, self.data.transform(train=False)
            if isinstance(inputs, ImageFiles):
                assert isinstance(transform, ImageTransform)
                inputs = all_decoded(inputs, transform.cropping, workers=transform.workers).to(meta.labels.device)
            images = torch.stack([inputs[meta.labels == c].float().mean(0) for c in classes])
            meta = SampleSet(images, classes, classes, classes, classes)
            in_train_mode = self.config.stage2.embeddings == "forward"  # as the released code does, once an epoch
            return self.embed(net, meta, in_train_mode)[1], meta.labels
        return self.embed(net, meta, False)[1], meta.labels


def _below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def start_weights(config: Config, data: Datasets) -> Tensor:
    """(N,) weights without any transport: the control's own, or where "sgd" starts."""
    train = data.train
    beta = config.ot.class_balanced_beta
    match config.ot.weights:
        case "class_balanced" | "sgd":
            return effective_number_weights(data.given_sizes, beta)[train.labels]
        case "oracle":
            right = train.labels == train.true_labels
            sizes = torch.bincount(train.labels[right], minlength=data.num_classes)
            return effective_number_weights(sizes, beta)[train.labels] * right
        case "zero":
            return torch.zeros(len(train), device=train.labels.device)
        case _:
            return torch.ones(len(train), device=train.labels.device)
