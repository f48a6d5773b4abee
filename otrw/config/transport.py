"""Settings of optimal transport: the cost, the problem, and how weights come out of it."""

from dataclasses import dataclass
from typing import Literal

from otrw.errors import check

WeightsName = Literal[
    "none",
    "class_balanced",
    "semi_relaxed",
    "sgd",
    "network",
    "noise_aware",
    "oracle",
    "zero",
    "trusted_probe",
    "small_loss",
    "out_of_fold",
    "cleanlab",
    "meta_weight_net",
]


@dataclass(frozen=True, kw_only=True)
class OTConfig:
    """Where the weights of training samples come from. Symbols: b are the weights, a the uniform mass of the reference."""

    weights: WeightsName = "semi_relaxed"
    """semi_relaxed: the closed form, b_n = sum_k a_k softmax_n(-C_kn / epsilon). sgd: one parameter a sample, gradient
    steps on the OT objective (arXiv 2208.02951). network: the paper's weight net. noise_aware: for wrong labels, transport
    onto classes with a transition matrix T of labels, class shares and prototypes estimated with the plan q,
    q_n(k) = softmax_k(log pi_k - tau/2 |W (x_n - mu_k)|^2 + log T[k, y_n]), weights (N / C) q_n(y_n) / sum over the given
    class (`otrw.ot.noise_aware` has every formula). Controls: none (uniform),
    class_balanced (effective number of samples, arXiv 1901.05555), oracle (class-balanced, wrong labels dropped), zero
    (none of the training samples). What people use instead, class-balanced over what each leaves: trusted_probe
    (probability of the given label by a probe of the meta images), small_loss and out_of_fold (filters by the net's own
    loss, and by a probe that has not seen the sample), cleanlab (its filter), meta_weight_net (arXiv 1902.07379)."""
    scope: Literal["dataset", "batch"] = "dataset"
    """dataset: all samples against the reference at once. batch: the samples of one step, as the released code does."""
    solver: Literal["auto", "newton", "newton_cg", "sinkhorn", "pot"] = "auto"
    """sgd and network: what finds the potentials. auto: by size, newton (a matrix of atoms x atoms) or newton_cg (conjugate
    gradients), which end at the same plan; with ot.stopping=potential, sinkhorn. sinkhorn: the paper's iteration. pot: the
    POT library solves on one process, to cross-check a run, of semi_relaxed too."""
    memory_mebibytes: float = 1024.0
    """What a solve may take on each process beside embeddings and weights, in MiB: cost, kernel and Hessian. What does not fit
    is computed again from the embeddings at every pass, which changes the time and not the weights."""
    epsilon: float = 0.1
    """Entropic regulariser, in units of the cost."""
    mixing: float = 0.5
    """Share of the feature cost; the rest is the label cost. In [0, 1]."""
    label_cost: Literal["mean_squared", "euclidean"] = "euclidean"
    """Between label vectors: mean squared difference (released code; 2/C where labels differ) or Euclidean distance
    (paper; sqrt 2 where they differ)."""
    label_softening: float = 0.0
    """Share of the model's own prediction in a training sample's label vector, in [0, 1]."""
    weight_power: float = 1.0
    """alpha of the weights w_n^alpha p_n^beta, w the transport's and p_n the predicted probability of the given label, scaled
    so that every given class keeps its mass. Below 1 smooths, above 1 sharpens."""
    confidence_power: float = 0.0
    """beta of the same; 0 asks for no predictions."""
    predictions: Literal["net", "out_of_fold", "out_of_fold_balanced"] = "net"
    """Whose predictions label_softening and confidence_power take: the net's own, which has seen the labels; or a linear probe
    of the embeddings in five folds, each sample predicted by a probe of the other four, with every class weighing the same
    (out_of_fold_balanced) or not."""
    reference: Literal["samples", "prototypes"] = "samples"
    """All meta samples as atoms, or one atom a class."""
    prototype: Literal["mean_embedding", "mean_image"] = "mean_embedding"
    """A class's prototype: the mean of its meta embeddings, or (released code) the embedding of its mean meta image."""
    label_transport: float = 0.0
    """Share of the transported label (trusted_probe_labels: of the probe's opinion) in a training target, in [0, 1]; the
    rest is the given label. noise_aware: share of the class-balanced plan q_n(k) / sum_m q_m(k) in the mass of sample n with
    label k; the rest is its weight with the given label."""
    plan_cost: Literal["prototypes", "probe", "pool"] = "prototypes"
    """noise_aware: how far a sample is from a class. prototypes: by its distance to the class's prototype, as in the formula
    above. probe: then anew by -log p_k(x_n) in place of the distance, p a linear probe of the embeddings that learns from the
    plan's own labels and the trusted samples, in turn with the plan, in five folds (`otrw.ot.probe_cost`). pool: half of each,
    and an eighth of -log c_k(x_n), c a probe of all given labels as they are."""
    num_plan_rounds: int = 3
    """noise_aware: how often T, pi and mu are taken from the plan and the plan from them."""
    transition_prior: float = 0.2
    """noise_aware: beta, mass of the pooled symmetric transition matrix in every row of T, in mean class sizes N / C."""
    prototype_cap: float = 1.0
    """noise_aware: most plan mass that a prototype may take, in units of the class's trusted samples; 0 keeps their means."""
    smoothing_samples: float = 0.0
    """noise_aware: kappa of the weights (N / C) (q_n(y_n) + kappa / n_c) / (A_c + kappa), n_c the samples given the label and
    A_c how many of them are right by the plan: sharp weights for classes of many right samples, smooth ones for few."""
    dropped_share: float | None = None
    """small_loss: share of each class to drop, in [0, 1); null takes the true share of wrong labels, where that is known."""
    strategy: Literal["auto", "sharded", "gathered"] = "auto"
    """sharded: every process keeps its samples, one collective of K floats an iteration. gathered: embeddings are
    gathered once and every process solves the whole. auto: by size."""
    max_iterations: int = 1000
    """Most passes over the cost a solve."""
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
        check(self.memory_mebibytes > 0, "ot.memory_mebibytes", self.memory_mebibytes, "be > 0")
        check(
            self.stopping == "marginal" or not self.solver.startswith("newton"),
            "ot.stopping",
            self.stopping,
            f"be 'marginal' with ot.solver={self.solver}",
            "the released code's rule is one of ot.solver=sinkhorn",
        )
        for key in ("weight_power", "confidence_power"):
            check(getattr(self, key) >= 0, f"ot.{key}", getattr(self, key), "be >= 0")
        is_plain = self.weight_power == 1 and self.confidence_power == 0
        check(
            is_plain or (self.scope == "dataset" and self.parametrization == "logits"),
            "ot.confidence_power",
            self.confidence_power,
            "be 0, and ot.weight_power 1, with ot.scope=batch or ot.parametrization=weights",
        )
        check(self.num_plan_rounds >= 1, "ot.num_plan_rounds", self.num_plan_rounds, "be >= 1")
        check(self.transition_prior > 0, "ot.transition_prior", self.transition_prior, "be > 0", "try 0.2")
        check(self.smoothing_samples >= 0, "ot.smoothing_samples", self.smoothing_samples, "be >= 0", "try 5")
        check(self.prototype_cap >= 0, "ot.prototype_cap", self.prototype_cap, "be >= 0", "try 1")
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
            self.scope == "dataset" or self.weights not in ("network", "noise_aware"),
            "ot.weights",
            self.weights,
            f"not be {self.weights!r} with ot.scope=batch",
            "use ot.scope=dataset",
        )
        check(
            self.weights != "noise_aware" or self.reference == "samples",
            "ot.reference",
            self.reference,
            "be 'samples' with ot.weights=noise_aware",
            "the spread of the trusted samples is what it measures distances by",
        )
