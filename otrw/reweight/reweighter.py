"""`OTReweighter`: one weight per training sample, learned by optimal transport onto a small balanced reference.

Usable alone in anyone's training loop, on one process or under torch.distributed. It joins the maths of `otrw.ot` with
`otrw.distributed` and keeps the per-sample state, keyed by sample index and identical on every process.
"""

from dataclasses import replace

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import check
from otrw.ot.cost import label_vectors
from otrw.ot.semi_relaxed import semi_relaxed
from otrw.ot.sinkhorn import sample_mass, transported_labels
from otrw.ot.weights import WeightNet
from otrw.reweight.diagnostics import Diagnostics, diagnose
from otrw.reweight.inputs import Array, check_classes_present, checked_embeddings, checked_labels
from otrw.reweight.noise_aware import confident_weights, solve_noise_aware
from otrw.reweight.problem import SHARDED, WHOLE, Problem, Reference, SampleAxis, make_cost
from otrw.reweight.rows import Rows, checked_batch, checked_rows
from otrw.reweight.solvers import Solution, sgd_step, solve_network, solve_semi_relaxed, solve_sgd
from otrw.reweight.state import State, from_tensors, to_tensors
from otrw.seeds import seed_for

MAX_UNROLLED_ENTRIES = 1 << 17  # entries of a batched cost; every iteration keeps several of that size for its gradient
MAX_GATHERED_ENTRIES = 1 << 24  # strategy auto: a larger problem stays sharded


