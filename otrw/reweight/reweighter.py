"""`OTReweighter`: one weight per training sample, learned by optimal transport onto a small balanced reference.

Usable alone in anyone's training loop, on one process or under torch.distributed. It joins the maths of `otrw.ot` with
`otrw.distributed` and keeps the per-sample state, keyed by sample index and identical on every process.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from otrw import distributed
from otrw.config import OTConfig
from otrw.errors import UserError, check
from otrw.ot.cost import ChunkedCost, Cost, combined_cost, cosine_cost, label_cost, label_vectors
from otrw.ot.semi_relaxed import semi_relaxed
from otrw.ot.sinkhorn import (
    LogSumExp,
    SinkhornResult,
    logsumexp_rows,
    sample_mass,
    semi_relaxed_pot,
    sinkhorn,
    sinkhorn_pot,
    transported_labels,
)
from otrw.ot.weights import WeightNet, descend, envelope_gradient, unrolled_step
from otrw.seeds import seed_for

MAX_DENSE_ENTRIES = 1 << 26  # a larger cost matrix (256 MiB) is computed in chunks
MAX_UNROLLED_ENTRIES = 1 << 17  # entries of a batched cost; every iteration keeps several of that size for its gradient
MAX_GATHERED_ENTRIES = 1 << 24  # strategy auto: a larger one stays sharded


class Diagnostics(NamedTuple):
    """How the last solve went; all replicated."""

    num_iterations: int
    marginal_error: float
    converged: bool
    effective_samples: float
    """(sum w)^2 / sum w^2: how many equally weighted samples the weights are worth (Kish 1965)."""


class _Axis(NamedTuple):
    """Reductions over the sample axis: across processes where it is sharded, else on one process."""

    logsumexp: LogSumExp
    sum: Callable[[Tensor], Tensor]


_WHOLE = _Axis(logsumexp_rows, torch.detach)
_SHARDED = _Axis(distributed.logsumexp_samples, distributed.all_reduce_sum)


class OTReweighter:
    """Weights of `num_samples` training samples in `num_classes` classes (arXiv 2208.02951).

    Call `set_reference` with embeddings and labels of a small balanced set, then `fit` with those of all training samples
    (dataset scope), or `step` with those of each batch (batch scope). Weights have mean 1 over the samples, except with
    ``parametrization="weights"``, where they are the parameters themselves, as in the released code.

    Settings are those of `OTConfig`, as one object or by keyword: ``OTReweighter(50_000, 10, epsilon=0.05)``.
    initial_weights (N,): where "sgd" starts, and the weights before the first solve; ones by default.
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
            self.config.weights in ("semi_relaxed", "sgd", "network"),
            "ot.weights",
            self.config.weights,
            "be semi_relaxed, sgd or network",
            "the others are controls that need no transport",
        )
        self.num_samples = num_samples
        self.num_classes = num_classes
        self.seed = seed
        self.device = torch.device(device)
        start = torch.ones(num_samples) if initial_weights is None else initial_weights.detach().float()
        self.weights = start.to(self.device, copy=True)  # `step` writes into it
        """(N,) current weights, replicated."""
        self.theta = self.weights.clone() if self.config.parametrization == "weights" else self.weights.log()
        """(N,) parameters of "sgd", replicated."""
        self.label_targets: Tensor | None = None
        """(N, C) transported labels of the last fit, replicated; None without label_transport."""
        self.net: WeightNet | None = None
        """Weight net of "network", replicated."""
        self.diagnostics: Diagnostics | None = None
        self._reference: tuple[Tensor, Tensor] | None = None

    def set_reference(self, embeddings: Tensor, labels: Tensor) -> None:
        """Take embeddings (M, D) and labels (M,) of the balanced reference set as atoms; replicated.

        With ``reference="prototypes"`` the atoms are the class means. Atoms have equal mass.
        """
        embeddings, labels = embeddings.detach().float().to(self.device), labels.to(self.device)
        if self.config.reference == "prototypes":
            classes = labels.unique()
            embeddings = torch.stack([embeddings[labels == c].mean(0) for c in classes])
            labels = classes
        self._reference = embeddings, label_vectors(labels, self.num_classes)

    @torch.no_grad()
    def fit(
        self,
        embeddings: Tensor,
        labels: Tensor,
        index: Tensor | None = None,
        predictions: Tensor | None = None,
    ) -> Tensor:
        """Weights of all samples from their embeddings (n, D) and labels (n,): returns (N,), replicated.

        Each process gives its own samples, named by `index` (n,), every sample on exactly one process; on one process
        they may be left out. predictions (n, C): the model's class probabilities, needed for label_softening.
        """
        if index is None:
            if distributed.world_size() > 1 or len(embeddings) != self.num_samples:
                raise ValueError("fit needs the sample index of each row, unless one process gives all samples in order")
            index = torch.arange(self.num_samples)
        config = self.config
        index = index.to(self.device)
        rows = [embeddings.float(), labels, predictions if config.label_softening > 0 else None]
        if config.label_softening > 0 and predictions is None:
            raise ValueError("label_softening needs the model's predictions")
        sharded = distributed.world_size() > 1 and not self._gathers()
        if not sharded:
            rows = [
                None if x is None else distributed.gather_by_index(index, x.to(self.device), self.num_samples) for x in rows
            ]
            index = torch.arange(self.num_samples, device=self.device)
        cost = self._cost(*(None if x is None else x.to(self.device) for x in rows))  # type: ignore[arg-type]
        axis = _SHARDED if sharded else _WHOLE
        mass, result = self._solve(cost, rows[0].to(self.device), index, axis)  # type: ignore[union-attr]
        table = distributed.gather_by_index if sharded else _put_by_index
        if config.weights == "sgd":
            self.theta = table(index, self.theta[index], self.num_samples)
        if config.weights == "sgd" and config.parametrization == "weights":
            self.weights = self.theta.clone()
        else:
            self.weights = table(index, mass * self.num_samples, self.num_samples)
        if config.label_transport > 0:
            labels_back = transported_labels(cost, result, config.epsilon, self._atoms()[1])
            self.label_targets = table(index, labels_back, self.num_samples)
        self._diagnose(result)
        return self.weights

    @torch.no_grad()
    def step(self, index: Tensor, embedding: Tensor, label: Tensor, mask: Tensor | None = None) -> Tensor:
        """Weights (n,) of this process's share of a batch, from transport of the whole global batch (batch scope).

        index (n,), embedding (n, D), label (n,), mask (n,): False marks padding. The batch is gathered and solved on every
        process, so any number of processes gives the same weights. "sgd" takes one gradient step on these samples.
        """
        mask = torch.ones_like(index, dtype=torch.bool) if mask is None else mask
        keep = distributed.all_gather_rows(mask)
        members, embeddings, labels = (distributed.all_gather_rows(x)[keep] for x in (index, embedding.float(), label))
        cost = self._cost(embeddings, labels, None)
        assert isinstance(cost, Tensor)
        config = self.config
        if config.weights == "sgd":
            theta, result = self._sgd_step(cost, self.theta[members], _WHOLE, None)
            self.theta[members] = theta
            weights = theta if config.parametrization == "weights" else theta.softmax(0) * len(members)
        else:
            result = semi_relaxed(cost, self._log_a(), epsilon=config.epsilon)
            weights = sample_mass(cost, result, config.epsilon) * len(members)
        self.weights[members] = weights
        self._diagnose(result)
        return self.weights[index]

    @torch.no_grad()
    def steps(self, index: Tensor, embeddings: Tensor, labels: Tensor) -> None:
        """What `step` does for one global batch after the other, for batches that share no sample, in one solve.

        index (B, n): sample indices of B batches, -1 for padding. embeddings (N, D) and labels (N,) of all samples,
        replicated: every process solves all of it. Weights of one batch do not depend on those of another, nor on the
        classifier, so that with frozen embeddings a whole epoch of the paper's steps is one batched problem.
        """
        config, (atoms, _) = self.config, self._atoms()
        check(config.weights == "sgd" and config.gradient == "unrolled", "ot.gradient", config.gradient, "be unrolled here")
        for part in index.split(max(1, MAX_UNROLLED_ENTRIES // (len(atoms) * index.shape[1]))):
            keep, members = part >= 0, part.clamp_min(0)
            cost = self._cost(embeddings[members.flatten()].float(), labels[members.flatten()], None)
            assert isinstance(cost, Tensor)
            cost = cost.view(len(atoms), *part.shape).transpose(0, 1)
            theta, result = self._sgd_step(cost, self.theta[members].where(keep, -torch.inf), _WHOLE, None)
            weights = theta
            if config.parametrization == "logits":
                weights = theta.softmax(-1) * keep.sum(-1, keepdim=True)
            self.theta[part[keep]], self.weights[part[keep]] = theta[keep], weights[keep]
            self._diagnose(result)

    def targets(self, labels: Tensor) -> Tensor:
        """Training targets of all samples: given labels (N,), or with label_transport their blend with the plan's (N, C)."""
        if self.label_targets is None:
            return labels
        return torch.lerp(label_vectors(labels, self.num_classes), self.label_targets, self.config.label_transport)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything that later calls depend on, but for the reference."""
        state = {"weights": self.weights, "theta": self.theta}
        if self.diagnostics is not None:
            state["diagnostics"] = torch.tensor([float(value) for value in self.diagnostics], dtype=torch.float64)
        if self.label_targets is not None:
            state["label_targets"] = self.label_targets
        if self.net is not None:
            state |= {f"net.{name}": value for name, value in self.net.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a `state_dict`."""
        check(
            len(state["weights"]) == self.num_samples,
            "number of weights",
            len(state["weights"]),
            f"be {self.num_samples}",
        )
        self.weights, self.theta = (state[key].to(self.device).clone() for key in ("weights", "theta"))
        self.label_targets = state["label_targets"].to(self.device).clone() if "label_targets" in state else None
        self.diagnostics = None
        if "diagnostics" in state:
            iterations, error, converged, effective = state["diagnostics"].tolist()
            self.diagnostics = Diagnostics(int(iterations), error, bool(converged), effective)
        net_state = {name.removeprefix("net."): value for name, value in state.items() if name.startswith("net.")}
        self.net = None
        if net_state:
            self._make_net(net_state["attention.weight"].shape[1]).load_state_dict(net_state)

    def _atoms(self) -> tuple[Tensor, Tensor]:
        if self._reference is None:
            raise ValueError("call set_reference before fit or step")
        return self._reference

    def _log_a(self) -> Tensor:
        num_atoms = len(self._atoms()[0])
        return torch.full((num_atoms,), 1 / num_atoms, device=self.device).log()

    def _gathers(self) -> bool:
        if self.config.strategy == "auto":
            return self.num_samples * len(self._atoms()[0]) <= MAX_GATHERED_ENTRIES
        return self.config.strategy == "gathered"

    def _cost(self, embeddings: Tensor, labels: Tensor, predictions: Tensor | None) -> Cost:
        reference, reference_labels = self._atoms()
        vectors = label_vectors(labels, self.num_classes, predictions, self.config.label_softening)

        def columns(part: slice) -> Tensor:
            return combined_cost(
                cosine_cost(reference, embeddings[part]),
                label_cost(reference_labels, vectors[part], self.num_classes, self.config.label_cost),
                self.config.mixing,
            )

        num_samples = len(embeddings)
        if len(reference) * num_samples <= MAX_DENSE_ENTRIES:
            return columns(slice(0, num_samples))
        return ChunkedCost(columns, num_samples, max(1, MAX_DENSE_ENTRIES // len(reference)))

    def _solve(self, cost: Cost, embeddings: Tensor, index: Tensor, axis: _Axis) -> tuple[Tensor, SinkhornResult]:
        """(mass of each local sample, potentials)."""
        config = self.config
        match config.weights:
            case "semi_relaxed":
                if config.solver == "pot":
                    result = semi_relaxed_pot(_dense(cost), self._log_a(), epsilon=config.epsilon)
                else:
                    result = semi_relaxed(cost, self._log_a(), epsilon=config.epsilon, logsumexp_samples=axis.logsumexp)
                return sample_mass(cost, result, config.epsilon), result
            case "sgd":
                return self._fit_sgd(cost, index, axis)
            case _:
                return self._fit_network(cost, embeddings, axis)

    def _fit_sgd(self, cost: Cost, index: Tensor, axis: _Axis) -> tuple[Tensor, SinkhornResult]:
        theta, g = self.theta[index], None
        for _ in range(self.config.num_steps):
            theta, result = self._sgd_step(cost, theta, axis, g)
            g = result.g
        self.theta[index] = theta
        return (theta - axis.logsumexp(theta[None, :])).exp(), result

    def _sgd_step(self, cost: Cost, theta: Tensor, axis: _Axis, warm_g: Tensor | None) -> tuple[Tensor, SinkhornResult]:
        """One gradient step on theta. Dataset scope descends N times the objective, so that a step does not shrink with N."""
        config = self.config
        if config.gradient == "unrolled":
            if axis is _SHARDED:
                raise UserError(
                    "ot.strategy must be 'gathered' with ot.gradient=unrolled, got 'sharded' or 'auto' on a large set"
                )
            step = unrolled_step(
                _dense(cost),
                theta,
                epsilon=config.epsilon,
                max_iterations=config.max_iterations,
                tolerance=config.tolerance,
                stopping=config.stopping,
                learning_rate=config.learning_rate * (self.num_samples if config.scope == "dataset" else 1),
                weight_decay=config.weight_decay / (self.num_samples if config.scope == "dataset" else 1),
            )
            return step.theta, step.result
        gradient, result = self._envelope(cost, theta, axis, warm_g)
        return descend(theta, gradient, learning_rate=config.learning_rate, weight_decay=config.weight_decay), result

    def _envelope(self, cost: Cost, theta: Tensor, axis: _Axis, warm_g: Tensor | None) -> tuple[Tensor, SinkhornResult]:
        """Gradient of N OT_eps(a, softmax(theta)) in theta (of OT_eps itself in batch scope), by the envelope theorem."""
        config = self.config
        log_b = theta - axis.logsumexp(theta[None, :])
        settings = {"epsilon": config.epsilon, "max_iterations": config.max_iterations, "tolerance": config.tolerance}
        if config.solver == "pot":
            result = sinkhorn_pot(_dense(cost), self._log_a(), log_b, **settings)  # type: ignore[arg-type]
        else:
            result = sinkhorn(
                cost,
                self._log_a(),
                log_b,
                stopping=config.stopping,
                initial_g=warm_g,
                logsumexp_samples=axis.logsumexp,
                **settings,  # type: ignore[arg-type]
            )
        b = log_b.exp()
        mean_g = axis.sum(torch.where(b > 0, b * result.g, 0).sum())
        scale = self.num_samples if config.scope == "dataset" else 1
        return scale * envelope_gradient(b, result.g, mean_g), result

    def _fit_network(self, cost: Cost, embeddings: Tensor, axis: _Axis) -> tuple[Tensor, SinkhornResult]:
        net = self.net or self._make_net(embeddings.shape[1])
        optimizer = torch.optim.SGD(net.parameters(), lr=self.config.learning_rate / self.num_samples)
        g = None
        for _ in range(self.config.num_steps):
            with torch.enable_grad():
                theta = net(embeddings)
            gradient, result = self._envelope(cost, theta.detach(), axis, g)
            g = result.g
            optimizer.zero_grad()
            theta.backward(gradient)
            for parameter in net.parameters():
                assert parameter.grad is not None
                parameter.grad = axis.sum(parameter.grad)
            optimizer.step()
        theta = net(embeddings)
        return (theta - axis.logsumexp(theta[None, :])).exp(), result

    def _make_net(self, embedding_size: int) -> WeightNet:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for(self.seed, "weight net"))
            self.net = WeightNet(embedding_size, self.config.hidden_size)
        return self.net.to(self.device)

    def _diagnose(self, result: SinkhornResult) -> None:
        effective = self.weights.sum().square() / self.weights.square().sum()
        error = float(result.marginal_error.max())
        self.diagnostics = Diagnostics(result.num_iterations, error, result.converged, float(effective))


def _put_by_index(index: Tensor, values: Tensor, num_samples: int) -> Tensor:
    table = values.new_zeros((num_samples, *values.shape[1:]))
    table[index] = values
    return table


def _dense(cost: Cost) -> Tensor:
    if isinstance(cost, Tensor):
        return cost
    raise UserError(
        "ot.solver=pot and ot.gradient=unrolled need the whole cost matrix in memory; use fewer reference atoms "
        "(ot.reference=prototypes), ot.solver=sinkhorn or ot.gradient=envelope"
    )
