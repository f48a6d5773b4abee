"""What to train: one frozen tree of dataclasses. It is intent and never changes; run-time facts live elsewhere.

Every value can be set in a YAML preset and on the command line by its dotted path (``--ot.epsilon 0.05``).
Checks that need one section stand in its ``__post_init__``; checks across sections in `Config`.
"""

from dataclasses import asdict, dataclass, field
from typing import Literal

from otrw.errors import check

Variant = Literal[
    "stage1",
    "cross_entropy",
    "cross_entropy_meta",
    "class_balanced",
    "class_balanced_meta",
    "ot",
    "ot_meta",
    "ot_labels_meta",
    "oracle",
    "oracle_meta",
]


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Random changes to a training image. Draws depend on (seed, epoch, sample), never on the rank."""

    crop_padding: int = 4
    """Pixels added on every side before a random crop back to the image size; 0 turns the crop off."""
    padding_mode: Literal["zero", "reflect"] = "reflect"
    """What the added pixels hold."""
    horizontal_flip: bool = True
    """Mirror each image with probability one half."""
    cutout_size: int = 0
    """Side of a square set to the mean colour at a random place, in pixels; 0 turns it off (arXiv 1708.04552)."""

    def __post_init__(self) -> None:
        check(self.crop_padding >= 0, "data.augment.crop_padding", self.crop_padding, "be >= 0")
        check(self.cutout_size >= 0, "data.augment.cutout_size", self.cutout_size, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, how imbalanced, how wrong the labels."""

    source: Literal["digits", "cifar10", "cifar100"] = "digits"
    """digits: scikit-learn's bundled handwritten digits (no download). cifar10, cifar100: files below `root`."""
    root: str = "data"
    """Folder that holds `cifar10/*.parquet` as on the Hugging Face hub, or torchvision's `cifar-10-batches-py`."""
    layout: Literal["auto", "parquet", "torchvision"] = "auto"
    """File layout below `root`; auto takes Parquet when it is there."""
    download: bool = False
    """Let torchvision download CIFAR into `root` when it is missing. Nothing is ever downloaded without this."""
    cache: str = "~/.cache/otrw"
    """Folder for decoded images (one uint8 array a data set); an empty string keeps nothing."""
    labels: Literal["fine", "coarse"] = "fine"
    """coarse (CIFAR-100 only): train on the 20 superclasses, with the long tail over the fine classes inside each."""
    imbalance_factor: float = 20.0
    """Size of the largest class over the size of the smallest, >= 1."""
    profile: Literal["exponential", "step"] = "exponential"
    """How class sizes fall from head to tail: n_c = head * factor^(-c/(C-1)), or half large and half small classes."""
    num_meta_per_class: int = 10
    """Images a class of the small, trusted, balanced meta set; cut out before the tail is made."""
    num_validation_per_class: int = 0
    """Images a class of a balanced validation set for choosing hyper-parameters; cut out before the tail is made."""
    label_noise: Literal["none", "symmetric", "similar"] = "none"
    """symmetric: a wrong label is any other class. similar: it is the class most easily confused (arXiv 1609.03683).
    Meta, validation and test labels stay right."""
    label_noise_rate: float = 0.0
    """Probability that a training label is wrong, in [0, 1)."""
    many_above: int = 100
    """Classes with more training images than this are "many-shot" (arXiv 1904.05160)."""
    few_below: int = 20
    """Classes with fewer training images than this are "few-shot"."""
    seed: int | None = None
    """Seed of the split and of the label noise; null takes run.seed."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random crops, flips and cutout of training images."""

    def __post_init__(self) -> None:
        check(self.imbalance_factor >= 1, "data.imbalance_factor", self.imbalance_factor, "be >= 1")
        check(self.num_meta_per_class >= 1, "data.num_meta_per_class", self.num_meta_per_class, "be >= 1")
        check(
            self.num_validation_per_class >= 0,
            "data.num_validation_per_class",
            self.num_validation_per_class,
            "be >= 0",
        )
        check(0 <= self.label_noise_rate < 1, "data.label_noise_rate", self.label_noise_rate, "be in [0, 1)")
        check(
            (self.label_noise == "none") == (self.label_noise_rate == 0),
            "data.label_noise_rate",
            self.label_noise_rate,
            f"agree with data.label_noise={self.label_noise}",
            "set both, or neither",
        )
        check(
            self.labels == "fine" or self.source == "cifar100",
            "data.labels",
            self.labels,
            f"be 'fine' for {self.source}",
            "only cifar100 has coarse labels",
        )
        check(self.few_below <= self.many_above + 1, "data.few_below", self.few_below, "be at most data.many_above + 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The net: image -> (embedding, logits)."""

    name: Literal["small", "resnet20", "resnet32", "resnet44", "resnet56"] = "small"
    """small: three convolutions with GroupNorm, for digits. resnet*: CIFAR nets with 16/32/64 channels (arXiv 1512.03385)."""
    width_multiplier: float = 1.0
    """Factor on every channel count. Published "ResNet-32" numbers mix nets of different widths; 1 is the original."""
    head: Literal["linear", "cosine"] = "linear"
    """Classifier on the embedding; cosine normalises both sides and learns one scale."""

    def __post_init__(self) -> None:
        check(self.width_multiplier > 0, "model.width_multiplier", self.width_multiplier, "be > 0")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Stochastic gradient descent with momentum and a learning-rate schedule."""

    learning_rate: float = 0.1
    """Peak learning rate for the configured (global) batch size."""
    momentum: float = 0.9
    """Momentum, in [0, 1)."""
    nesterov: bool = True
    """Nesterov's variant of momentum."""
    weight_decay: float = 5e-4
    """L2 penalty on all parameters."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """cosine: to zero at the end. step: times `decay_factor` at every milestone."""
    warmup_epochs: float = 0.0
    """Epochs of linear warm-up."""
    milestones: tuple[float, ...] = (0.8, 0.9)
    """step schedule: when to decay, as fractions of all epochs."""
    decay_factor: float = 0.01
    """step schedule: the factor."""

    def check(self, path: str) -> None:
        """Raise UserError for a bad value; `path` is where in the tree this section stands."""
        check(self.learning_rate > 0, f"{path}.learning_rate", self.learning_rate, "be > 0")
        check(0 <= self.momentum < 1, f"{path}.momentum", self.momentum, "be in [0, 1)")
        check(self.weight_decay >= 0, f"{path}.weight_decay", self.weight_decay, "be >= 0")
        check(self.warmup_epochs >= 0, f"{path}.warmup_epochs", self.warmup_epochs, "be >= 0")


LossName = Literal["cross_entropy", "balanced_softmax", "logit_adjusted", "ldam"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The per-sample loss."""

    name: LossName = "cross_entropy"
    """balanced_softmax: arXiv 2007.10740. logit_adjusted: arXiv 2007.07314. ldam: arXiv 1906.07413."""
    logit_adjustment: float = 1.0
    """tau of logit_adjusted."""
    ldam_max_margin: float = 0.5
    """Largest margin of ldam, at the rarest class."""
    ldam_scale: float = 30.0
    """Factor on the logits of ldam; meant for a cosine head."""

    def check(self, path: str) -> None:
        """Raise UserError for a bad value; `path` is where in the tree this section stands."""
        check(self.ldam_max_margin > 0, f"{path}.ldam_max_margin", self.ldam_max_margin, "be > 0")
        check(self.ldam_scale > 0, f"{path}.ldam_scale", self.ldam_scale, "be > 0")


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Plain training on the long-tailed set."""

    epochs: int = 60
    """Passes over the training set."""
    batch_size: int = 128
    """Samples a step over all processes together."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Per-sample loss."""
    class_balanced_from_epoch: int | None = None
    """Weight the loss by the effective number of samples from this epoch on (deferred re-weighting, arXiv 1906.07413);
    0 from the start, null never."""
    sampling: Literal["shuffle", "class_balanced"] = "shuffle"
    """class_balanced draws every class equally often, with replacement."""
    mixup_alpha: float = 0.0
    """Beta(alpha, alpha) mixing of pairs of samples (arXiv 1710.09412); 0 turns it off."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and schedule."""
    checkpoint: str | None = None
    """Start from this finished stage 1 (a `model.safetensors` of an earlier run) instead of training one."""

    def __post_init__(self) -> None:
        self.loss.check("stage1.loss")
        self.optimizer.check("stage1.optimizer")
        check(self.epochs >= 1, "stage1.epochs", self.epochs, "be >= 1")
        check(self.batch_size >= 1, "stage1.batch_size", self.batch_size, "be >= 1")
        check(self.mixup_alpha >= 0, "stage1.mixup_alpha", self.mixup_alpha, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class OTConfig:
    """Where the weights of training samples come from. Symbols: b are the weights, a the uniform mass of the reference."""

    weights: Literal["none", "class_balanced", "semi_relaxed", "sgd", "network", "oracle"] = "semi_relaxed"
    """semi_relaxed: the closed form, b_n = sum_k a_k softmax_n(-C_kn / epsilon). sgd: one parameter a sample, gradient
    steps on the OT objective (arXiv 2208.02951). network: the paper's weight net. Controls: none (uniform),
    class_balanced (effective number of samples, arXiv 1901.05555), oracle (class-balanced, wrong labels dropped)."""
    scope: Literal["dataset", "batch"] = "dataset"
    """dataset: all samples against the reference at once. batch: the samples of one step, as the released code does."""
    solver: Literal["sinkhorn", "pot"] = "sinkhorn"
    """pot: the POT library solves on one process, to cross-check a run."""
    epsilon: float = 0.1
    """Entropic regulariser, in units of the cost."""
    mixing: float = 0.5
    """Share of the feature cost; the rest is the label cost. In [0, 1]."""
    label_cost: Literal["mean_squared", "euclidean"] = "euclidean"
    """Between label vectors: mean squared difference (released code; 2/C where labels differ) or Euclidean distance
    (paper; sqrt 2 where they differ)."""
    label_softening: float = 0.0
    """Share of the model's own prediction in a training sample's label vector, in [0, 1]."""
    reference: Literal["samples", "prototypes"] = "samples"
    """All meta samples as atoms, or one atom a class."""
    prototype: Literal["mean_embedding", "mean_image"] = "mean_embedding"
    """A class's prototype: the mean of its meta embeddings, or (released code) the embedding of its mean meta image."""
    label_transport: float = 0.0
    """Share of the transported label in a training target, in [0, 1]; the rest is the given label."""
    strategy: Literal["auto", "sharded", "gathered"] = "auto"
    """sharded: every process keeps its samples, one collective of K floats an iteration. gathered: embeddings are
    gathered once and every process solves the whole. auto: by size."""
    max_iterations: int = 1000
    """Most Sinkhorn iterations a solve."""
    tolerance: float = 1e-4
    """Stop at this marginal error (total mass moved wrongly), or at this L1 change of the potential."""
    stopping: Literal["marginal", "potential"] = "marginal"
    """What the tolerance is held against; potential is the released code's rule."""
    gradient: Literal["envelope", "unrolled"] = "envelope"
    """sgd and network: envelope, dOT/db = g at convergence. sgd alone: unrolled, of <P, C> through the iterations (released
    code)."""
    parametrization: Literal["logits", "weights"] = "logits"
    """sgd: b = softmax(theta) and the loss is weighted by b (logits), or by theta itself (weights; released code)."""
    num_steps: int = 50
    """sgd and network, dataset scope: gradient steps a fit. Batch scope takes one a training step."""
    learning_rate: float = 0.03
    """sgd and network: step size. Well below epsilon: larger steps oscillate around the minimum."""
    weight_decay: float = 0.0
    """sgd: decay of theta towards zero at every step (released code: 5e-4)."""
    hidden_size: int = 100
    """network: width of the hidden layer."""
    class_balanced_beta: float = 0.9999
    """beta of the effective number of samples; also where sgd starts."""

    def __post_init__(self) -> None:
        check(self.epsilon > 0, "ot.epsilon", self.epsilon, "be > 0", "try 0.05 to 0.5")
        for key in ("mixing", "label_softening", "label_transport"):
            check(0 <= getattr(self, key) <= 1, f"ot.{key}", getattr(self, key), "be in [0, 1]")
        check(self.max_iterations >= 1, "ot.max_iterations", self.max_iterations, "be >= 1")
        check(self.tolerance > 0, "ot.tolerance", self.tolerance, "be > 0")
        check(self.num_steps >= 1, "ot.num_steps", self.num_steps, "be >= 1")
        check(self.learning_rate > 0, "ot.learning_rate", self.learning_rate, "be > 0")
        check(self.weight_decay >= 0, "ot.weight_decay", self.weight_decay, "be >= 0")
        check(
            self.weights != "network" or self.gradient == "envelope",
            "ot.gradient",
            self.gradient,
            "be 'envelope' with ot.weights=network",
            "only sgd is differentiated through the iterations",
        )
        check(self.hidden_size >= 1, "ot.hidden_size", self.hidden_size, "be >= 1")
        check(0 <= self.class_balanced_beta < 1, "ot.class_balanced_beta", self.class_balanced_beta, "be in [0, 1)")
        for key in ("label_transport", "label_softening"):
            check(
                self.scope == "dataset" or getattr(self, key) == 0,
                f"ot.{key}",
                getattr(self, key),
                "be 0 with ot.scope=batch",
                "use ot.scope=dataset",
            )
        check(
            self.scope == "dataset" or self.weights != "network",
            "ot.weights",
            self.weights,
            "not be 'network' with ot.scope=batch",
            "use ot.scope=dataset",
        )


@dataclass(frozen=True, kw_only=True)
class Stage2Config:
    """Training on the re-weighted loss."""

    trainable: Literal["none", "classifier", "all", "scratch"] = "scratch"
    """none: no stage 2. classifier: the head alone. all: fine-tune the whole net. scratch: train a new net."""
    embeddings: Literal["cached", "forward"] = "cached"
    """classifier: work on embeddings computed once (no augmentation), or forward augmented images at every step (slow
    path of the released code; BatchNorm statistics move)."""
    epochs: int = 60
    """Passes over the training set, in each round."""
    batch_size: int = 128
    """Training samples a step over all processes together; meta samples come on top."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Per-sample loss."""
    rounds: int = 1
    """OT variants only: how often to compute weights from the last net's embeddings and train again. Round 1 starts from
    stage 1. Variants without OT have nothing to iterate and always take one."""
    refresh_every_epochs: int | None = None
    """Re-compute the weights from fresh embeddings every so many epochs; null keeps them for the round."""
    apply_weights: Literal["loss", "sampling"] = "loss"
    """Weight the loss, or draw samples in proportion to their weights."""
    normalizer: Literal["weights", "samples", "none"] = "weights"
    """Divide a step's weighted loss by the sum of its weights, by its number of samples, or (released code) by nothing."""
    meta_loss_factor: float = 1.0
    """Factor on the mean cross-entropy of the meta images; 0 leaves them out."""
    meta_batch_size: int | None = None
    """Meta images a step; null takes all of them."""
    meta_forward: Literal["joint", "separate"] = "joint"
    """joint: one forward pass over training and meta images. separate: one each (released code)."""
    mixup_alpha: float = 0.0
    """As in stage 1; meta images are never mixed."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """Optimiser and schedule."""

    def __post_init__(self) -> None:
        self.loss.check("stage2.loss")
        self.optimizer.check("stage2.optimizer")
        check(self.epochs >= 1, "stage2.epochs", self.epochs, "be >= 1")
        check(self.batch_size >= 1, "stage2.batch_size", self.batch_size, "be >= 1")
        check(self.rounds >= 1, "stage2.rounds", self.rounds, "be >= 1")
        check(
            self.refresh_every_epochs is None or self.refresh_every_epochs >= 1,
            "stage2.refresh_every_epochs",
            self.refresh_every_epochs,
            "be >= 1 or null",
        )
        check(self.meta_loss_factor >= 0, "stage2.meta_loss_factor", self.meta_loss_factor, "be >= 0")
        check(
            self.meta_batch_size is None or self.meta_batch_size >= 1,
            "stage2.meta_batch_size",
            self.meta_batch_size,
            "be >= 1 or null",
        )
        check(self.mixup_alpha >= 0, "stage2.mixup_alpha", self.mixup_alpha, "be >= 0")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where and how it runs."""

    seed: int = 0
    """Root of every random draw."""
    directory: str = "runs"
    """Folder of all runs."""
    name: str | None = None
    """Name of this run's folder; null makes one from the data and the time. An existing folder is refused."""
    preset: str | None = None
    """Preset that these settings started from: what tables call the run. The command line fills it in."""
    resume: str | None = None
    """Go on with this run's folder after an interruption; every other setting is read from it."""
    cpu: bool = False
    """Stay on the CPU on a machine with a GPU."""
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """Autocast of the net: auto is bf16 on a GPU that has it, else float32. Weights are always solved in float32."""
    compile: bool = False
    """torch.compile the net. Worth it on a GPU; measure on a CPU."""
    evaluate_every_epochs: int = 1
    """Epochs between evaluations; the last epoch is always evaluated."""
    checkpoint_every_epochs: int = 1
    """Epochs between checkpoints; an interrupted run repeats at most this many."""
    keep_checkpoints: int = 1
    """How many checkpoints of a variant stay while it runs."""
    tensorboard: bool = True
    """Write TensorBoard logs."""
    timeout_seconds: float = 600.0
    """How long a process waits for the others before the job ends with an error."""

    def __post_init__(self) -> None:
        check(self.seed >= 0, "run.seed", self.seed, "be >= 0")
        is_plain = self.name is None or (self.name not in ("", ".", "..") and not set(self.name) & {"/", "\\"})
        check(is_plain, "run.name", self.name, "be a plain folder name", "run.directory says where it goes")
        for key in ("evaluate_every_epochs", "checkpoint_every_epochs", "keep_checkpoints"):
            check(getattr(self, key) >= 1, f"run.{key}", getattr(self, key), "be >= 1")
        check(self.timeout_seconds > 0, "run.timeout_seconds", self.timeout_seconds, "be > 0")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that defines a run."""

    data: DataConfig = field(default_factory=DataConfig)
    """Which images, how imbalanced, how wrong the labels."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The net."""
    stage1: Stage1Config = field(default_factory=Stage1Config)
    """Plain training."""
    ot: OTConfig = field(default_factory=OTConfig)
    """Where the weights come from."""
    stage2: Stage2Config = field(default_factory=Stage2Config)
    """Training on the re-weighted loss."""
    run: RunConfig = field(default_factory=RunConfig)
    """Where and how it runs."""
    variants: tuple[Variant, ...] = ("ot_meta",)
    """Which stage 2 to train, one after the other on the same stage 1: the setting itself (ot_meta) and its controls.
    stage1: none. cross_entropy, class_balanced, ot, oracle: which weights; _meta: with the meta images in the loss, all
    other variants without. ot_labels: with transported labels too."""

    def __post_init__(self) -> None:
        check(len(self.variants) > 0, "variants", list(self.variants), "name at least one")
        check(len(set(self.variants)) == len(self.variants), "variants", list(self.variants), "name each variant once")
        has_stage2 = self.stage2.trainable != "none"
        for variant in self.variants:
            check(variant == "stage1" or has_stage2, "variants", variant, "be stage1 with stage2.trainable=none")
            check(
                not variant.endswith("_meta") or self.stage2.meta_loss_factor > 0 or not has_stage2,
                "stage2.meta_loss_factor",
                self.stage2.meta_loss_factor,
                f"be > 0 for variant {variant}",
            )
            check(
                not variant.startswith("ot") or self.ot.weights in ("semi_relaxed", "sgd", "network"),
                "ot.weights",
                self.ot.weights,
                f"be semi_relaxed, sgd or network for variant {variant}",
                "the others are controls, to be had as variants of their own",
            )
            check(
                not variant.startswith("ot_labels") or self.ot.label_transport > 0,
                "ot.label_transport",
                self.ot.label_transport,
                f"be > 0 for variant {variant}",
                "try 0.5",
            )
            check(
                not variant.startswith("oracle") or self.data.label_noise != "none",
                "variants",
                variant,
                "come with data.label_noise",
                "without wrong labels the oracle is class_balanced",
            )
        check(
            self.stage2.refresh_every_epochs is None or self.stage2.trainable != "classifier",
            "stage2.refresh_every_epochs",
            self.stage2.refresh_every_epochs,
            "be null with stage2.trainable=classifier",
            "frozen embeddings do not change",
        )
        check(
            self.ot.scope == "dataset" or self.stage2.apply_weights == "loss",
            "stage2.apply_weights",
            self.stage2.apply_weights,
            "be 'loss' with ot.scope=batch",
            "use ot.scope=dataset to sample by weight",
        )
        check(
            not (self.model.name == "small" and self.data.source != "digits"),
            "model.name",
            self.model.name,
            f"be a resnet for {self.data.source}",
            "try --model.name resnet32",
        )

    @property
    def data_seed(self) -> int:
        """Seed of the split."""
        return self.run.seed if self.data.seed is None else self.data.seed


def to_dict(config: object) -> dict:
    """Plain nested dict of a config: what is written to YAML and hashed."""
    return asdict(config)  # type: ignore[call-overload]