class OTReweighter:
    """Weights of `num_samples` training samples in `num_classes` classes (arXiv 2208.02951).

    Call `set_reference` with embeddings and labels of a small balanced set, then `fit` with those of all training samples
    (dataset scope), or `step` with those of each batch (batch scope). Weights have mean 1 over the samples, except with
    ``parametrization="weights"``, where they are the parameters themselves, as in the released code.

    Args:
        num_samples: training samples of all processes, N.
        num_classes: C; labels are 0 to C - 1.
        config: settings of `OTConfig` as one object; or give them by keyword, ``OTReweighter(50_000, 10, epsilon=0.05)``.
        initial_weights: (N,) where "sgd" starts, and the weights before the first solve; ones by default.
        seed: of the weight net's first parameters.
        device: where the weights live and solves run; the CPU by default. What is passed in is moved there.
        **settings: settings of `OTConfig` by keyword.

    Raises:
        UserError: where a setting or an array that is passed to a method cannot be right; one sentence says what.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.8, 0.2], [0.1, 0.9]])
        >>> labels = torch.tensor([0, 0, 0, 1])
        >>> reweighter = OTReweighter(4, 2, epsilon=0.1)
        >>> reweighter.set_reference(torch.eye(2), torch.tensor([0, 1]))
        >>> weights = reweighter.fit(embeddings, labels)
        >>> [round(float(weights[labels == c].sum()), 2) for c in range(2)]  # the rare class weighs as much as the other
        [2.0, 2.0]
    """

    def __init__(
        self,
        num_samples: int,
        num_classes: int,
        config: OTConfig | None = None,
        *,
        initial_weights: Tensor | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
        **settings: object,
    ) -> None:
        if config is not None and settings:
            raise ValueError(f"give either a config or keywords, got both: {sorted(settings)}")
        self.config = config or OTConfig(**settings)  # type: ignore[arg-type]
        check(
            self.config.weights in ("semi_relaxed", "sgd", "network", "noise_aware"),
            "ot.weights",
            self.config.weights,
            "be semi_relaxed, sgd, network or noise_aware",
            "the others are controls that need no transport",
        )
        check(num_samples >= 1, "num_samples", num_samples, "be >= 1")
        check(num_classes >= 2, "num_classes", num_classes, "be >= 2")
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.seed = seed
        self.device = torch.device(device)
        start = torch.ones(num_samples) if initial_weights is None else initial_weights.detach().float()
        check(start.shape == (num_samples,), "initial_weights", tuple(start.shape), f"have shape ({num_samples},)")
        self.weights = start.to(self.device, copy=True)  # `step` writes into it
        """(N,) current weights, replicated."""
        self.theta = self.weights.clone() if self.config.parametrization == "weights" else self.weights.log()
        """(N,) parameters of "sgd", replicated."""
        self.label_targets: Tensor | None = None
        """(N, C) transported labels of the last fit, what the plan says each sample's class is; replicated. None without
        label_transport, except for "noise_aware"."""
        self.transition: Tensor | None = None
        """(C, C) T of "noise_aware": row k says which labels samples of class k are given; replicated, float64."""
        self.class_share: Tensor | None = None
        """(C,) pi of "noise_aware": what share of the samples is of each class; replicated, float64."""
        self._targets: Tensor | None = None  # (N, C) of "noise_aware" with label_transport, which changes their mass too
        self.net: WeightNet | None = None
        """Weight net of "network", replicated."""
        self.diagnostics: Diagnostics | None = None
        self.unconverged_in_all = 0
        """Solves of all calls so far that stopped at max_iterations."""
        self._reference: Reference | None = None

    def __repr__(self) -> str:
        atoms = "no reference" if self._reference is None else f"{len(self._reference.embeddings)} atoms"
        state = "" if self.diagnostics is None else f", worth {self.diagnostics.effective_samples:.0f} samples"
        return (
            f"OTReweighter({self.num_samples} samples, {self.num_classes} classes, {self.config.weights}, "
            f"epsilon={self.config.epsilon:g}, mixing={self.config.mixing:g}, {atoms}{state}, on {self.device})"
        )

    def set_reference(self, embeddings: Array, labels: Array, *, allow_missing: bool = False) -> None:
        """Take a balanced reference set as atoms of equal mass; replicated.

        With ``reference="prototypes"`` the atoms are the class means.

        Args:
            embeddings: (M, D).
            labels: (M,) class indices.
            allow_missing: take a reference that lacks some class; its samples get weight by their likeness to the others.

        Raises:
            UserError: for arrays that cannot be right, or a class without a sample.
        """
        atoms = checked_embeddings(embeddings, "the reference's embeddings", self.device)
        classes = checked_labels(labels, "the reference's labels", len(atoms), self.num_classes, self.device)
        if not allow_missing:
            check_classes_present(classes, self.num_classes)
        if self.config.reference == "prototypes":
            present = classes.unique()
            atoms, classes = torch.stack([atoms[classes == c].mean(0) for c in present]), present
        self._reference = Reference(atoms, classes, self.num_classes)

    @torch.no_grad()
    def fit(self, embeddings: Array, labels: Array, index: Array | None = None, predictions: Array | None = None) -> Tensor:
        """Weights of all samples (dataset scope).

        Args:
            embeddings: (n, D) of this process's samples.
            labels: (n,) their given class indices.
            index: (n,) which samples they are, every sample on exactly one process; on one process it may be left out.
            predictions: (n, C) class probabilities of the model, needed for label_softening and confidence_power; for the
                second those of a model that has not seen the sample, by cross-validation.

        Returns:
            (N,) weights, replicated; a copy that later calls do not change.

        Raises:
            UserError: on every process, where an array of any process cannot be right.
        """
        config, atoms = self.config, self._reference
        width = None if atoms is None else atoms.embeddings.shape[1]
        rows = checked_rows(
            (embeddings, labels, index, predictions), config, width, self.num_samples, self.num_classes, self.device
        )
        axis = SHARDED if distributed.world_size() > 1 and not self._gathers() else WHOLE
        if not axis.is_sharded:
            rows = rows.gathered(self.num_samples)
        solution = self._fit_noise_aware(rows, axis) if config.weights == "noise_aware" else self._fit_transport(rows, axis)
        if config.weight_power != 1 or config.confidence_power != 0:
            own = self.weights[rows.sample_index]
            product = confident_weights(config, own, rows.labels, rows.predictions, self.num_classes, axis)
            self.weights = axis.table(rows.sample_index, product, self.num_samples)
        self._diagnose(solution)
        return self.weights.clone()

    @torch.no_grad()
    def step(self, index: Array, embedding: Array, label: Array, mask: Array | None = None) -> Tensor:
        """Weights of a batch, from transport of the whole global batch (batch scope).

        The batch is gathered and solved on every process, so any number of processes gives the same weights. "sgd"
        takes one gradient step on these samples.

        Args:
            index: (n,) which samples this process's share of the batch holds.
            embedding: (n, D).
            label: (n,) given class indices.
            mask: (n,) False marks padding; none by default.

        Returns:
            (n,) weights of this process's share.

        Raises:
            UserError: on every process, where an array of any process cannot be right, or a setting is one of dataset scope.
        """
        replace(self.config, scope="batch")  # its rules hold here, whatever the scope says
        width = None if self._reference is None else self._reference.embeddings.shape[1]
        rows = checked_batch((index, embedding, label, mask), width, self.num_samples, self.num_classes, self.device)
        members, embeddings, labels = rows.gathered()
        cost = make_cost(self.config, self._atoms(), embeddings, labels)
        problem = Problem(self.config, cost, self._atoms().log_mass, WHOLE, self.num_samples)
        if self.config.weights == "sgd":
            theta, result = sgd_step(problem, self.theta[members])
            self.theta[members] = theta
            weights = theta if self.config.parametrization == "weights" else theta.softmax(0) * len(members)
        else:
            result = semi_relaxed(cost, problem.log_a, epsilon=self.config.epsilon)
            weights = sample_mass(cost, result, self.config.epsilon) * len(members)
        self.weights[members] = weights
        self._diagnose(Solution(weights, result, int(not result.converged), 0.0))
        return self.weights[rows.sample_index]

    @torch.no_grad()
    def steps(self, index: Tensor, embeddings: Tensor, labels: Tensor) -> None:
        """What `step` does for one global batch after the other, for batches that share no sample, in one solve.

        Weights of one batch do not depend on those of another, nor on the classifier, so that with frozen embeddings a
        whole epoch of the paper's steps is one batched problem.

        Args:
            index: (B, n) sample indices of B batches, -1 for padding.
            embeddings: (N, D) of all samples, replicated: every process solves all of it.
            labels: (N,) of all samples, replicated.
        """
        config, atoms = self.config, self._atoms()
        check(config.weights == "sgd" and config.gradient == "unrolled", "ot.gradient", config.gradient, "be unrolled here")
        num_unconverged = 0
        for part in index.split(max(1, MAX_UNROLLED_ENTRIES // (len(atoms.embeddings) * index.shape[1]))):
            keep, members = part >= 0, part.clamp_min(0)
            cost = make_cost(config, atoms, embeddings[members.flatten()].float(), labels[members.flatten()])
            assert isinstance(cost, Tensor)
            batched = cost.view(len(atoms.embeddings), *part.shape).transpose(0, 1)
            problem = Problem(config, batched, atoms.log_mass, WHOLE, self.num_samples)
            theta, result = sgd_step(problem, self.theta[members].where(keep, -torch.inf))
            weights = theta
            if config.parametrization == "logits":
                weights = theta.softmax(-1) * keep.sum(-1, keepdim=True)
            self.theta[part[keep]], self.weights[part[keep]] = theta[keep], weights[keep]
            num_unconverged += int(not result.converged)
        self._diagnose(Solution(self.weights, result, num_unconverged, 0.0))

    def targets(self, labels: Tensor) -> Tensor:
        """Training targets of all samples: given labels (N,), or with label_transport their blend with the plan's (N, C)."""
        if self._targets is not None:
            return self._targets.clone()
        if self.label_targets is None or self.config.label_transport == 0:
            return labels
        return torch.lerp(label_vectors(labels, self.num_classes), self.label_targets, self.config.label_transport)

    @property
    def noise_rate(self) -> float | None:
        """Share of wrong labels that "noise_aware" estimated, sum_k pi_k (1 - T[k, k]); None for the others."""
        if self.transition is None or self.class_share is None:
            return None
        return float(1 - self.class_share @ self.transition.diagonal())

    def wrong_label_scores(self, labels: Tensor) -> Tensor | None:
        """(N,) estimated probability that each given label is wrong, 1 - q_n(y_n); None without a "noise_aware" fit.

        The other plans have the given label in their cost and repeat it: there the weight within its class ranks better.
        """
        if self.label_targets is None or self.config.weights != "noise_aware":
            return None
        labels = labels.to(self.device)
        return 1 - self.label_targets.gather(1, labels[:, None]).squeeze(1)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that later calls depend on."""
        tables = {
            "label_targets": self.label_targets,
            "targets": self._targets,
            "transition": self.transition,
            "class_share": self.class_share,
        }
        return to_tensors(
            State(
                self.weights,
                self.theta,
                self.unconverged_in_all,
                self._reference,
                self.diagnostics,
                {name: table for name, table in tables.items() if table is not None},
                {} if self.net is None else dict(self.net.state_dict()),
            )
        )

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a `state_dict`. Raises UserError where it is of another number of samples."""
        read = from_tensors(state, self.num_samples, self.num_classes, self.device)
        self.weights, self.theta, self.unconverged_in_all = read.weights, read.theta, read.num_unconverged
        self._reference, self.diagnostics = read.reference or self._reference, read.diagnostics
        tables = ("label_targets", "targets", "transition", "class_share")
        self.label_targets, self._targets, self.transition, self.class_share = map(read.tables.get, tables)
        self.net = None
        if read.net:
            self._weight_net(read.net["attention.weight"].shape[1]).load_state_dict(read.net)

    def _fit_noise_aware(self, rows: Rows, axis: SampleAxis) -> Solution:
        """Weights, label tables and estimates of the noise-aware plan."""
        found = solve_noise_aware(self.config, self._atoms(), rows.embeddings, rows.labels, rows.sample_index, axis)
        self.weights = axis.table(rows.sample_index, found.solution.mass * self.num_samples, self.num_samples)
        self.label_targets = axis.table(rows.sample_index, found.posterior, self.num_samples)
        self._targets = None if found.targets is None else axis.table(rows.sample_index, found.targets, self.num_samples)
        self.transition, self.class_share = found.transition, found.class_share
        return found.solution

    def _fit_transport(self, rows: Rows, axis: SampleAxis) -> Solution:
        """Weights, and with label_transport the label table, from a transport plan."""
        config, atoms = self.config, self._atoms()
        cost = make_cost(config, atoms, rows.embeddings, rows.labels, rows.predictions)
        problem = Problem(config, cost, atoms.log_mass, axis, self.num_samples, rows.sample_index)
        if config.weights == "sgd":
            theta, solution = solve_sgd(problem, self.theta[rows.sample_index])
            self.theta = axis.table(rows.sample_index, theta, self.num_samples)
        elif config.weights == "network":
            solution = solve_network(problem, rows.embeddings, self.net or self._weight_net(rows.embeddings.shape[1]))
        else:
            solution = solve_semi_relaxed(problem)
        if config.weights == "sgd" and config.parametrization == "weights":
            self.weights = self.theta.clone()
        else:
            self.weights = axis.table(rows.sample_index, solution.mass * self.num_samples, self.num_samples)
        if config.label_transport > 0:
            labels_back = transported_labels(cost, solution.result, config.epsilon, atoms.label_vectors)
            self.label_targets = axis.table(rows.sample_index, labels_back, self.num_samples)
        return solution

    def _atoms(self) -> Reference:
        if self._reference is None:
            raise ValueError("call set_reference before fit or step")
        return self._reference

    def _gathers(self) -> bool:
        if self.config.strategy == "auto":
            return self.num_samples * len(self._atoms().embeddings) <= MAX_GATHERED_ENTRIES
        return self.config.strategy == "gathered"

    def _weight_net(self, embedding_size: int) -> WeightNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "weight net"))
            self.net = WeightNet(embedding_size, self.config.hidden_size)
        return self.net.to(self.device)

    def _diagnose(self, solution: Solution) -> None:
        self.unconverged_in_all += solution.num_unconverged
        self.diagnostics = diagnose(self.weights, solution)
