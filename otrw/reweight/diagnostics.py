"""How a call of `OTReweighter` went."""

from typing import NamedTuple

import torch
from torch import Tensor

from otrw.ot.sinkhorn import SOLVERS
from otrw.reweight.solvers import Solution


class Diagnostics(NamedTuple):
    """How the last call went; all replicated."""

    num_iterations: int
    """Of the last solve."""
    marginal_error: float
    """Of the last solve: L1 distance of the plan's reference marginal from a."""
    converged: bool
    """Whether every solve of the call met its tolerance."""
    effective_samples: float
    """(sum w)^2 / sum w^2: how many equally weighted samples the weights are worth (Kish 1965)."""
    num_unconverged: int = 0
    """Solves of the call that stopped at max_iterations instead."""
    objective_gap: float = 0.0
    """sgd and network: how far the descent over the weights was from its minimum, in units of the cost; 0 in closed form."""
    solver: str = ""
    """What solved it, see `SinkhornResult`."""

    def to_tensor(self) -> Tensor:
        """(7,) float64, for a checkpoint of tensors; the solver by its position in SOLVERS."""
        return torch.tensor([*map(float, self[:-1]), SOLVERS.index(self.solver)], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, numbers: Tensor) -> "Diagnostics":
        """What `to_tensor` wrote; earlier versions wrote fewer numbers."""
        iterations, error, converged, effective, *rest = numbers.tolist()
        num_unconverged, gap, solver = (*rest, 0.0, 0.0, 0.0)[:3]
        return cls(int(iterations), error, bool(converged), effective, int(num_unconverged), gap, SOLVERS[int(solver)])


def diagnose(weights: Tensor, solution: Solution) -> Diagnostics:
    """What there is to say of the weights (N,) that a solution led to."""
    result = solution.result
    return Diagnostics(
        num_iterations=result.num_iterations,
        marginal_error=float(result.marginal_error.max()),
        converged=solution.num_unconverged == 0,
        effective_samples=float(weights.sum().square() / weights.square().sum()),
        num_unconverged=solution.num_unconverged,
        objective_gap=solution.objective_gap,
        solver=result.solver,
    )
